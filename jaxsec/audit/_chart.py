"""One chart: SVG text for the page, words for those who do not see it, and its numbers as a table.

matplotlib is used through `Figure` alone: no pyplot, so no global figures and no display.
"""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

from ._theme import themed

# Inches: the page's whole width, and a phone's, where a letter of 10 points is about 10 pixels high.
WIDE, NARROW = (10.4, 4.2), (4.3, 4.0)


@dataclasses.dataclass(frozen=True)
class Chart:
    """`svg` has a title and a description for readers who do not see it; `rows` are its numbers as a table under `columns`.

    A chart too wide for a phone has a second drawing, `narrow`, in which letters keep their size. `said` is a sentence to print below.
    """

    key: str
    title: str
    alt: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    narrow: str = ""
    said: str = ""


def chart_of(
    key: str,
    title: str,
    alt: str,
    draw: Callable[[Any], None],
    size: tuple[float, float],
    columns: tuple[str, ...],
    rows: tuple[tuple[str, ...], ...],
    narrow: tuple[float, float] | None = None,
) -> Chart:
    small = themed(drawn(draw, narrow), f"{key}-narrow", title, alt) if narrow else ""
    return Chart(key, title, alt, themed(drawn(draw, size), key, title, alt), columns, rows, small)


def drawn(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()
