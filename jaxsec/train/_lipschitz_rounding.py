"""What float32 arithmetic loses on the way through a net, as norms: how far a computed value may be from the one of exact arithmetic.

Both the size of a value and its error are bounded by `slope * |x| + offset`, with |x| the norm of the net's input; so one walk serves all
inputs. An operation passes the error of its inputs on as it passes on distances, and adds its own: of a sum of n products in any order
`gamma(n)` times the sum of their sizes.
"""

import math
from typing import Any

import numpy as np

from ._operator_norms import UnknownConstant

UNIT = 2.0**-24  # the largest relative error of one rounding
_TINY = 2.0**-126  # a result below it may be flushed to 0
_EXACT = frozenset(
    "reshape transpose squeeze copy stop_gradient rev slice neg abs reduce_max reduce_min reduce_window_max pad max min clamp concatenate "
    "stack broadcast_in_dim".split()
)
_SUMS = ("reduce_sum", "reduce_window_sum")
# Roundings of an elementary function: none of XLA's is known to be off by more.
_CURVE = 16
# Roundings in known values: a compiled program may fold one weight into another, and compute weights otherwise than they were read here.
_FOLDED = 2
_COMPUTED = 16


def gamma(n: int) -> float:
    """`|fl(sum of n products) - sum| <= gamma * sum of absolute values`, in any order (Higham 2002, lemma 3.1); 2% for higher orders."""
    if n * UNIT >= 0.5:
        raise UnknownConstant(f"the rounding of a sum of {n} terms")
    return n * UNIT / (1 - n * UNIT) * 1.02


def own_error(eqn: Any, sizes: list[np.ndarray], out: np.ndarray, factor: float, computed: bool) -> np.ndarray:
    """[2] (slope, offset) of the norm of the error that one operation adds to those of its inputs.

    Args:
      sizes: of each operand as it is computed, [2], spread over the value's shape where it is one number. out: of the value.
      factor: of products and sums: the norm of the operator with the absolute values of its coefficients.
      computed: an operand is known, and the program computes it from weights.
    """
    name, elements = eqn.primitive.name, math.prod(eqn.outvars[0].aval.shape)
    if name in _EXACT:
        return np.zeros(2)
    if name in ("add", "sub", "add_any"):  # their operands, which may cancel
        terms, size = 2, sum(sizes, np.zeros(2))
    elif name in ("mul", "div"):
        terms, size = 3, out
    elif name in ("dot_general", "conv_general_dilated", *_SUMS):
        terms, size = _terms(eqn), factor * sum(sizes, np.zeros(2))
    else:  # of a small value of sin the argument's reduction counts
        terms, size = _CURVE, out + sum(sizes, np.zeros(2))
    return gamma(terms + (_COMPUTED if computed else _FOLDED)) * size + np.array([0.0, (terms + 1) * _TINY * math.sqrt(elements)])


def _terms(eqn: Any) -> int:
    """How many products or values one element of the result sums."""
    p, shape = eqn.params, eqn.invars[0].aval.shape
    if eqn.primitive.name == "dot_general":
        return math.prod(shape[a] for a in p["dimension_numbers"][0][0])
    if eqn.primitive.name == "reduce_window_sum":
        return math.prod(p["window_dimensions"])
    if eqn.primitive.name == "reduce_sum":
        return math.prod(shape[a] for a in p["axes"])
    return math.prod(eqn.invars[1].aval.shape[a] for a in p["dimension_numbers"].rhs_spec[1:])
