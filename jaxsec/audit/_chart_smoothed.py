"""The chart of the smoothed classifier: certified accuracy against the radius, under the attacked one."""

import dataclasses
from typing import Any

from ._chart import NARROW, WIDE, Chart, chart_of
from ._chart_curve import frame, legend, side_of, steps
from ._smoothed_text import smoothed_said, smoothed_table
from ._theme import MUTED, SECOND, THIRD


def smoothed_curve(data: dict[str, Any]) -> Chart | None:
    """The certified curve falls at every row's own radius; the attacked one is known at its budgets and held to the next."""
    probe = data["probes"].get("smooth")
    if not probe:
        return None
    points, curve, eps, norm = probe["points"], probe["curve"], data["threat"]["eps"], data["threat"]["norm"]
    end = max(points[-1]["eps"], curve[-1][0] * 1.05 if curve else 0.0)
    at = [p["eps"] for p in points]
    high = side_of(points, "attacked")
    radii = [0.0, *(c[0] for c in curve), *([curve[-1][0]] if curve else []), end]
    shares = [100 * points[0]["certified"]["value"], *(100 * c[1] for c in curve), *([0.0] if curve else []), 0.0]

    def draw(ax: Any) -> None:
        steps(ax, at, high, "post", color=SECOND, marker="o", label="attacked (SmoothAdv), at most")
        ax.plot(radii, shares, drawstyle="steps-pre", color=THIRD, linewidth=1.8, label="certified (smoothing), at least")
        marked = [100 * p["certified"]["value"] for p in points]
        spread = side_of(points, "certified")
        bars = [[v - low for v, low in zip(marked, spread[1], strict=True)], [top - v for v, top in zip(marked, spread[2], strict=True)]]
        ax.errorbar(at, marked, yerr=bars, color=THIRD, marker="s", markersize=4, capsize=2, linewidth=0.9, linestyle="none")
        ax.axvline(eps, color=MUTED, linewidth=0)
        frame(ax, [0.0, end], eps, norm, what="radius")
        legend(ax)

    first, last = points[0], points[-1]
    low, top = ([100 * p[side]["value"] for p in (first, last)] for side in ("certified", "attacked"))
    alt = f"Two falling curves. Certified accuracy of the smoothed classifier falls from {low[0]:.1f} % at radius 0 to {low[1]:.1f} % at "
    alt += f"{last['eps']:.4g}; under attack from {top[0]:.1f} % to {top[1]:.1f} %."
    title = f"Smoothed classifier, sigma {probe['settings']['sigma']:.4g}: certified and attacked accuracy against the radius"
    chart = chart_of("smoothed", title, alt, draw, WIDE, *smoothed_table(data), narrow=NARROW)
    return dataclasses.replace(chart, said=smoothed_said(data))
