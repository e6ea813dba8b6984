"""Findings about certified rows: how much the two sides leave open, and whether they disagree."""

from typing import Any

from ._finding import Finding
from ._sandwich_text import ladder_said, point_at


def sandwich_findings(numbers: dict[str, Any], eps: float, norm: str) -> list[Finding]:
    """A high finding where a certified row was broken, and what lies between the sides at eps; none where nothing was certified."""
    if "certify" not in numbers:
        return []
    return [*_contradiction(numbers["certify"]), _between(numbers["certify"], eps, norm)]


def _contradiction(probe: dict[str, Any]) -> list[Finding]:
    against = probe["contradictions"]
    if not against["count"]:
        return []
    rows = ", ".join(map(str, against["rows"])) + (", ..." if against["count"] > len(against["rows"]) else "")
    by = ", ".join(f"{name} {count}" for name, count in against["by_probe"].items())
    text = (
        f"{ladder_said(probe)} proved that no input within some eps turns these {against['count']} rows ({rows}), and inputs within it "
        f"did (by probe: {by}), each verified after it was found. One of the two is wrong: a bound of jaxsec, or the evaluation of the "
        "model, which may answer differently in a batch than alone."
    )
    remedy = "Quote neither curve. Run jaxsec certify --sound on these rows; if they stay certified, report it with the model."
    return [
        Finding(
            id="JSX-VAL-009", family="evaluation", severity="high", title="Certified rows were broken", message=text, remedy=remedy,
            value=float(against["count"]), unit="rows", n=probe["points"][0]["certified"]["n"],
        )
    ]  # fmt: skip


def _between(probe: dict[str, Any], eps: float, norm: str) -> Finding:
    point = point_at(probe, eps)
    low, high, left = point["certified"], point["attacked"], point["undecided"]
    text = (
        f"{ladder_said(probe)} proved {low['count']} of {low['n']} rows at {norm} eps {eps:.6g}, and {high['count']} withstood every "
        f"attack: the robust accuracy of these rows is from {low['value']:.1%} to {high['value']:.1%}; {left['count']} rows "
        f"({left['value']:.1%}) are undecided, neither broken nor proved."
    )
    dearer = left["count"] and not {"alpha-crown", "beta-crown"} & set(probe["methods"])
    remedy = "Dearer methods may prove more: --certify ibp,crown,alpha-crown." if dearer else ""
    return Finding(
        id="JSX-CER-001", family="evaluation", severity="info", title="Certified accuracy", message=text, remedy=remedy,
        value=low["value"], unit="share", n=low["n"], interval=tuple(low["interval"]),
    )  # fmt: skip
