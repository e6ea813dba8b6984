"""What `jaxsec verify` prints: one answer, or a table over a list."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..certify._verify import Verification
from ..io import write_result
from ..io._vnnlib_result import result_text
from ._verify_expected import Comparison
from ._verify_progress import COLOURS
from ._verify_results import Row

SHORT = 20  # numbers of a counterexample that are read rather than skipped
_MEANING = {"sat": "an input violates it", "unsat": "no input violates it", "unknown": "not decided", "error": "failed"}


def write_answer(answer: Verification, out: Path) -> None:
    write_result(out, answer.verdict, _counterexample(answer))


def show_answer(
    answer: Verification, shown: str, model: str, prop: Path, out: Path | None, *, timeout: float, notes: Sequence[str]
) -> None:
    """The verdict and what it rests on."""
    if shown == "vnncomp":
        print(result_text(answer.verdict, _counterexample(answer)), end="")
        return
    if shown == "json":
        found = _counterexample(answer)
        x, y = (None, None) if found is None else (np.asarray(v, np.float64).ravel().tolist() for v in found)
        facts = {name: getattr(answer, name) for name in ("verdict", "method", "seconds", "branches", "margin", "precision", "note")}
        print(_json({"model": model, "property": str(prop), "timeout": timeout, **facts, "x": x, "y": y}))
        return
    console = Console(highlight=False)
    meaning = f"not decided within {timeout:g} s" if answer.verdict == "timeout" else _MEANING[answer.verdict]
    parts = [answer.method] if answer.method else []
    parts += [f"{answer.seconds:.2f} s"]
    sign_only = answer.verdict == "unsat" and answer.margin == 0  # proved above 0, but not how far
    parts += [f"margin {answer.margin + 0.0:.4g}"] if math.isfinite(answer.margin) and not sign_only else []
    parts += [f"{answer.branches} branch{'' if answer.branches == 1 else 'es'}"] if answer.branches else []
    parts += ["rounded outward" if answer.precision == "sound" else "not rounded outward"] if answer.verdict == "unsat" else []
    said = escape(", ".join(parts))
    console.print(f"[{COLOURS[answer.verdict]}]{answer.verdict}[/]: {meaning} ({said})", soft_wrap=True)
    for note in (*notes, *([answer.note] if answer.note else [])):
        console.print(escape(note), style="dim", soft_wrap=True)
    if (found := _counterexample(answer)) is not None:
        x, y = (np.asarray(v, np.float64).ravel() for v in found)
        if x.size + y.size <= SHORT:
            for letter, values in (("X", x), ("Y", y)):
                console.print(f"{letter}: {' '.join(map(repr, values.tolist()))}", soft_wrap=True)
        elif out is None:
            console.print(f"a counterexample of {x.size} inputs; --out FILE writes it", soft_wrap=True)
    if out is not None:
        console.print(f"saved: {escape(str(out))}", soft_wrap=True)


def show_going_on(done: int, total: int, out: Path) -> None:
    """Said before a family goes on."""
    Console(highlight=False, stderr=True).print(f"going on: {done} of {total} lines are done in {escape(str(out))}", soft_wrap=True)


def show_family(rows: Sequence[Row], found: Comparison | None, out: Path, shown: str) -> None:
    """Verdicts and seconds for each network and for all, and how they compare with what is known."""
    nets: dict[str, list[Row]] = {}
    for row in rows:
        nets.setdefault(row.onnx, []).append(row)
    if shown == "json":
        facts: dict[str, Any] = {"results": str(out), "nets": {net: _facts(of) for net, of in nets.items()}, "total": _facts(rows)}
        if found is not None:
            wrong = [{"onnx": r.onnx, "vnnlib": r.vnnlib, "verdict": r.verdict, "expected": e} for r, e in found.wrong]
            counts = {"agree": found.agree, "undecided": found.undecided, "open": found.open, "missing": found.missing}
            facts["expected"] = {**counts, "wrong": wrong}
        print(_json(facts))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)  # a file has no width: names stay on one line
    short = {net: Path(net).name.removesuffix(".onnx") for net in nets}
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("network", overflow="fold")
    for name in (*COLOURS, "median s", "total s"):
        table.add_column(name, justify="right", no_wrap=True)
    for net, of in nets.items():
        table.add_row(escape(short[net] if len(set(short.values())) == len(nets) else net), *_cells(of))
    if len(nets) != 1:
        table.add_row("all", *_cells(rows), style="bold")
    console.print(table)
    _print_faults(console, rows, found, out)
    if found is not None:
        wrong = f"[{'bold red' if found.wrong else 'green'}]{len(found.wrong)} WRONG[/]"
        rest = f"{found.undecided} not decided here, {found.open} unknown there, {found.missing} not listed there"
        console.print(f"against the expected verdicts: {found.agree} agree, {wrong}, {rest}", soft_wrap=True)
    console.print(f"results: {escape(str(out))}", soft_wrap=True)


def show_faults(rows: Sequence[Row], found: Comparison | None, out: Path) -> None:
    """What stays to be said where all else is quiet."""
    _print_faults(Console(highlight=False, stderr=True), rows, found, out)


def _print_faults(console: Console, rows: Sequence[Row], found: Comparison | None, out: Path) -> None:
    if failed := [row for row in rows if row.verdict == "error"]:
        more = f" (and {len(failed) - 1} more, see {out})" if len(failed) > 1 else ""
        console.print(
            f"[{COLOURS['error']}]error[/] {escape(f'{failed[0].onnx} {failed[0].vnnlib}: {failed[0].note}{more}')}", soft_wrap=True
        )
    for row, expected in found.wrong if found is not None else ():
        said = f"{row.onnx} {row.vnnlib}: {row.verdict} by {row.method}, expected {expected}"
        console.print(f"[bold red]WRONG[/] [red]{escape(said)}[/]", soft_wrap=True)


def _facts(rows: Sequence[Row]) -> dict[str, Any]:
    counts, seconds = Counter(row.verdict for row in rows), [row.seconds for row in rows]
    median = statistics.median(seconds) if seconds else 0.0
    return {**{v: counts[v] for v in COLOURS}, "median_s": round(median, 3), "total_s": round(sum(seconds), 3)}


def _cells(rows: Sequence[Row]) -> list[str]:
    facts = _facts(rows)
    counts = [f"[{colour}]{facts[v]}[/]" if facts[v] else "[dim]0[/]" for v, colour in COLOURS.items()]
    return [*counts, f"{facts['median_s']:.2f}", f"{facts['total_s']:.1f}"]


def _counterexample(answer: Verification) -> tuple[Any, Any] | None:
    return (answer.x, answer.y) if answer.verdict == "sat" else None


def _json(facts: Any) -> str:
    """JSON has no infinity and no NaN: null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}
    lines = (f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in clean.items())  # a counterexample on one line, not on 784
    return "{\n" + ",\n".join(lines) + "\n}"
