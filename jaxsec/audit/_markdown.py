"""The report as Markdown, for tickets and terminals; a pure view of the report's JSON."""

import re
from collections.abc import Sequence
from typing import Any

from ._sandwich_text import sandwich_said, sandwich_shares, sandwich_table, skipped_said
from ._smoothed_text import smoothed_said, smoothed_shares, smoothed_table
from ._text import NOISE, limited_said, noise_said, percent, resumed_said, rows_said, seed_said, sweep_said, sweep_table, valued


def markdown_of(data: dict[str, Any]) -> str:
    """The summary, findings, curve, classes and coverage as tables."""
    verdict, threat, probes = data["verdict"], data["threat"], data["probes"]
    word = {"pass": "WITHIN THE LIMIT", "fail": "NOT WITHIN THE LIMIT", "none": "NO LIMIT GIVEN"}[verdict["state"]]
    lines = [
        f"# jaxsec audit: {_cell(data['model']['name'])}",
        "",
        f"**{word}**: {_cell(verdict['reason'])}.",
        "",
        f"Threat {threat['norm']}, eps {threat['eps']:.6g}, inputs in [{threat['lo']}, {threat['hi']}]. "
        f"Data {_cell(data['data']['name'])}: {rows_said(data)}. "
        f"Preset {_cell(data['plan']['preset'])}, {data['started']}, {data['wall_s']:.1f} s{resumed_said(data)}, "
        f"jaxsec {data['tool']['version']}. {seed_said(data)} Settings, versions and hashes: report.json.",
        "",
    ]
    shares = [("Clean accuracy", probes["clean"]["accuracy"])]
    if "noise" in probes:
        shares.append((NOISE, probes["noise"]["one_draw"]))
    if "worst_case" in probes:
        shares.append(("Robust accuracy, all attacks", probes["worst_case"]["robust"]))
    shares += [(f"{name}, {hint}", share) for name, share, hint in (*sandwich_shares(data), *smoothed_shares(data))]
    if "blackbox" in probes:
        shares.append(("Robust accuracy, black-box only", probes["blackbox"]["robust"]))
    level = f"{100 * shares[0][1]['confidence']:g} %"
    lines += _table(("measure", f"value [{level} interval]", "rows"), [(n, percent(s), str(s["n"])) for n, s in shares])
    if "noise" in probes:
        lines += ["", f"{NOISE}: {_cell(noise_said(probes['noise']))}"]
    rows = [(f["severity"], f["id"], f["title"], " ".join(valued(f)), f["message"], _ids(f["standards"])) for f in data["findings"]]
    lines += ["", "## Findings", "", *_table(("severity", "id", "finding", "value", "what was seen", "standards"), rows)]
    if "certify" in probes:
        lines += ["", "## Certified and attacked accuracy", "", _cell(sandwich_said(data)), "", *_table(*sandwich_table(data))]
    if "smooth" in probes:
        lines += ["", "## Smoothed classifier", "", _cell(smoothed_said(data)), "", *_table(*smoothed_table(data))]
    if "sweep" in probes:
        columns, points = sweep_table(data)
        lines += ["", "## Robust accuracy against the budget", "", _cell(sweep_said(data)), "", *_table(columns, points)]
    if "classes" in probes:
        rows = [(str(c["class"]), percent(c["clean"]), percent(c["robust"]), str(c["robust"]["n"])) for c in probes["classes"]]
        lines += ["", "## Classes", "", *_table(("class", "clean", "under attack", "rows"), rows)]
    if skipped := skipped_said(data):
        lines += ["", "## What did not run", "", *(f"- {_cell(line)}" for line in skipped)]
    rows = [(c["title"], c["status"], c["reason"] or ", ".join(c["probes"]), _ids(c["standards"])) for c in data["coverage"]]
    lines += ["", "## Coverage", "", *_table(("family", "status", "probes, or why not", "standards"), rows)]
    lines += ["", "## What the numbers mean", "", *(f"- {limit}" for limit in data["limits"])]
    if limited := limited_said(data):
        lines += ["", "## Notes on the data", "", f"- {limited[0].upper()}{limited[1:]}"]
    if data["model"]["notes"]:
        lines += ["", "## Notes on the model", "", *(f"- {_cell(note)}" for note in data["model"]["notes"])]
    return "\n".join(lines) + "\n"


def _ids(standards: dict[str, Any]) -> str:
    return ", ".join(i["id"] for key in ("atlas", "nist", "owasp") for i in standards[key]) or "–"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(_cell(c) for c in row) + " |" for row in rows]


def _cell(text: str) -> str:
    """One line that cannot break the table or become markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
