"""How charts look: matplotlib draws with stand-in colours, which become CSS variables, so that a page can switch its scheme."""

import re
from typing import Any
from xml.etree import ElementTree

# Stand-ins that matplotlib draws with; `themed` replaces them by CSS variables of the page.
INK, MUTED, GRID, FIRST, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", FIRST: "series-1", SECOND: "series-2", THIRD: "series-3"}
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxsec",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_SVG = "http://www.w3.org/2000/svg"


def themed(text: str, key: str, title: str, alt: str) -> str:
    """Inline SVG: ids made unique on the page, colours as CSS variables, title and description for screen readers, no metadata."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(text)
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                value = f"{key}-{value}"
            elif "#" in value:
                value = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", value)
                value = re.sub(r"^#(?![0-9a-fA-F]{6}$)(.+)$", rf"#{key}-\1", value)
                for colour, variable in _VARIABLES.items():
                    value = value.replace(colour, f"var(--{variable})")
            element.set(name, value)
    for name in ("width", "height"):  # the view box keeps the proportions, the page sets the size
        root.attrib.pop(name, None)
    for i, (tag, words) in enumerate((("title", title), ("desc", alt))):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{key}-{tag}"})
        element.text = words
        root.insert(i, element)
    root.attrib.update({"role": "img", "aria-labelledby": f"{key}-title {key}-desc", "class": "chart", "id": f"chart-{key}"})
    return ElementTree.tostring(root, encoding="unicode")
