"""The curve of a report: accuracy against the budget, attacked above and, where rows were certified, proved below."""

import dataclasses
import itertools
from typing import Any, Literal

import numpy as np

from ._chart import NARROW, WIDE, Chart, chart_of
from ._sandwich_text import point_at, sandwich_said, sandwich_table
from ._text import sweep_said, sweep_table
from ._theme import FIRST, MUTED, SECOND, THIRD


def accuracy_curve(data: dict[str, Any]) -> Chart | None:
    """Robust accuracy against the budget; both sides where there are certificates, else that of the attack."""
    probes = data["probes"]
    return _sandwich(data) if probes.get("certify") else _attacked(data) if probes.get("sweep") else None


def _sandwich(data: dict[str, Any]) -> Chart:
    """Both curves with their intervals, and the rows between them.

    Steps, not slopes: between two budgets the attacked curve holds the value at the smaller one and the certified curve that at the larger
    one. A budget's set contains those of all smaller budgets, so both stay bounds of the truth between the measured points.
    """
    points, eps, norm = data["probes"]["certify"]["points"], data["threat"]["eps"], data["threat"]["norm"]
    x = [p["eps"] for p in points]
    low, high = (side_of(points, side) for side in ("certified", "attacked"))

    def draw(ax: Any) -> None:
        between = [v for pair in itertools.pairwise(x) for v in pair]  # both ends of every step
        ax.fill_between(
            between, np.repeat(low[0][1:], 2), np.repeat(high[0][:-1], 2), color=MUTED, alpha=0.2, linewidth=0, label="undecided"
        )
        steps(ax, x, high, "post", color=SECOND, marker="o", label="attacked, at most")
        steps(ax, x, low, "pre", color=THIRD, marker="s", label="certified, at least")
        frame(ax, x, eps, norm)
        handles, words = ax.get_legend_handles_labels()
        order = [words.index(w) for w in ("attacked, at most", "undecided", "certified, at least")]
        legend(ax, handles=[handles[i] for i in order], labels=[words[i] for i in order])

    ends = [f"at eps {p['eps']:.4g} from {100 * p['certified']['value']:.1f} to {100 * p['attacked']['value']:.1f} %" for p in points]
    alt = f"Two falling step curves with true robust accuracy between them: {ends[0]}, {ends[-1]}. "
    left = point_at(data["probes"]["certify"], eps)["undecided"]["value"]
    alt += f"At the audited eps {eps:.4g} {100 * left:.1f} % of rows are undecided."
    chart = chart_of("curve", "Certified and attacked accuracy against the budget", alt, draw, WIDE, *sandwich_table(data), narrow=NARROW)
    return dataclasses.replace(chart, said=sandwich_said(data))


def side_of(points: list[dict[str, Any]], side: str) -> tuple[list[float], list[float], list[float]]:
    """Percentages, and both ends of their intervals."""
    shares = [p[side] for p in points]
    return [100 * s["value"] for s in shares], [100 * s["interval"][0] for s in shares], [100 * s["interval"][1] for s in shares]


def _attacked(data: dict[str, Any]) -> Chart:
    """With its interval and the audited budget marked."""
    points, eps, norm = data["probes"]["sweep"]["points"], data["threat"]["eps"], data["threat"]["norm"]
    x = [p["eps"] for p in points]
    y, low, high = side_of(points, "robust")

    def draw(ax: Any) -> None:
        steps(ax, x, (y, low, high), "post", color=FIRST, marker="o", label="PGD, at this or a smaller budget")
        if worst := data["probes"].get("worst_case"):
            v, (a, b) = worst["robust"]["value"], worst["robust"]["interval"]
            bars = [[100 * (v - a)], [100 * (b - v)]]
            ax.errorbar([eps], [100 * v], yerr=bars, color=SECOND, marker="D", markersize=5, capsize=3, linestyle="none")
            ax.plot([], [], color=SECOND, marker="D", markersize=5, linestyle="none", label="all attacks at the audited eps")
        frame(ax, x, eps, norm)
        legend(ax)

    alt = f"Step curve. Robust accuracy falls from {y[0]:.1f} % at eps {x[0]:.4g} to {y[-1]:.1f} % at eps {x[-1]:.4g}."
    chart = chart_of("curve", "Robust accuracy against the budget", alt, draw, WIDE, *sweep_table(data), narrow=NARROW)
    return dataclasses.replace(chart, said=sweep_said(data))


def steps(ax: Any, x: list[float], side: tuple[list[float], ...], step: Literal["pre", "post"], *, color: str, **look: str) -> None:
    """Values at x and their interval; `post` holds each value to the next budget, `pre` back to the one before."""
    ax.fill_between(x, side[1], side[2], step=step, color=color, alpha=0.18, linewidth=0)
    ax.plot(x, side[0], drawstyle=f"steps-{step}", color=color, markersize=4, linewidth=1.8, **look)


def frame(ax: Any, x: list[float], eps: float, norm: str, what: str = "eps") -> None:
    """Axes, and the audited budget marked."""
    ax.axvline(eps, color=MUTED, linewidth=1, linestyle="--")
    left = eps > 0.7 * max(x)
    place = {"ha": "right" if left else "left", "xytext": (-4 if left else 4, 0), "textcoords": "offset points"}
    ax.annotate(f"eps {eps:.4g}", (eps, 101), color=MUTED, **place)
    ax.set_ylim(-2, 108)
    ax.set_xlim(left=min(x), right=max(max(x), 1e-9) * 1.02)
    ax.set_yticks(range(0, 101, 20))
    ax.set_xlabel(f"{what} ({norm}, input units)")
    ax.set_ylabel("robust accuracy, %")


def legend(ax: Any, **entries: Any) -> None:
    """Above the chart: in one row, or, on a phone, one below the other."""
    if ax.figure.get_figwidth() < WIDE[0]:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, **entries)
        ax.locator_params(axis="x", nbins=5)
    else:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, **entries)
