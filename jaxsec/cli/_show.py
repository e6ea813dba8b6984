"""What the commands print when they are done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..audit import Report
from ..audit._sandwich_text import sandwich_shares, skipped_said
from ..audit._smoothed_text import smoothed_shares
from ..audit._text import resumed_said, rows_said
from ..core import AttackResult, Status

_COLOURS = {"high": "red", "medium": "yellow", "low": "blue", "info": "dim", "pass": "green", "fail": "red", "none": "bold"}


def going_on(done: Sequence[str]) -> None:
    """Said before an audit goes on: which probes a former run has finished."""
    kept = "no probe is done yet" if not done else f"{', '.join(done)} {'is' if len(done) == 1 else 'are'} done"
    Console(highlight=False).print(f"going on where the last run stopped: {kept}", soft_wrap=True)


def audit_summary(report: Report, out: Path) -> None:
    """Verdict, the main shares, the findings that matter, and where the report is."""
    console, data = Console(highlight=False), report.data
    verdict, probes = data["verdict"], data["probes"]
    word = {"pass": "within the limit", "fail": "NOT within the limit", "none": "no limit given"}[verdict["state"]]
    console.print(f"[{_COLOURS[verdict['state']]}]{word}[/]: {escape(verdict['reason'])}", soft_wrap=True)
    shares = [("clean accuracy", probes["clean"]["accuracy"])]
    shares += [("accuracy at one random point per row", probes["noise"]["one_draw"])] if "noise" in probes else []
    shares += [("robust accuracy, at most", probes["worst_case"]["robust"])] if "worst_case" in probes else []
    shares += [(f"{name.lower()}{', at least' if i == 0 else ''}", s) for i, (name, s, _) in enumerate(sandwich_shares(data))]
    shares += [(f"{name.lower()}, at least", s) for name, s, _ in smoothed_shares(data)]
    threat, plan = data["threat"], data["plan"]
    what = f"{threat['norm']} eps {threat['eps']:.6g}, inputs in [{threat['lo']}, {threat['hi']}], preset {plan['preset'] or 'of the plan'}"
    console.print(what, style="dim", soft_wrap=True)
    console.print(escape(f"data {data['data']['name']}: {rows_said(data)}"), style="dim", soft_wrap=True)
    for note in data["model"]["notes"]:
        console.print(escape(note), style="dim", soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, s in shares:
        low, high = s["interval"]
        table.add_row(name, f"{100 * s['value']:.1f} %", f"[dim]\\[{100 * low:.1f}, {100 * high:.1f}] {s['count']} of {s['n']}[/]")
    console.print(table)
    for line in skipped_said(data):
        console.print(escape(line), soft_wrap=True)
    worrying = [f for f in data["findings"] if f["severity"] in ("high", "medium")]
    for f in worrying[:8]:
        console.print(f"[{_COLOURS[f['severity']]}]{f['severity']:>6}[/] {escape(f['title'])}: {escape(f['message'])}", soft_wrap=True)
    if len(worrying) > 8:
        console.print(f"       and {len(worrying) - 8} more")
    low, info = ([f["title"] for f in data["findings"] if f["severity"] == s] for s in ("low", "info"))
    if low or info:
        said = f"{len(low)} low{' (' + ', '.join(low) + ')' if low else ''}, {len(info)} info"
        console.print(f"also {escape(said)}: see Findings in {escape(str(out / 'report.md'))}", soft_wrap=True)
    untested = sum(c["status"] == "NOT TESTED" for c in data["coverage"])
    console.print(f"{untested} of {len(data['coverage'])} families of attacks NOT TESTED; {data['wall_s']:.1f} s{resumed_said(data)}")
    if labels := data.get("data", {}).get("labels"):
        console.print(f"labels: {escape(labels)}", soft_wrap=True)
    console.print(f"report: {escape(str(out / 'report.html'))}", soft_wrap=True)


def attack_summary(found: AttackResult, out: Path, about: dict[str, Any], target: int | None = None, labels: str = "") -> None:
    """What ran, how many rows fell, and what the run says about itself."""
    console = Console(highlight=False)
    nothing = np.asarray(found.status) == Status.NONFINITE
    success: Any = np.asarray(found.success) | (nothing & (target is None))
    threat, before = about["threat"], int(np.sum(np.asarray(found.status) == Status.WRONG_BEFORE))
    what = f"{about['method']['method']}, {threat['norm']} eps {threat['eps']:.6g}, inputs in [{threat['lo']}, {threat['hi']}], "
    console.print(f"{what}seed {about['seed']}", style="dim", soft_wrap=True)
    for note in about["model"]["notes"]:
        console.print(escape(note), style="dim", soft_wrap=True)
    if target is None:
        said = f"wrong on {int(success.sum())} of {len(success)} rows, {before} of them before any attack"
        said += (f", {int(nothing.sum())} without a finite answer" if nothing.any() else "") + "; robust accuracy is at most "
        console.print(f"{said}{1 - float(success.mean()):.1%}", soft_wrap=True)
    else:
        said = f"class {target} reached on {int(success.sum())} of {len(success)} rows of other classes"
        console.print(f"{said}, {before} of them before any attack", soft_wrap=True)
    for flag in found.flags:
        if flag.severity != "info":
            console.print(
                f"[{'red' if flag.severity == 'error' else 'yellow'}]{flag.severity}[/] {escape(flag.name)}: {escape(flag.message)}",
                soft_wrap=True,
            )
    if labels:
        console.print(f"labels: {escape(labels)}", soft_wrap=True)
    console.print(f"saved: {escape(str(out))}", soft_wrap=True)
