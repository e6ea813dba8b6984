"""The smoothed classifier's two curves as words and a table, the same in every view of a report."""

from typing import Any

from ._sandwich_text import point_at
from ._text import percent


def smoothed_shares(data: dict[str, Any]) -> list[tuple[str, dict[str, Any], str]]:
    """(name, share, hint) at the audited eps; none where nothing was smoothed."""
    probe = data["probes"].get("smooth")
    if not probe:
        return []
    how = f"sigma {probe['settings']['sigma']:.6g}, {probe['settings']['n']} samples; a lower bound, of the smoothed classifier"
    return [("Certified accuracy by smoothing", point_at(probe, data["threat"]["eps"])["certified"], how)]


def smoothed_table(data: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows: both sides against the radius."""
    points, eps = data["probes"]["smooth"]["points"], data["threat"]["eps"]
    level = f"{100 * points[0]['certified']['confidence']:g} %"
    columns = (f"radius ({data['threat']['norm']}, input units)", f"certified, at least [{level} interval]", "attacked, at most")
    rows = tuple(
        (f"{p['eps']:.6g}{' (audited)' if p['eps'] == eps else ''}", percent(p["certified"]), percent(p["attacked"])) for p in points
    )
    return columns, rows


def smoothed_said(data: dict[str, Any]) -> str:
    """What the curves count, in sentences."""
    probe = data["probes"]["smooth"]
    s = probe["settings"]
    text = "The smoothed classifier answers with the class that most noised copies of an input get, Gaussian noise of sigma "
    text += (
        f"{s['sigma']:.6g}; it is another classifier than the model. Certified: rows that it gets right at every input within the radius, "
    )
    text += (
        f"by {s['n']} samples a row, each wrong with a probability of at most {s['alpha']:g}. Attacked: rows that SmoothAdv ({s['steps']} "
    )
    text += f"steps, {s['noises']} noised copies each) left right or undecided, as judged by {s['judges']} fresh samples; from one marked "
    text += f"budget to the next the curve keeps its value. Average certified radius: {probe['average_certified_radius']:.4g}."
    level = f"{100 * probe['points'][0]['certified']['confidence']:g}\N{NO-BREAK SPACE}%"
    text += f" The band and the bars are {level} intervals for other rows drawn as these were."
    if count := probe["contradictions"]["count"]:
        text += f" {count} rows were both certified and broken."
    return text
