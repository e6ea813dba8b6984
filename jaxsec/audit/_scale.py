"""Does eps fit the scale of the data, and is the valid range known? What `audit` files as findings the command line also warns of."""

import math
from typing import Any

import numpy as np

from ..threat import Ball
from ._finding import Finding

# A budget that spread over a row moves each value by less than this share of the valid range tests nothing: half a grey level of 255 is
# 2e-3 for linf; published l2 budgets start at 3e-4 (ImageNet, eps 0.1). l1 budgets move few values far, so their share says nothing.
_LEAST = {"linf": 1e-3, "l2": 1e-4}
# Published noise has a sigma of 0.12 to 1 of the valid range.
_LEAST_NOISE, _MOST_NOISE = 5e-3, 4.0


def too_small(threat: Ball, row: tuple[int, ...]) -> str:
    """Says how small eps is beside the valid range, in one clause; "" where it is not, or where the range is open."""
    lo, hi = (np.asarray(v, np.float64) for v in (threat.lo, threat.hi))
    width, eps = float(np.max(hi - lo)), float(np.max(np.asarray(threat.eps)))
    per_value = eps / {"l2": math.sqrt(math.prod(row))}.get(threat.norm, 1.0)
    if threat.norm not in _LEAST or not 0 < per_value < _LEAST[threat.norm] * width < np.inf:
        return ""
    spread = "" if threat.norm == "linf" else ", spread over a row,"
    return f"eps {eps:g}{spread} is {per_value / width:.2g} of the valid range [{lo.min():g}, {hi.max():g}]"


def too_large(threat: Ball, row: tuple[int, ...]) -> str:
    """Says, in one sentence, that eps lets every input become the same grey one; "" where it does not, or where the range is open."""
    lo, hi = (np.asarray(v, np.float64) for v in (threat.lo, threat.hi))
    width, eps, size = float(np.max(hi - lo)), float(np.max(np.asarray(threat.eps))), math.prod(row)
    least = 0.5 * width * {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}[threat.norm]
    if not least <= eps < np.inf:
        return ""
    said = f"eps {eps:g} is so large for the valid range [{lo.min():g}, {hi.max():g}] that every input can be turned into the same one "
    said += f"(from {least:.4g} on), so no model can be robust"
    return said + (f"; was {eps:g}/255 meant?" if threat.norm == "linf" and 1 <= eps <= 64 and hi.max() <= 1 else ".")


def odd_noise(sigma: float, threat: Ball) -> str:
    """Says, in one sentence, that noise of this scale does not fit the valid range; "" where it does, or where the range is open."""
    lo, hi = (np.asarray(v, np.float64) for v in (threat.lo, threat.hi))
    width = float(np.max(hi - lo))
    if not 0 < sigma or not 0 < width < np.inf or _LEAST_NOISE * width <= sigma <= _MOST_NOISE * width:
        return ""
    said = f"sigma {sigma:g} is {sigma / width:.2g} of the valid range [{lo.min():g}, {hi.max():g}]: "
    if sigma > width:
        said += "hardly anything of an input is left in such noise"
        return said + (f"; was {sigma:g}/255 meant?" if sigma <= 255 and hi.max() <= 1 else "; sigma is in the units of the data.")
    return said + "certified radii are a few sigma at most, so none will be of use; sigma is in the units of the data."


def measured(data: Any) -> str:
    """Says that the valid range was measured on the data, in one clause; "" where it was not, or where [0, 1] or bytes were recognised."""
    if not getattr(data, "range_measured", False):
        return ""
    lo, hi = (np.asarray(v) for v in data.value_range)
    return f"the valid range [{lo.min():.6g}, {hi.max():.6g}] was measured on the data, as nobody stated it"


def scale_findings(threat: Ball, row: tuple[int, ...], data: Any, sigma: float = 0.0) -> list[Finding]:
    """A medium finding each for an eps far below or beyond the data's scale, noise likewise, and a range that was only measured."""
    found = []
    if said := too_small(threat, row):
        text = f"{said[0].upper()}{said[1:]} (medium below {_LEAST[threat.norm]:g}): such a change is hardly any, so the robust accuracy "
        text += "says little."
        remedy = "Give eps in the units of the data (8 of 255, not 8/255), or data in [0, 1]."
        found.append(_finding("JSX-VAL-004", "eps far below the scale of the data", text, remedy))
    if said := too_large(threat, row):
        text = f"{said[0].upper()}{said[1:]}"
        found.append(_finding("JSX-VAL-006", "eps beyond any robustness", text, "Give eps in the units of the data."))
    if said := odd_noise(sigma, threat):
        text = f"{said[0].upper()}{said[1:]}"
        found.append(_finding("JSX-VAL-011", "Noise beside the scale of the data", text, "Give sigma in the units of the data."))
    if said := measured(data):
        text = f"{said[0].upper()}{said[1:]}. Attacks stay inside it, and eps counts in its units: an eps meant for [0, 1] (such as 8/255) "
        text += "means something else here, as with data normalised by mean and std."
        remedy = "State --range, give --eps in the same units, and normalise in front of the model with --mean and --std."
        found.append(_finding("JSX-VAL-005", "Range measured, not stated", text, remedy))
    return found


def _finding(id: str, title: str, text: str, remedy: str) -> Finding:
    return Finding(id=id, family="evaluation", severity="medium", title=title, message=text, remedy=remedy)
