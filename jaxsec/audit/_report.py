"""`Report`: the versioned JSON record of an audit. Every other format is a function of this JSON alone."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core._files import replace_file

SCHEMA_NAME = "jaxsec-report"
SCHEMA_VERSION = "1.0"
FILES = ("report.json", "report.html", "report.md", "report.sarif")


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of an audit.

    Attributes:
      data: the JSON of the report; its schema ships as `jaxsec/audit/schema/report-1.0.schema.json`.

    Example:
      >>> from jaxsec.audit import Report
      >>> Report({"schema": "jaxsec-report", "schema_version": "9.0"}).check()
      Traceback (most recent call last):
      ValueError: the report has schema 'jaxsec-report' version '9.0'; this jaxsec reads 'jaxsec-report' 1.x.
    """

    data: dict[str, Any]

    @property
    def passed(self) -> bool:
        """False only where a limit was given and not kept."""
        return self.data["verdict"]["state"] != "fail"

    @property
    def robust_accuracy(self) -> float | None:
        """The worst case over all attacks that ran: an upper bound of the true robust accuracy on these rows."""
        return self.data["verdict"]["measured"]

    def check(self) -> None:
        """Raises `ValueError` where this library cannot read the report."""
        name, version = self.data.get("schema"), self.data.get("schema_version")
        if name != SCHEMA_NAME or str(version).split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise ValueError(f"the report has schema {name!r} version {version!r}; this jaxsec reads {SCHEMA_NAME!r} 1.x.")

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes report.json, then its views report.html, report.md and report.sarif; gives the paths.

        Raises: ImportError: Jinja2 or matplotlib is missing; report.json, .md and .sarif are written all the same.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / FILES[0], json.dumps(self.data, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        return [folder / FILES[0], *self.render(folder)]

    def render(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes the views again from the JSON."""
        from ._html import html_of
        from ._markdown import markdown_of
        from ._sarif import sarif_of

        folder = Path(folder)
        replace_file(folder / FILES[2], markdown_of(self.data))
        replace_file(folder / FILES[3], json.dumps(sarif_of(self.data), indent=1, ensure_ascii=False) + "\n")
        replace_file(folder / FILES[1], html_of(self.data))
        return [folder / name for name in FILES[1:]]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Report":
        """Reads a report folder or a report.json.

        Raises: FileNotFoundError; ValueError: no JSON, or a schema that this library does not read.
        """
        path = Path(path)
        path = path / FILES[0] if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"there is no report {path}; `jaxsec audit --out FOLDER` writes one.")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}. Give a report.json, or the folder that holds it.") from error
        if not isinstance(data, dict):
            raise ValueError(f"{path} holds a {type(data).__name__}; a report is a JSON object.")
        report = cls(data)
        report.check()
        _valid(data, path)
        return report


def _valid(data: dict[str, Any], path: Path) -> None:
    """Raises `ValueError` where the file does not follow its schema or a share is not its count over its n: edited, or cut."""
    try:
        import jsonschema
        from jsonschema.exceptions import best_match
    except ImportError as error:
        raise ImportError("reading a report needs jsonschema; install jaxsec[report].") from error
    schema = json.loads((Path(__file__).parent / "schema" / f"report-{SCHEMA_VERSION}.schema.json").read_text(encoding="utf-8"))
    wrong = best_match(jsonschema.Draft202012Validator(schema).iter_errors(data))
    if wrong is not None:
        place = ".".join(str(p) for p in wrong.absolute_path) or "the whole"
        raise ValueError(
            f"{path} is no report of schema {SCHEMA_VERSION}: {place}: {wrong.message[:200]}. Take the file as it was written."
        )
    for place, share in _shares(data["probes"], "probes"):
        if share["n"] and abs(share["value"] - share["count"] / share["n"]) > 1e-9:
            said = f"{place} has the value {share['value']!r}, and {share['count']} of {share['n']} is {share['count'] / share['n']!r}"
            raise ValueError(f"{path}: {said}: the file was edited. Take it as it was written.")


def _shares(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict) and {"value", "count", "n"} <= set(value):
        yield place, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _shares(inner, f"{place}.{key}")
