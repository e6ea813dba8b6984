"""The results file of a family: one line for each instance that is done, so that a killed run can go on."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..certify._verify import Verification
from ..core._files import digest_of, replace_file
from ..io import Instance, write_result
from ..io._vnnlib_result import VERDICTS
from ._state import held_beside, state_beside
from ._verify_list import Name, name_of

COLUMNS = ("onnx", "vnnlib", "timeout", "verdict", "seconds", "method", "branches", "margin", "note")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the results file; the fields are its columns."""

    onnx: str
    vnnlib: str
    timeout: float
    verdict: str
    seconds: float
    method: str
    branches: int
    margin: float
    note: str

    def text(self) -> str:
        """The line, with its end."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(f"{v:.6g}" if isinstance(v, float) else v for v in dataclasses.astuple(self))
        return buffer.getvalue()


HEADER = ",".join(COLUMNS) + "\n"


class Results:
    """The file `path`; beside it the counterexamples, and in a hidden folder what the lines were made from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.witnesses = path.with_name(f"{path.stem}.witnesses")
        self.state = state_beside(path)
        self._files: dict[str, str] = {}  # the content of each file when its lines were asked

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes out; `ValueError` where one is in it."""
        return held_beside(self.path)

    def begin(self, identity: dict[str, Any], *, fresh: bool) -> None:
        """Makes the file ready for more lines; `ValueError` if its lines answer other questions, unless `fresh` drops them."""
        about = self.state / "run.json"
        text = self.path.read_bytes() if self.path.exists() else b""
        if not text.startswith(header := HEADER.encode()) and not header.startswith(text):
            raise ValueError(
                f"{self.path} is no results file of jaxsec verify: it does not start with {HEADER.strip()}; give another --out."
            )
        whole = text.rfind(b"\n") + 1  # a kill in the middle of a line leaves a part of it
        if fresh or not whole:
            for old in (self.path, *(p for p in self.witnesses.glob("*.txt") if p.stem.isdigit())):
                old.unlink(missing_ok=True)
            self._write(identity)
            replace_file(self.path, header)
        else:
            self._files = self._same(about, identity)["files"]
            if whole < len(text):
                os.truncate(self.path, whole)

    def _write(self, identity: dict[str, Any]) -> None:
        replace_file(self.state / "run.json", json.dumps({**identity, "jaxsec": __version__}, indent=1))

    def keep_to(self, identity: dict[str, Any], asked: list[Instance]) -> None:
        """`ValueError` where a file of the lines that were `asked` has changed since; those of other lines may."""
        now = identity["files"]
        for instance in asked:
            for path in (str(instance.onnx), str(instance.vnnlib)):
                if self._files.get(path, now[path]) != now[path]:
                    raise ValueError(
                        f"{path} has changed since line {instance.line} of the list was asked; delete the lines that name it from "
                        f"{self.path} to ask them again, give another --out, or --fresh to begin anew."
                    )
        self._write(identity)

    def _same(self, about: Path, identity: dict[str, Any]) -> dict[str, Any]:
        try:
            before = dict(json.loads(about.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} is there, but {about}, which says what it was made from, cannot be read ({error}); "
                "give another --out, or --fresh to begin anew."
            ) from None
        for option, key in (("--timeout", "timeout"), ("--seed", "seed"), ("--sound", "sound")):
            if before.get(key) != identity[key]:
                raise ValueError(
                    f"{self.path} was made with {option} {_said(before.get(key))}, now it is {_said(identity[key])}; all lines of one file "
                    "have the same: give that, another --out, or --fresh to begin anew."
                )
        if before.get("sha256") != identity["sha256"]:
            raise ValueError(
                f"{self.path} was made from another list: {before.get('instances')!r} with {before.get('lines')} lines, now "
                f"{identity['instances']!r} with {identity['lines']}, of which some name other files or seconds; give that list, another "
                "--out, or --fresh to begin anew."
            )
        return before

    def keep(self, answer: Verification, line: int) -> None:
        """Writes the counterexample of a "sat"; before the row, so that each row has what it speaks of."""
        if answer.verdict == "sat":
            self.witnesses.mkdir(exist_ok=True)
            write_result(self.witnesses / f"{line}.txt", "sat", (answer.x, answer.y))

    def add(self, row: Row) -> None:
        """Appends a row in one piece, which is on the disk when this returns."""
        with open(self.path, "ab", buffering=0) as file:
            file.write(row.text().encode())
            os.fsync(file.fileno())

    def done(self, instances: list[Instance], folder: Path) -> dict[int, Row]:
        """{line of the list: its row}; of a question that is asked twice, the first row is that of its first line."""
        waiting: dict[Name, list[int]] = {}
        for instance in reversed(instances):
            waiting.setdefault(name_of(instance, folder), []).append(instance.line)
        found = {}
        for number, row in enumerate(self._rows(), 2):
            lines = waiting.get((row.onnx, row.vnnlib))
            if not lines:
                raise ValueError(
                    f"{self.path}:{number}: {row.onnx}, {row.vnnlib} is not in the list, or is here once too often; delete the line, or "
                    "give --fresh."
                )
            found[lines.pop()] = row
        return found

    def _rows(self) -> Iterator[Row]:
        with open(self.path, encoding="utf-8", newline="") as file:
            for number, fields in enumerate(csv.DictReader(file), 2):
                try:
                    if fields["verdict"] not in VERDICTS:
                        raise ValueError(f"the verdict {fields['verdict']!r}")
                    numbers = {name: float(fields[name]) for name in ("timeout", "seconds", "margin")}
                    yield Row(**{**{name: fields[name] for name in COLUMNS}, **numbers, "branches": int(fields["branches"])})
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{self.path}:{number}: a damaged line ({error}); delete it, or give --fresh.") from None


def identity_of(listed: Path, instances: list[Instance], *, timeout: float | None, seed: int, sound: bool) -> dict[str, Any]:
    """What decides the lines of a results file: the questions, the content of their files, and the options."""
    digests: dict[str, str] = {}
    sha = hashlib.sha256()
    for instance in instances:
        for path in (instance.onnx, instance.vnnlib):
            if str(path) not in digests:
                digests[str(path)] = digest_of(path)
        sha.update(repr((*name_of(instance, listed.parent), instance.timeout)).encode())
    return {
        "instances": str(listed),
        "lines": len(instances),
        "sha256": sha.hexdigest(),
        "files": digests,
        "timeout": timeout,
        "seed": seed,
        "sound": sound,
    }


def _said(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "given" if value else "not given"
    return f"{value:.10g}" if isinstance(value, int | float) else repr(value)
