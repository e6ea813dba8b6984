"""Finished probes on disk, so that a killed audit goes on where it was."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ._subject import Outcome


@dataclasses.dataclass(frozen=True)
class ProbeCache:
    """One file per probe in a folder; a file of another subject, plan or key is never read, because its name differs.

    Args: folder: None keeps nothing. identity: hex digest of everything that decides the results.
    """

    folder: Path | None
    identity: str

    def attack_state(self, probe: str) -> str | None:
        """The folder for a running attack's own state."""
        return None if self.folder is None else str(self.folder / f"{probe}-{self.identity[:16]}")

    def load(self, probe: str) -> tuple[Outcome, float] | None:
        """The outcome and its wall time in seconds, or None; a file that cannot be read counts as none."""
        path = self._path(probe)
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                arrays = {k: file[k] for k in file.files if k != "meta"}
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None  # a kill while writing cannot cause this, a full disk can: measure again
        flags = tuple(dict(f, value=float(f["value"])) for f in meta["flags"])
        return Outcome(arrays, meta["settings"], flags), float(meta["wall_s"])

    def save(self, probe: str, outcome: Outcome, wall_s: float) -> None:
        """Writes the outcome; the former file stays whole until the new one is."""
        path = self._path(probe)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = [dict(f, value=repr(float(f["value"]))) for f in outcome.flags]
        meta: dict[str, Any] = {"settings": outcome.settings, "flags": flags, "wall_s": wall_s}
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            arrays: dict[str, Any] = outcome.arrays
            np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
        os.replace(temporary, path)

    def _path(self, probe: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{probe}-{self.identity[:16]}.npz"
