"""What a smoothing run has found, kept on disk: one file for each question."""

import os
import time
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..attack._checkpoint import read_npz, write_npz

EVERY = 5.0  # seconds between two writes of the state

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """A dataclass of arrays, `kind`, in a folder; no folder keeps nothing."""

    def __init__(self, folder: str | os.PathLike[str] | None, identity: str, kind: type[_T], prefix: str = "smooth"):
        self._path = None if folder is None else Path(folder) / f"{prefix}-{identity[:16]}.npz"
        self._saved, self._kind = time.monotonic(), kind
        self._names: tuple[str, ...] = tuple(getattr(kind, "__dataclass_fields__"))  # noqa: B009  # which a TypeVar cannot say

    def load(self) -> _T | None:
        """What a former call found; None where there is nothing that can be read."""
        file: Any = None if self._path is None else read_npz(self._path)
        return self._kind(**file) if file is not None and set(file) == set(self._names) else None

    def save(self, now: _T, at_least: float = 0.0) -> None:
        """Writes unless the last time is less than `at_least` seconds ago; a kill while writing leaves the former file whole."""
        if self._path is None or time.monotonic() - self._saved < at_least:
            return
        write_npz(self._path, {name: getattr(now, name) for name in self._names})
        self._saved = time.monotonic()
