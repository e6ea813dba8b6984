"""A ladder's findings on disk: after a kill the same call goes on behind its last batch, and what is finished is only read."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..attack._checkpoint import fingerprint, of_programs, read_npz, write_npz
from ..core._check import program_of
from ..core._model import Model
from ..threat import Threat


@dataclasses.dataclass
class Findings:
    """What is known of each row so far, as in `Certificate`, and how far the ladder is.

    `stage` is the method that runs (their number when all are done), `rows` are those that were open when it began, and `past` of
    them are done, whatever the size of a batch.
    """

    margin: np.ndarray
    method: np.ndarray
    status: np.ndarray
    rows: np.ndarray
    stage: int = 0
    past: int = 0


class Kept:
    """One file for each question in a folder; that of another question is never read, because its name differs.

    Args: folder: None keeps nothing. identity: hex digest of everything that decides the findings.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, identity: str):
        self._path = None if folder is None else Path(folder) / f"certify-{identity[:16]}.npz"

    def load(self) -> Findings | None:
        """What a former call found, or None; a file that cannot be read (a full disk) counts as none."""
        file = None if self._path is None else read_npz(self._path)
        try:
            if file is not None:
                stage, past = json.loads(str(file["at"]))
                return Findings(**{n: file[n] for n in ("margin", "method", "status", "rows")}, stage=stage, past=past)
        except (ValueError, KeyError, TypeError):
            pass
        return None

    def save(self, found: Findings) -> None:
        """Writes the findings; a kill while writing leaves the former file whole."""
        if self._path is None:
            return
        arrays: dict[str, Any] = {n: getattr(found, n) for n in ("margin", "method", "status", "rows")}
        write_npz(self._path, arrays | {"at": np.array(json.dumps([found.stage, found.past]))})


def identity_of(model: Model, x: np.ndarray, y: np.ndarray, threat: Threat, methods: Sequence[Any], *, sound: bool) -> str:
    """What decides a certificate. How many rows are worked on at once and in how much memory does not."""
    # on one row at least, so that an empty batch has a program too
    programs = [program_of(model, x if len(x) else np.zeros((1, *x.shape[1:]), x.dtype))]
    settings = repr((__version__, [type(m).__name__ for m in methods], sound))
    return fingerprint(model, x, y, threat, list(methods), *of_programs(settings, programs))
