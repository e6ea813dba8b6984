"""What `jaxsec certify` shows, prints and saves."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..audit._statistics import share
from ..certify._certificate import Verdict

CONFIDENCE = 0.95
WIDTH = 140


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """The certificates of all rows under one eps: arrays [N] as in `Certificate`."""

    eps: float
    seconds: float
    robust: np.ndarray
    margin: np.ndarray
    method: np.ndarray
    status: np.ndarray

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """Counts, the certified accuracy with its interval, and the seconds, which count compilation."""

        def count(verdict: Verdict) -> int:
            return int(np.sum(self.status == verdict))

        return {
            "eps": self.eps,
            "certified": share(self.robust, CONFIDENCE),
            "by": {name: int(np.sum(self.method == i)) for i, name in enumerate(names)},
            "wrong_before": count(Verdict.WRONG_BEFORE),
            "broken": count(Verdict.BROKEN),
            "open": count(Verdict.OPEN),
            "nonfinite": count(Verdict.NONFINITE),
            "seconds": self.seconds,
        }


def save(out: Path, results: Sequence[Rows], names: Sequence[str], y: np.ndarray, about: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {f: np.stack([getattr(r, f) for r in results]) for f in ("robust", "margin", "method", "status")}
    eps = np.array([r.eps for r in results])
    np.savez_compressed(out, eps=eps, names=np.array(names), y=y, about=np.array(json.dumps(about)), **arrays)


def show_json(results: Sequence[Rows], names: Sequence[str], about: dict[str, Any], model: str) -> None:
    facts = {k: about[k] for k in ("tool", "threat", "methods", "precision", "data")}
    facts |= {"model": {"path": model, **about["model"]}, "results": [r.facts(names) for r in results]}
    print(json.dumps(facts, indent=2))


def show_table(results: Sequence[Rows], names: Sequence[str], about: dict[str, Any], out: Path | None, *, sound: bool) -> None:
    """What was asked, a line for each eps, and where the rows are."""
    console = Console(highlight=False)
    threat = about["threat"]
    rounded = "all rounding counted" if sound else "rounding within a tolerance; --sound counts it"
    what = f"{threat['norm']}, inputs in [{threat['lo']}, {threat['hi']}], {', then '.join(names)}, {rounded}"
    console.print(what, style="dim", markup=False, soft_wrap=True)
    show_subject(console, about)
    facts = [r.facts(names) for r in results]
    strange = any(f["nonfinite"] for f in facts)
    table = Table(box=None, pad_edge=False)
    heads = ["eps", "certified", "rows", "95 %\ninterval", *(f"by\n{n}" for n in names), "wrong\nbefore"]
    branched = "beta-crown" in names
    for head in (*heads, *(["broken"] if branched else []), "open", *(["not\nfinite"] if strange else []), "seconds"):
        table.add_column(head, justify="right", no_wrap=True)
    for f in facts:
        certified, (low, high) = f["certified"], f["certified"]["interval"]
        line = [f"{f['eps']:.6g}", f"{100 * certified['value']:.1f} %", str(certified["count"]), f"{100 * low:.1f} to {100 * high:.1f}"]
        line += [str(f["by"][n]) for n in names] + [str(f["wrong_before"]), *([str(f["broken"])] if branched else []), str(f["open"])]
        table.add_row(*line, *([str(f["nonfinite"])] if strange else []), f"{f['seconds']:.1f}")
    Console(highlight=False, width=max(console.width, WIDTH)).print(table)  # a narrow terminal wraps, and cuts no number
    show_end(console, about, out)


def show_subject(console: Console, about: dict[str, Any]) -> None:
    """Which rows, and what is to be said of the model."""
    data = about["data"]
    of = "" if data["rows"] == data["available"] else f" of {data['available']}"
    console.print(escape(f"data {data['name']}: {data['rows']}{of} rows"), style="dim", soft_wrap=True)
    for note in about["model"]["notes"]:
        console.print(escape(note), style="dim", soft_wrap=True)


def show_end(console: Console, about: dict[str, Any], out: Path | None) -> None:
    """Where labels came from and where the rows are."""
    if labels := about["data"]["labels"]:
        console.print(f"labels: {escape(labels)}", soft_wrap=True)
    if out is not None:
        console.print(f"saved: {escape(str(out))}", soft_wrap=True)
