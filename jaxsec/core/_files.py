"""Files that other processes read, or that a kill must not leave in part."""

import os
from pathlib import Path


def replace_file(path: Path, data: str | bytes) -> None:
    """Replaces the file at once: a reader, and a kill, finds the former one or this one whole. Text is UTF-8."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(temporary, path)
