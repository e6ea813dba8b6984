"""Perturbation sets. One set serves every engine: attacks search it, bounds cover it, training minimises over it."""

import numpy as np

from ._ball import L1 as L1
from ._ball import L2 as L2
from ._ball import LInf as LInf
from ._box import Box as Box
from ._threat import Threat as Threat

_BALLS: dict[str, type[LInf] | type[L2] | type[L1]] = {"linf": LInf, "l2": L2, "l1": L1}


def named(norm: str, eps: float, lo: float = -np.inf, hi: float = np.inf) -> Threat:
    """The ball of the norm called "linf", "l2" or "l1"; another name raises `ValueError`."""
    if norm not in _BALLS:
        raise ValueError(f"threat is {norm!r}; allowed: {', '.join(_BALLS)} (for a Box, use the Python interface).")
    return _BALLS[norm](eps=eps, lo=lo, hi=hi)
