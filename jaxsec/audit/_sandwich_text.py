"""The certified curve under the attacked one as words and a table, the same in every view of a report."""

from typing import Any

from ._text import percent, runs_of

UNDECIDED = "neither broken nor proved"
# As their papers write them.
_NAMES: dict[str, str] = {
    "ibp": "IBP",
    "crown-ibp": "CROWN-IBP",
    "forward": "forward linear bounds",
    "crown": "CROWN",
    "alpha-crown": "alpha-CROWN",
    "beta-crown": "beta-CROWN",
}


def point_at(probe: dict[str, Any], eps: float) -> dict[str, Any]:
    """The numbers of the probe `certify` or `smooth` at the audited eps, which is always among its budgets."""
    return min(probe["points"], key=lambda p: abs(p["eps"] - eps))


def ladder_said(probe: dict[str, Any]) -> str:
    """`IBP, then CROWN`, and whether rounding was counted."""
    words = ", then ".join(_NAMES.get(str(name), str(name)) for name in probe["methods"])
    return f"{words} with all rounding counted" if probe["precision"] == "sound" else words


def sandwich_shares(data: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """(name, share, hint) of both numbers that only certificates give, at the audited eps; none where there are none."""
    probe = data["probes"].get("certify")
    if not probe:
        return []
    point = point_at(probe, data["threat"]["eps"])
    of = ", of the model without smoothing" if data["probes"].get("smooth") else ""
    return [
        ("Certified accuracy", point["certified"], f"proved by {ladder_said(probe)}; a lower bound{of}"),
        ("Undecided", point["undecided"], f"{UNDECIDED} at eps"),
    ]


def sandwich_table(data: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows: both sides and what lies between them, against the budget."""
    points, eps = data["probes"]["certify"]["points"], data["threat"]["eps"]
    level = f"{100 * points[0]['certified']['confidence']:g} %"
    columns = (f"eps ({data['threat']['norm']}, input units)", f"certified, at least [{level} interval]", "undecided", "attacked, at most")
    rows = tuple(
        (
            f"{p['eps']:.6g}{' (audited)' if p['eps'] == eps else ''}",
            *(percent(p[side]) for side in ("certified", "undecided", "attacked")),
        )
        for p in points
    )
    return columns, rows


def sandwich_said(data: dict[str, Any]) -> str:
    """What each curve counts, in sentences."""
    probes, plan, eps = data["probes"], data["plan"], data["threat"]["eps"]
    counted = [f"PGD ({runs_of(plan)} per row) at each budget"] if "sweep" in probes else []
    counted += ["FAB's distances"] if "distance" in probes else []
    names = [name for key, name in (("attack", "AutoAttack"), ("blackbox", "Square")) if key in probes]
    counted += [f"{' and '.join(names)} from the audited eps {eps:.6g} on"] if names else []
    counted += ["counterexamples of beta-CROWN"] if "beta-crown" in probes["certify"]["methods"] else []
    attacked = f"rows that no attack broke within this or a smaller budget: {', '.join(counted)}" if counted else "rows right as they are"
    probe = probes["certify"]
    text = "The true robust accuracy of these rows lies between the curves, which are measured at the marked budgets: from one to the next "
    text += "the attacked curve keeps its value and the certified one already has that of the next. "
    text += f"Attacked: {attacked}. Certified: rows that "
    text += f"{ladder_said(probe)} proved; a row left open is not tried at larger budgets. Undecided: {UNDECIDED}."
    level = f"{100 * probe['points'][0]['certified']['confidence']:g}\N{NO-BREAK SPACE}%"
    text += f" The bands are {level} intervals for other rows drawn as these were; how weak the attacks or the proofs are is not in them."
    text += f" {probe['note']}." if probe["note"] else ""
    if count := probe["contradictions"]["count"]:
        text += f" {count} rows were both certified and broken; they count as broken, and neither curve must be quoted."
    return text


def skipped_said(data: dict[str, Any]) -> list[str]:
    """A line for each probe that could not run."""
    return [f"The probe “{name}” did not run: {reason}." for name, reason in data["skipped"].items()]
