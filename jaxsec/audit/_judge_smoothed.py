"""Findings about the smoothed classifier: what is certified of it, and whether attack and certificate disagree beyond chance."""

from typing import Any

from ._finding import Finding
from ._sandwich_text import point_at

_CHANCE = 1e-3  # contradictions that are likelier than this by the stated error rates are no finding


def smoothed_findings(numbers: dict[str, Any], eps: float, norm: str) -> list[Finding]:
    """None where nothing was smoothed."""
    if "smooth" not in numbers:
        return []
    return [*_contradiction(numbers["smooth"]), _certified(numbers["smooth"], eps, norm)]


def _contradiction(probe: dict[str, Any]) -> list[Finding]:
    from scipy import stats

    count, alpha = probe["contradictions"]["count"], probe["settings"]["alpha"]
    n = probe["points"][0]["certified"]["n"]
    rate = min(1.0, alpha * len(probe["points"]))  # each row: one certificate and one verdict at each budget above 0
    if not count or stats.binom.sf(count - 1, n, rate) > _CHANCE:
        return []
    rows = ", ".join(map(str, probe["contradictions"]["rows"])) + (", ..." if count > len(probe["contradictions"]["rows"]) else "")
    text = (
        f"Smoothing certified {count} of {n} rows within a radius in which SmoothAdv found inputs that the smoothed classifier gets wrong "
        f"({rows}). Certificates and verdicts are each wrong with a probability of at most {alpha:g}, which explains some "
        f"{n * rate:.2g} rows, not so many. One of the two is wrong: the sampling, or a model that answers differently in a batch than "
        "alone."
    )
    return [
        Finding(
            id="JSX-VAL-010", family="evaluation", severity="high", title="Rows certified by smoothing were broken", message=text,
            remedy="Quote neither curve; report it with the model.", value=float(count), unit="rows", n=n,
        )
    ]  # fmt: skip


def _certified(probe: dict[str, Any], eps: float, norm: str) -> Finding:
    point, s = point_at(probe, eps), probe["settings"]
    low, high = point["certified"], point["attacked"]
    text = (
        f"The smoothed classifier (sigma {s['sigma']:.6g}) gets {low['count']} of {low['n']} rows right at every input within {norm} "
        f"distance {eps:.6g}, certified by {s['n']} samples a row at an error probability of {s['alpha']:g} each; SmoothAdv left "
        f"{high['count']} standing. Average certified radius {probe['average_certified_radius']:.4g}; "
        f"{probe['abstained']['count']} rows abstained."
    )
    return Finding(
        id="JSX-CER-002", family="evaluation", severity="info", title="Certified accuracy of the smoothed classifier", message=text,
        remedy="Serve the smoothed classifier, not the model alone, where this number is quoted.", value=low["value"], unit="share",
        n=low["n"], interval=tuple(low["interval"]),
    )  # fmt: skip
