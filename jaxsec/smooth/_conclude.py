"""From what was counted to certificates."""

from typing import TYPE_CHECKING

import numpy as np

from ._certificate import SmoothedCertificate, SmoothedVerdict
from ._randomizer import Reach
from ._sampling import Tally
from ._schedule import CERTIFIED, REFUTED, Fixed, Rule, Within

if TYPE_CHECKING:
    from ._method import SmoothingMethod


def sampled(tally: Tally, y: np.ndarray, eps: np.ndarray, rule: Rule, reach: Reach, method: "SmoothingMethod") -> SmoothedCertificate:
    """Of samples: the class that the first chose, the bound that the rule gives of its probability, the radius which that certifies."""
    hits, every = tally.hits, np.arange(len(y))
    p = rule.lower(hits, tally.n) if len(y) else np.zeros(0)
    found = np.where(p > 0.5, reach.radius(p, every), 0.0)
    # a test that says yes at eps certifies eps, whatever the interval that is left says
    yes = (tally.shown == CERTIFIED) & (not isinstance(rule, Fixed | Within))
    found = np.where(yes, np.maximum(found, eps), found)
    predict = np.where((p > 0.5) | yes, tally.top, -1)
    right = tally.top == y
    robust = right & (predict >= 0) & (found >= eps)
    status = np.where(robust, SmoothedVerdict.CERTIFIED, SmoothedVerdict.OPEN)
    status = np.where(~robust & (tally.shown == REFUTED), SmoothedVerdict.REFUTED, status)
    status = np.where(~right, SmoothedVerdict.WRONG, status)
    return SmoothedCertificate(
        robust=robust, radius=found, predict=predict, p_lower=p, counts=tally.counts, samples=tally.n + method.n0,
        status=status.astype(np.int32), confidence=1 - method.alpha, method=method.name, distribution=method.randomizer.name,
        norm=reach.norm, dtype=method.dtype,
    )  # fmt: skip
