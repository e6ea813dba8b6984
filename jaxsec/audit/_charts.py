"""Charts of a report as SVG text: the same JSON gives the same bytes."""

import dataclasses
from typing import Any

from ._chart import Chart, chart_of
from ._chart_curve import accuracy_curve
from ._chart_smoothed import smoothed_curve
from ._text import CLASSES_SAID, answers_said, percent
from ._theme import FIRST, INK, MUTED, SECOND, STYLE


def charts_of(data: dict[str, Any]) -> list[Chart]:
    """The charts for which the report has numbers."""
    from matplotlib import rc_context

    makers = (accuracy_curve, smoothed_curve, class_bars, confusion, distance_cdf, query_cdf)
    style: Any = STYLE  # matplotlib types its keys as literals
    with rc_context(style):
        return [chart for maker in makers if (chart := maker(data)) is not None]


def class_bars(data: dict[str, Any]) -> Chart | None:
    """Clean and robust accuracy of each class."""
    classes = data["probes"].get("classes")
    if not classes:
        return None
    names = data["data"]["class_names"]

    def label(c: dict[str, Any]) -> str:
        return names[c["class"]] if c["class"] < len(names) else str(c["class"])

    shown = sorted(classes, key=lambda c: c["robust"]["value"])[:40] if len(classes) > 40 else classes

    def draw(ax: Any) -> None:
        at = range(len(shown))
        for key, colour, shift, word in (("clean", FIRST, -0.2, "clean"), ("robust", SECOND, 0.2, "under attack")):
            v = [100 * c[key]["value"] for c in shown]
            error = [[max(0.0, a - 100 * c[key]["interval"][0]) for a, c in zip(v, shown, strict=True)]]
            error += [[max(0.0, 100 * c[key]["interval"][1] - a) for a, c in zip(v, shown, strict=True)]]
            ax.bar([i + shift for i in at], v, 0.38, color=colour, label=word)
            ax.errorbar([i + shift for i in at], v, yerr=error, color=INK, linewidth=0.8, linestyle="none", capsize=1.5)
        ax.set_xticks(list(at), [label(c) for c in shown], rotation=0 if len(shown) <= 20 else 90)
        ax.grid(axis="x", visible=False)
        ax.set_ylim(0, 108)
        ax.set_yticks(range(0, 101, 20))
        ax.set_xlabel("class")
        ax.set_ylabel("accuracy, %")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2)

    worst = min(classes, key=lambda c: c["robust"]["value"])
    alt = f"Bar chart of {len(shown)} classes. The weakest is {label(worst)}: {percent(worst['clean'])} clean, "
    alt += f"{percent(worst['robust'])} under attack."
    rows = tuple((label(c), percent(c["clean"]), percent(c["robust"]), str(c["robust"]["n"])) for c in shown)
    title = "Accuracy of each class" if len(shown) == len(classes) else f"Accuracy of the {len(shown)} weakest of {len(classes)} classes"
    chart = chart_of("classes", title, alt, draw, (5.0, 4.3), ("class", "clean", "under attack", "rows"), rows)
    return dataclasses.replace(chart, said=CLASSES_SAID)


def confusion(data: dict[str, Any]) -> Chart | None:
    """Where the answers go under attack."""
    tables = data["probes"].get("confusion")
    if not tables or len(tables["attacked"]) > 20:
        return None
    counts, k = tables["attacked"], len(tables["attacked"])

    def draw(ax: Any) -> None:
        from matplotlib.patches import Rectangle

        for i, row in enumerate(counts):
            total = max(sum(row), 1)
            for j, n in enumerate(row):
                ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=FIRST if i == j else SECOND, alpha=0.75 * n / total, linewidth=0))
                if n:
                    ax.text(j, i, str(n), ha="center", va="center", fontsize=8 if k > 12 else 9)
        ax.set_xlim(-0.5, k - 0.5)
        ax.set_ylim(k - 0.5, -0.5)
        ax.set_xticks(range(k))
        ax.set_yticks(range(k))
        ax.grid(visible=False)
        ax.set_xlabel("answer under attack")
        ax.set_ylabel("true class")

    moved = [(counts[i][j], i, j) for i in range(k) for j in range(k) if i != j]
    top = max(moved, key=lambda m: m[0])
    alt = f"Confusion table of {k} classes under attack. Most frequent error: class {top[1]} answered as {top[2]}, {top[0]} rows."
    columns = ("true class", *(f"as {j}" for j in range(k)))
    rows = tuple((str(i), *(str(n) for n in row)) for i, row in enumerate(counts))
    chart = chart_of("confusion", "Answers under attack", alt, draw, (5.0, 4.3), columns, rows)
    return dataclasses.replace(chart, said=answers_said(data))


def distance_cdf(data: dict[str, Any]) -> Chart | None:
    """Share of rows with an adversarial input at or below each distance."""
    probe = data["probes"].get("distance")
    if not probe or not probe["curve"]:
        return None
    eps, norm, median = data["threat"]["eps"], data["threat"]["norm"], probe["median"]

    def draw(ax: Any) -> None:
        _steps(ax, probe["curve"], probe["curve"][-1][0])
        ax.axvline(eps, color=MUTED, linewidth=1, linestyle="--")
        ax.annotate(f"eps {eps:.4g}", (eps, 103), color=MUTED, ha="left", xytext=(4, 0), textcoords="offset points")
        ax.set_xlabel(f"{norm} distance to the nearest one found (FAB)")
        ax.set_ylabel("rows, %")

    n = probe["within_eps"]["n"]
    middle = "no median" if median is None else f"the median distance is {median:.4g}"
    alt = f"Cumulative curve over {n} correctly classified rows; {middle}; within eps: {percent(probe['within_eps'])}."
    return chart_of(
        "distance",
        "Distance to the nearest adversarial input",
        alt,
        draw,
        (5.0, 3.3),
        ("distance", "share of rows"),
        _points(probe["curve"]),
    )


def query_cdf(data: dict[str, Any]) -> Chart | None:
    """Share of rows that a black-box attack broke within each number of queries."""
    probe = data["probes"].get("blackbox")
    if not probe or not probe["curve"]:
        return None

    def draw(ax: Any) -> None:
        _steps(ax, probe["curve"], data["plan"]["blackbox_queries"])
        ax.set_xlabel("queries to the model (Square, scores only)")
        ax.set_ylabel("rows broken, %")

    rate = probe["success_rate"]
    alt = f"Cumulative curve over {rate['n']} correctly classified rows; the attack broke {percent(rate)}."
    return chart_of(
        "queries", "Queries until a black-box success", alt, draw, (5.0, 3.3), ("queries", "share of rows"), _points(probe["curve"])
    )


def _steps(ax: Any, curve: list[list[float]], end: float) -> None:
    """The curve from 0 to `end`, the largest value that was looked for."""
    x, y = [c[0] for c in curve], [100 * c[1] for c in curve]
    ax.step([0, x[0], *x, max(end, x[-1])], [0, 0, *y, y[-1]], where="post", color=FIRST, linewidth=1.8)
    ax.set_xlim(left=0)
    ax.set_ylim(0, 110)
    ax.set_yticks(range(0, 101, 20))


def _points(curve: list[list[float]]) -> tuple[tuple[str, ...], ...]:
    every = max(1, len(curve) // 12)
    kept = curve[::every] + ([curve[-1]] if (len(curve) - 1) % every else [])
    return tuple((f"{v:.5g}", f"{100 * s:.1f} %") for v, s in kept)
