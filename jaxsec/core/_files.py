"""Files that other processes read, or that a kill must not leave in part."""

import contextlib
import hashlib
import os
import shutil
import threading
from pathlib import Path


def entries(folder: Path) -> dict[str, int]:
    """Name -> when it was changed last, in nanoseconds, of what a folder holds; empty where there is no folder."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # it is gone since
            found[path.name] = path.lstat().st_mtime_ns
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of what the file holds, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, data: str | bytes) -> None:
    """Replaces the file at once: a reader, and a kill, finds the former one or this one whole. Text is UTF-8.

    What is a link stays one, and who may read the file may read it afterwards.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
