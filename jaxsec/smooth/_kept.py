"""What a smoothing run has found, kept on disk: one file for each question."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from ..attack._checkpoint import read_npz, write_npz

EVERY = 5.0  # seconds between two writes of the state


class Kept:
    """A dataclass of arrays, `kind`, in a folder; no folder keeps nothing."""

    def __init__(self, folder: str | os.PathLike[str] | None, identity: str, kind: type[Any], prefix: str):
        self._path = None if folder is None else Path(folder) / f"{prefix}-{identity[:16]}.npz"
        self._saved, self._kind = time.monotonic(), kind
        self._names = [field.name for field in dataclasses.fields(kind)]

    def load(self) -> Any:
        """What a former call found; None where there is nothing that can be read."""
        file = None if self._path is None else read_npz(self._path)
        return self._kind(**file) if file is not None and set(file) == set(self._names) else None

    def tick(self, now: Any) -> None:
        """Saves where the last time is long ago."""
        if time.monotonic() - self._saved >= EVERY:
            self.save(now)

    def save(self, now: Any) -> None:
        """Writes; a kill while writing leaves the former file whole."""
        if self._path is not None:
            write_npz(self._path, {name: getattr(now, name) for name in self._names})
            self._saved = time.monotonic()
