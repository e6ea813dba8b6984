"""`instances.csv`: which network is asked about which property, and for how long."""

import dataclasses
import math
import os
from pathlib import Path

from ._vnnlib_source import Source, read_source
from ._vnnlib_tokens import shown

COLUMNS = ("onnx", "vnnlib", "timeout")


@dataclasses.dataclass(frozen=True)
class Instance:
    """One line of an `instances.csv`: the two files, which exist, the `timeout` in seconds, and the number of the `line`."""

    onnx: Path
    vnnlib: Path
    timeout: float
    line: int


def load_instances(path: str | os.PathLike[str]) -> list[Instance]:
    """Reads an `instances.csv` of the VNN-COMP competition.

    Guarantee: every file that is named exists.

    Args:
      path: lines `onnx,vnnlib,timeout`, with paths relative to the folder of this file and seconds; a header line and blank lines are
        allowed. Where a file is missing but the same name with `.gz` is there, that one is taken.

    Returns:
      list of Instance, in the order of the file.

    Raises:
      FileNotFoundError: no such list.
      VNNLIBError: a line without three fields, a file that is missing, a timeout that is no number above 0, no lines at all.

    Example:
      >>> import pathlib, tempfile, jaxsec.io
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> for name, text in {"a.onnx": "", "p.vnnlib.gz": "", "instances.csv": "a.onnx,p.vnnlib,116"}.items():
      ...     _ = (folder / name).write_text(text)
      >>> [instance] = jaxsec.io.load_instances(folder / "instances.csv")
      >>> instance.onnx.name, instance.vnnlib.name, instance.timeout
      ('a.onnx', 'p.vnnlib.gz', 116.0)
    """
    source = read_source(path, "an instances.csv of VNN-COMP")
    instances: list[Instance] = []
    at, first = 0, True
    for number, line in enumerate(source.text.split("\n"), 1):
        if line.strip():
            if not (first and line.lower().replace(" ", "").startswith("onnx,vnnlib,")):
                instances.append(_instance(line, at, number, Path(path).parent, source))
            first = False
        at += len(line) + 1
    if not instances:
        raise source.error(0, f"no instances; needed are lines {','.join(COLUMNS)}; write one line for each question")
    return instances


def _instance(line: str, start: int, number: int, folder: Path, source: Source) -> Instance:
    fields = line.split(",")
    if len(fields) != len(COLUMNS):
        raise source.error(start, f"a line of {len(fields)} fields; allowed: 3, {','.join(COLUMNS)}; correct the line")
    starts = [start, start + len(fields[0]) + 1, start + len(fields[0]) + len(fields[1]) + 2]
    onnx, vnnlib = (_file(name, kind, at, folder, source) for name, kind, at in zip(fields[:2], COLUMNS[:2], starts[:2], strict=True))
    try:
        timeout = float(fields[2])
    except ValueError:
        timeout = math.nan
    if not 0 < timeout < math.inf:
        raise source.error(starts[2], f"the timeout is {shown(fields[2].strip())}; allowed are seconds above 0; correct it")
    return Instance(onnx, vnnlib, timeout, number)


def _file(field: str, kind: str, at: int, folder: Path, source: Source) -> Path:
    name = field.strip()
    plain = folder / name
    for file in (plain, plain.with_name(f"{plain.name}.gz")) if name else ():
        if file.is_file():
            return file
    found = f"there is no {kind} file {shown(str(plain))}, nor with .gz" if name else f"the {kind} field is empty"
    raise source.error(at, f"{found}; allowed are existing files, relative to the folder of this list; correct the path or fetch the file")
