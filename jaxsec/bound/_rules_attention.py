"""Softmax, log-softmax, logsumexp, and averages by softmax weights, recognised by what they compute.

The maximum that programs take off for safety is dropped: relaxed, it would no longer cancel. `_softmax` says how they are bounded.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._build import erring, moved, negated, rewritten, scaled, size, spread
from ._graph import Graph, Ref, Value
from ._nodes import Curve, Range, Sum
from ._patterns import copied, curve_of, places, spread_back, taken, total
from ._softmax import Rows, shown

# exp of it, summed over 1e8 elements, is far from the largest float32 number, and exp of less than its negative far from the least
_MOST_LOGIT = 60.0
# exp of less than its negative is 0, in float64 too
_FAINT_LOGIT = 800.0


def softmax(graph: Graph, x: Ref, y: Ref) -> Value | None:
    """The value of `x / y` where x is exp(z) and y the sum of it, or of a part of it; None where it is not."""
    z, shape = curve_of(graph, x, "exp"), graph.node(x).shape
    of = None if z is None else total(graph, spread(graph, y, shape))
    if z is None or of is None or of.factor <= 0 or not spread_back(graph, of):
        return None
    terms, axes = copied(graph, of.terms), of.axes
    if terms is None or terms.source != x or terms.factor != 1:
        return None
    summed_up = terms.picked >= 0
    own = np.arange(terms.picked.size).reshape(graph.of_row(shape))
    if (np.where(summed_up, terms.picked, 0) != np.where(summed_up, own, 0)).any():
        return None
    logits = unshifted(graph, z, axes)
    rows, strays = Rows(graph, logits, axes), _strays(graph, z, logits, axes)
    if (rows.laid(shown(graph, logits, axes)) & ~rows.laid(np.broadcast_to(summed_up, shape))).any():
        return None  # an element outside of its own sum is no share of it
    if rows.n == 1:
        return np.full(shape, 1 / of.factor, graph.node(x).dtype)
    p = rewritten(
        graph, rows.back(rows.softmax()), (z,),
        lambda own, r: jnp.full(own[0].shape, _lost(own, rows.n), own[0].dtype) + strays(r),
    )  # fmt: skip
    graph.shares[p.index] = axes
    return scaled(graph, p, 1 / of.factor)


def log_softmax(graph: Graph, x: Ref, y: Ref) -> Value | None:
    """The value of `x - y` where y is log(sum(exp(x)))."""
    of = _log_total(graph, spread(graph, y, jnp.broadcast_shapes(graph.node(y).shape, graph.node(x).shape)))
    if of is None or curve_of(graph, of[0], "exp") != x:
        return None
    _, axes, picked = of
    shape = graph.node(x).shape
    if picked.shape != graph.of_row(shape) or (picked != places(picked.shape, axes)).any():
        return None
    logits = unshifted(graph, x, axes)
    rows = Rows(graph, logits, axes)
    if rows.n == 1:
        return np.zeros(shape, graph.node(x).dtype)
    strays = _strays(graph, x, logits, axes)
    out = rewritten(graph, rows.back(rows.log_softmax()), (x,), lambda own, r: _lost(own, rows.n) * (1 + size(own) + size(r)) + strays(r))
    if axes == (len(shape) - 1,) and rows.shown.all() and less_maximum(graph, x, axes):  # else its exponentials may be no numbers
        graph.apart[out.index] = logits.index
    return out


def logsumexp(graph: Graph, x: Ref, y: Ref) -> Ref | None:
    """The value of `x + y` where x is log(sum(exp(z - y))), with y the same for all that are summed."""
    of = _log_total(graph, x)
    z = None if of is None else curve_of(graph, of[0], "exp")
    if of is None or z is None or not isinstance(node := graph.node(z), Sum) or node.sign > 0:
        return None
    _, axes, picked = of
    if len(graph.node(y).shape) > len(graph.node(x).shape):
        return None
    shift, mine = copied(graph, Ref(node.inputs[1])), copied(graph, spread(graph, y, graph.node(x).shape))
    if shift is None or mine is None or shift.source != mine.source or shift.factor != mine.factor or not shift.along(axes):
        return None
    first = shift.picked[tuple(slice(0, 1) if i in axes else slice(None) for i in range(shift.picked.ndim))]
    if picked.shape != mine.picked.shape or (picked < 0).any() or (first.reshape(-1)[picked] != mine.picked).any():
        return None
    # y comes back, and nothing else: another shift of z, of which softmax would be free, is part of the value
    logits = Ref(node.inputs[0])
    rows = Rows(graph, logits, axes)
    out = moved(graph, (rows.logsumexp(),), lambda v: taken(graph, v, picked))
    strays = _strays(graph, z, logits, axes)
    return rewritten(graph, out, (z,), lambda own, r: _lost(own, rows.n) * (1 + size(own) + jnp.max(size(r))) + jnp.max(strays(r)))


def _log_total(graph: Graph, ref: Ref) -> tuple[Ref, tuple[int, ...], np.ndarray] | None:
    """(terms, axes, picked) where ref is log(sum(terms over axes))[picked]."""
    at = copied(graph, ref, lambda node: isinstance(node, Curve) and node.unary.name == "log")
    inner = None if at is None or at.factor != 1 or (at.picked < 0).any() else curve_of(graph, at.source, "log")
    of = None if inner is None else total(graph, inner)
    if at is None or of is None or of.factor != 1 or (of.picked < 0).any():
        return None
    return of.terms, of.axes, of.picked.reshape(-1)[at.picked]


def unshifted(graph: Graph, z: Ref, axes: tuple[int, ...]) -> Ref:
    """z without what is the same for all elements along the axes, such as their maximum."""
    while isinstance(node := graph.node(z), Sum):
        one, two = (Ref(i) for i in node.inputs)
        if (at := copied(graph, two)) is not None and at.along(axes):
            z = one
        elif (at := copied(graph, one)) is not None and at.along(axes):
            z = two if node.sign > 0 else negated(graph, two)
        else:
            break
    return z


def less_maximum(graph: Graph, z: Ref, axes: tuple[int, ...]) -> bool:
    """Whether z is something less its own maximum along the axes: none of its exponentials overflows, and one of them is 1."""
    if not isinstance(node := graph.node(z), Sum) or node.sign > 0:
        return False
    one, at = node.inputs[0], copied(graph, Ref(node.inputs[1]))
    if at is None or at.factor != 1 or not at.along(axes):
        return False
    of, over, stands = graph.maxima.get(at.source.index, (-1, (), np.zeros(0, int)))
    if of != one or set(over) != set(axes) or (at.picked < 0).any():
        return False
    return bool((stands.reshape(-1)[at.picked] == places(graph.of_row(graph.node(z).shape), axes)).all())


def _strays(graph: Graph, z: Ref, logits: Ref, axes: tuple[int, ...]) -> Callable[[Range], jax.Array]:
    """From the range of z: infinite where exponentials of z as they are may overflow or all vanish, or a mask may not be one: the
    program's value is then no share, or no number.

    Where z is less its maximum it strays only if that is not finite itself; a logit that is surely minus infinity is a mask.
    """
    tame, hidden = less_maximum(graph, z, axes), ~shown(graph, logits, axes)

    def run(r: Range) -> jax.Array:
        if tame:
            fine = (jnp.isfinite(r[0]) & jnp.isfinite(r[1])) | ((r[0] == -jnp.inf) & (r[1] == -jnp.inf))
            fine = fine & (~hidden | (r[1] < -_FAINT_LOGIT))
            return jnp.broadcast_to(jnp.where(jnp.all(fine, axes, keepdims=True), 0.0, jnp.inf), r[0].shape)
        high, low = jnp.max(r[1], axes, keepdims=True), jnp.max(r[0], axes, keepdims=True)
        return jnp.broadcast_to(jnp.where((high > _MOST_LOGIT) | (low < -_MOST_LOGIT), jnp.inf, 0.0), r[0].shape)

    return run


def _lost(r: Range, n: int) -> Any:
    """What exponentials, their sum and a quotient lose: relative to 1, which shares are below."""
    return 2 * erring(r[0].dtype, "exp", "exp", "log") + 2 * n * float(jnp.finfo(r[0].dtype).eps)


def averaged(graph: Graph, out: Ref, numbers: Any, x: Ref, y: Ref) -> Ref:
    """An average by softmax weights, `out = x . y`, is between the least and the largest of what it averages."""
    (cx, cy), (bx, by) = numbers
    for weights, values, cw, cv, bv, left in ((x, y, cx, cy, by, False), (y, x, cy, cx, bx, True)):
        axes = graph.shares.get(weights.index)
        if axes is None or set(axes) != set(cw):
            continue
        n, shape, final = math.prod(graph.node(weights).shape[a] for a in axes), graph.node(values).shape, graph.node(out).shape
        free = [i for i in range(len(shape)) if i not in cv and i not in bv]
        order = tuple(i - sum(c < i for c in cv) for i in (*bv, *free))  # of what the least and the largest are left with
        batch, rest = tuple(shape[i] for i in bv), tuple(shape[i] for i in free)
        ones = (1,) * (len(final) - len(order))
        sides = (*batch, *rest, *ones) if left else (*batch, *ones, *rest)
        return graph.hinted(out, (values, weights), _hull(tuple(cv), order, sides, final, n))
    return out


Ints = tuple[int, ...]


def _hull(axes: Ints, order: Ints, sides: Ints, shape: Ints, n: int) -> Callable[[Range, Range], Range]:
    """From the range of n values the range of their averages, laid out as the averages are; nothing where weights may be no shares."""

    def run(r: Range, weights: Range) -> Range:
        room = 4 * (n + 4) * float(jnp.finfo(r[0].dtype).eps)
        low, high = jnp.min(r[0], axes), jnp.max(r[1], axes)
        low, high = low - room * jnp.abs(low), high + room * jnp.abs(high)
        low, high = (jnp.broadcast_to(jnp.transpose(v, order).reshape(sides), shape) for v in (low, high))
        shares = jnp.all(jnp.isfinite(weights[0]) & jnp.isfinite(weights[1]))
        return jnp.where(shares, low, -jnp.inf), jnp.where(shares, high, jnp.inf)

    return run
