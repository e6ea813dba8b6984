"""The list of a family: its lines, with or without a header, and which of them a run takes."""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ..io import Instance, load_instances
from ..io._vnnlib_instances import _file
from ..io._vnnlib_source import Source, read_source

Name = tuple[str, str]  # of a network and a property, as a list writes them, without .gz


def packed(path: Path) -> Path:
    """`path`, or the same with `.gz` where only that is there."""
    other = path.with_name(f"{path.name}.gz") if path.name else path
    return other if not path.exists() and other.is_file() else path


def there(path: Path, what: str, allowed: str) -> Path:
    """`packed`, which must be there; a folder is left to whoever reads it."""
    if not (found := packed(path)).exists():
        raise FileNotFoundError(f"there is no {what} {str(path)!r}, nor with .gz; needed is {allowed}: correct the path.")
    return found


def plain(name: str | Path) -> str:
    """A path as it is compared: `./a.onnx.gz` is `a.onnx`."""
    return PurePosixPath(str(name).strip()).as_posix().removesuffix(".gz")


def name_of(instance: Instance, folder: Path) -> Name:
    """The two files as they stand in a list in `folder`."""
    onnx, vnnlib = (plain(p.relative_to(folder) if p.is_relative_to(folder) else p) for p in (instance.onnx, instance.vnnlib))
    return onnx, vnnlib


def table_of(path: Path, what: str, needed: tuple[str, ...]) -> Iterator[tuple[dict[str, str], Source, int, int]]:
    """Each line of a CSV file with a header as {column: field}, with the text, the line's offset and its number.

    Raises: VNNLIBError: a column of `needed` is missing, or a line has more or fewer fields than the header.
    """
    source = read_source(path, what)
    starts = [0, *(match.end() for match in re.finditer("\n", source.text))]
    header: list[str] | None = None
    reader = csv.reader(io.StringIO(source.text, newline=""))
    try:
        for fields in reader:
            number, at = reader.line_num, starts[min(reader.line_num, len(starts)) - 1]
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = [field.strip().lower() for field in fields]
                if missing := [name for name in needed if name not in header]:
                    raise source.error(
                        at, f"no column {missing[0]!r} in the header {','.join(fields)!r}; needed: {', '.join(needed)}; is this {what}?"
                    )
            elif len(fields) != len(header):
                raise source.error(at, f"a line of {len(fields)} fields; the header has {len(header)}; correct the line")
            else:
                yield dict(zip(header, fields, strict=True)), source, at, number
    except csv.Error as error:
        raise source.error(starts[min(reader.line_num, len(starts)) - 1], f"no CSV ({error}); needed is {what}; correct the line") from None


def instances_of(path: Path, timeout: float | None) -> list[Instance]:
    """The lines of a list; `timeout` replaces what they say. Every file that is named exists."""
    first = next(line for line in read_source(path, "a list of instances").text.split("\n") if line.strip())
    if {"onnx", "vnnlib"} & {field.strip().lower() for field in first.split(",")}:
        found = list(_under_header(path, timeout))
        if not found:
            raise ValueError(f"{path} has a header and no lines; needed is one line for each question: a network, a property, seconds.")
    else:
        found = load_instances(path)
    return found if timeout is None else [dataclasses.replace(instance, timeout=timeout) for instance in found]


def _under_header(path: Path, timeout: float | None) -> Iterator[Instance]:
    for fields, source, at, number in table_of(path, "a list of instances", ("onnx", "vnnlib")):
        folder = path.parent
        if (benchmark := fields.get("benchmark", "").strip()) and (folder / benchmark).is_dir():
            folder = folder / benchmark  # a list of several families: each has a folder
        onnx, vnnlib = (_file(fields[kind], kind, at, folder, source) for kind in ("onnx", "vnnlib"))
        yield Instance(onnx, vnnlib, _seconds(fields, source, at) if timeout is None else timeout, number)


def _seconds(fields: dict[str, str], source: Source, at: int) -> float:
    text = fields.get("timeout", fields.get("timeout_s"))
    if text is None:
        raise source.error(0, "no column timeout or timeout_s, and no --timeout; needed are seconds: give --timeout 120, or add the column")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise source.error(at, f"the timeout is {text.strip()!r}; allowed are seconds above 0; correct it, or give --timeout")
    return value


def selected(instances: list[Instance], *, limit: int | None, sample: int | None, seed: int, shard: str | None) -> list[Instance]:
    """The first `limit` lines, of those `sample` drawn at random, of those every n-th: always in the order of the list."""
    chosen = instances[:limit]
    if sample is not None and sample < len(chosen):
        drawn = np.random.default_rng(seed).choice(len(chosen), sample, replace=False)
        chosen = [chosen[i] for i in np.sort(drawn)]
    part, parts = part_of(shard)
    return chosen[part - 1 :: parts]


def part_of(shard: str | None) -> tuple[int, int]:
    """`1/4` as (1, 4); None is the whole."""
    found = re.fullmatch(r"\s*(\d{1,9})/(\d{1,9})\s*", shard or "1/1")
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise ValueError(f"--shard is {shard!r}; allowed is I/N with I from 1 to N, such as 1/4 for the first of four parts.")
    return part, parts
