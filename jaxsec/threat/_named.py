"""Balls by name, for command lines and configuration files."""

import math
from typing import Any

from ._ball import Ball
from ._l1 import L1
from ._l2 import L2
from ._linf import LInf

_BALLS = {"linf": LInf, "l2": L2, "l1": L1}


def named(norm: str, *, eps: Any, lo: Any = -math.inf, hi: Any = math.inf) -> Ball:
    """The ball of the norm called `norm`: "linf", "l2" or "l1", in any case ("Linf", "L2").

    Args: eps, lo, hi: as in `LInf`.
    Raises: ValueError: another name.

    Example:
      >>> from jaxsec.threat import named
      >>> named("Linf", eps=0.1, lo=0.0, hi=1.0)
      LInf(eps=0.1, lo=0.0, hi=1.0)
    """
    ball = _BALLS.get(norm.lower()) if isinstance(norm, str) else None
    if ball is None:
        raise ValueError(f"norm is {norm!r}; allowed: {', '.join(_BALLS)}. An absolute box is threat.Box(lower=..., upper=...).")
    return ball(eps=eps, lo=lo, hi=hi)
