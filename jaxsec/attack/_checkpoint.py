"""Resumable state on disk: after a kill at any moment the run starts again where it was and ends with the same numbers."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..core._check import constants_of
from ._record import Record

VERSION = 2


def fingerprint(*parts: Any) -> str:
    """SHA-256 of everything that decides the result: arrays by bytes, static parts by `repr`."""
    digest = hashlib.sha256()
    for part in parts:
        for leaf in jax.tree.leaves(part):
            if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            a = np.asarray(leaf)
            digest.update(f"{a.dtype}{a.shape}".encode() if a.dtype != object else repr(leaf).encode())
            if a.dtype != object:
                digest.update(np.ascontiguousarray(a).tobytes())
        digest.update(_plain(part).encode())
    return digest.hexdigest()


def of_programs(settings: str, programs: Sequence[Any]) -> tuple[list[Any], np.ndarray]:
    """Parts for `fingerprint`: arrays that closed jaxprs hold, and their text; a function may keep its name and change its body."""
    text = re.sub(r" at 0x[0-9a-f]+", "", "\n".join([settings, *map(str, programs)]))
    return [c for program in programs for c in constants_of(program)], np.frombuffer(text.encode(), np.uint8)


def _plain(part: Any) -> str:
    """The static side of a tree without memory addresses, which change from process to process."""
    return re.sub(r" at 0x[0-9a-f]+|object at \S+", "", str(jax.tree.structure(part)))


@dataclasses.dataclass(frozen=True)
class Cursor:
    """Where a run is: stage, round, the live rows when the round began, how many of them are done (whatever the batch was)."""

    stage: int
    round: int
    past: int
    rows: np.ndarray


@contextlib.contextmanager
def held(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Keeps other processes out of a folder of state while it is in use; `ValueError` where one is in it, or it is no folder."""
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"state is {str(folder)!r}, which is or lies under a file; give a folder.") from error
    lock = FileLock(Path(folder) / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"{folder} is in use by another run; wait until that ends, or give another folder.") from error
    except NotImplementedError:
        pass  # filelock 3 where a cluster's file system has no locks (4 has its own there): better to run than to refuse
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        # a finished state may be read where nothing may be written; what must write will fail by itself
    try:
        yield
    finally:
        lock.release()  # does nothing where it is not held


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes the file; a kill while writing leaves the former one whole."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_npz(path: Path) -> dict[str, np.ndarray] | None:
    """The file's arrays; None where there is no file, or none that can be read (a full disk)."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


class Checkpoint:
    """One file `attack.npz` in a folder, replaced atomically."""

    def __init__(self, folder: str | os.PathLike[str], identity: str):
        self.folder, self.identity = Path(folder), identity
        self.path = self.folder / "attack.npz"

    def save(self, record: Record, cursor: Cursor) -> None:
        """Writes the run's state; a kill while writing leaves the former file whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        meta = json.dumps(
            {"version": VERSION, "identity": self.identity, "stage": cursor.stage, "round": cursor.round, "past": cursor.past}
        )
        fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
        write_npz(self.path, {"meta": np.array(meta), "rows": cursor.rows, **fields})

    def load(self) -> tuple[Record, Cursor] | None:
        """The saved state, or None where there is none; `ValueError` if it belongs to another run."""
        if not self.path.exists():
            return None
        try:
            with open(self.path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                record = Record(**{f.name: file[f.name] for f in dataclasses.fields(Record)})
                rows = file["rows"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} is no readable attack state ({error}); delete it to start again.") from error
        if meta["version"] != VERSION or meta["identity"] != self.identity:
            raise ValueError(
                f"{self.path} belongs to another run: the model, data, threat, method, key or jaxsec version differ. "
                "Give another folder, or delete the file to start again."
            )
        return record, Cursor(meta["stage"], meta["round"], meta["past"], rows)
