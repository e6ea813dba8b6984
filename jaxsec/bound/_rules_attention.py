"""Softmax, log-softmax, logsumexp, and averages by softmax weights, recognised by what they compute.

None of them changes when the same number is added everywhere, so the maximum that programs take off for safety is dropped: relaxed, it
would no longer cancel. Two forms, by size:

- pairs, `p_i = 1 / (1 + sum_j exp(x_j - x_i))`: the differences are affine, so common parts cancel exactly, their ranges give the exact
  range of p, and no bound is worse than [0, 1]. One exponential per pair. Exact for two classes (a logistic curve).
- shifted, `p_i = exp(z_i - log sum_j exp(z_j))` with z = x - mean(x): one exponential per element; `log p_i` has its exact range as a hint.

Measured on random logits within +-w (float64, n = 10, mean width of p by CROWN): pairs 0.037, 0.22, 0.44, 0.80, 0.99 and shifted 0.036,
0.26, 0.80, 1.4, 1.7 for w = 0.1, 0.5, 1, 2, 4; the exponential times the reciprocal of the sum, after the maximum: 0.043, 0.53, 4.1, 215,
640 000.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._build import curve, moved, negated, rewritten, scaled, spread, summed
from ._graph import Graph, Ref, Value, concrete
from ._nodes import Move, Range, Scale, Sum, certain
from ._patterns import copied, curve_of, places, spread_back, total
from ._unary_rounding import errors

# Up to so many pairs softmax is written with pairs: they are a head's classes or a short sequence, and what CROWN tightens one by one.
_PAIRS = 2048
# Known logits below this are a program's way to write minus infinity: their exponentials are 0.
_MASKED = -(2.0**100)
_FAR = 1e3


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
    if (np.where(summed_up, terms.picked, 0) != np.where(summed_up, np.arange(terms.picked.size).reshape(shape), 0)).any():
        return None
    logits = unshifted(graph, z, axes)
    rows = Rows(graph, logits, axes)
    if (rows.laid(shown(graph, logits, axes)) & ~rows.laid(summed_up)).any():
        return None  # an element outside of its own sum is no share of it
    if rows.n == 1:
        return np.full(shape, 1 / of.factor, graph.node(x).dtype)
    p = rewritten(graph, rows.back(rows.softmax()), (), lambda own: jnp.asarray(_lost(own, rows.n), own[0].dtype))
    graph.shares[p.index] = axes
    return scaled(graph, p, 1 / of.factor)


def log_softmax(graph: Graph, x: Ref, y: Ref) -> Value | None:
    """The value of `x - y` where y is log(sum(exp(x)))."""
    of = _log_total(graph, spread(graph, y, jnp.broadcast_shapes(graph.node(y).shape, graph.node(x).shape)))
    if of is None or curve_of(graph, of[0], "exp") != x or not (of[2].shape == graph.node(x).shape and (
            of[2] == places(graph.node(x).shape, of[1])).all()):  # fmt: skip
        return None
    rows = Rows(graph, unshifted(graph, x, of[1]), of[1])
    if rows.n == 1:
        return np.zeros(graph.node(x).shape, graph.node(x).dtype)
    return rewritten(graph, rows.back(rows.log_softmax()), (x,), lambda own, r: _lost(own, rows.n) * (1 + _size(own) + _size(r)))


def logsumexp(graph: Graph, x: Ref, y: Ref) -> Ref | None:
    """The value of `x + y` where x is log(sum(exp(z - y))), with y the same for all that are summed."""
    of = _log_total(graph, x)
    z = None if of is None else curve_of(graph, of[0], "exp")
    if of is None or z is None or not isinstance(node := graph.node(z), Sum) or node.sign > 0:
        return None
    _, axes, picked = of
    shift, mine = copied(graph, Ref(node.inputs[1])), copied(graph, spread(graph, y, graph.node(x).shape))
    if shift is None or mine is None or shift.source != mine.source or shift.factor != mine.factor or not shift.along(axes):
        return None
    first = shift.picked[tuple(slice(0, 1) if i in axes else slice(None) for i in range(shift.picked.ndim))]
    if picked.shape != mine.picked.shape or (picked < 0).any() or (first.reshape(-1)[picked] != mine.picked).any():
        return None
    rows = Rows(graph, unshifted(graph, z, axes), axes)
    out = moved(graph, (rows.logsumexp(),), lambda v: v.reshape(-1)[picked])
    return rewritten(graph, out, (z,), lambda own, r: _lost(own, rows.n) * (1 + _size(own) + jnp.max(_size(r))))


def _log_total(graph: Graph, ref: Ref) -> tuple[Ref, tuple[int, ...], np.ndarray] | None:
    """(terms, axes, picked) where ref is log(sum(terms over axes))[picked]."""
    at = copied(graph, ref)
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


def shown(graph: Graph, logits: Ref, axes: tuple[int, ...]) -> np.ndarray:
    """Which logits are not masked by a known minus infinity. Where all along the axes are, none counts as masked."""
    node = graph.node(logits)
    bias = concrete(node.bias) if isinstance(node, Move) and node.summed == 1 and node.bias is not None else None
    visible = np.broadcast_to(True if bias is None else bias > _MASKED, node.shape)
    return visible | ~visible.any(axes, keepdims=True)


def _heard(graph: Graph, logits: Ref, axes: tuple[int, ...]) -> np.ndarray:
    """Which logits the mean is of: not those that a large known term pushes far below the others, as masks that are added do."""
    node = graph.node(logits)
    bias = concrete(node.bias) if isinstance(node, Scale) and node.bias is not None else None
    bias = np.broadcast_to(0.0 if bias is None else bias, node.shape)
    return bias > bias.max(axes, keepdims=True, initial=-np.inf) - _FAR


class Rows:
    """The logits with the axes of the sum as one last axis, masked ones set to 0: they are left out of every sum."""

    def __init__(self, graph: Graph, logits: Ref, axes: tuple[int, ...]) -> None:
        self.graph, self.shape = graph, graph.node(logits).shape
        rest = [i for i in range(len(self.shape)) if i not in axes]
        self.order = (*rest, *axes)
        self.kept, self.n = tuple(self.shape[i] for i in rest), math.prod(self.shape[i] for i in axes)
        self.shown = self.laid(shown(graph, logits, axes))
        self.heard = self.laid(_heard(graph, logits, axes)) & self.shown
        self.x = self._visible(moved(graph, (logits,), self.laid))

    def laid(self, v: Any) -> Any:
        return v.transpose(self.order).reshape(*self.kept, self.n)

    def _visible(self, ref: Ref, fill: float = 0.0) -> Ref:
        """The value where logits are shown, `fill` where they are masked."""
        if self.shown.all():
            return ref
        bias = None if fill == 0 else np.where(self.shown, np.float32(0), np.float32(fill)).astype(self.graph.node(ref).dtype)
        return moved(self.graph, (ref,), lambda v: jnp.where(self.shown, v, 0), bias)

    def back(self, ref: Ref) -> Ref:
        """As the logits are laid out."""
        laid = tuple(self.shape[i] for i in self.order)
        return moved(self.graph, (ref,), lambda v: v.reshape(laid).transpose(np.argsort(self.order)))

    @property
    def pairs(self) -> bool:
        return math.prod(self.kept) * self.n**2 <= _PAIRS

    def softmax(self) -> Ref:
        if not self.pairs:
            p = curve(self.graph, self._shifted()[0], "exp")
        elif self.n == 2 and self.shown.all():
            d = summed(self.graph, *(moved(self.graph, (self.x,), lambda v, i=i: v[..., i : i + 1]) for i in (0, 1)), -1)  # pyright: ignore[reportCallIssue]
            p = curve(self.graph, d, "logistic")
            rest = scaled(self.graph, p, -1, 1)  # what one gains the other loses, to the last digit
            p = moved(self.graph, (p, rest), lambda a, b: jnp.concatenate([a, b], -1))
        else:
            p = curve(self.graph, scaled(self.graph, self._others(), bias=1), "reciprocal")
        return self._visible(p)

    def log_softmax(self) -> Ref:
        if not self.pairs:
            out = self._shifted()[0]
        elif self.n == 2 and self.shown.all():
            out = negated(self.graph, curve(self.graph, self._difference(), "softplus"))
        else:
            out = negated(self.graph, curve(self.graph, self._others(), "log1p"))
        return self._visible(out, -math.inf)

    def logsumexp(self) -> Ref:
        def run(r: Range) -> Range:
            room = 8 * float(jnp.finfo(r[0].dtype).eps) * self.n
            low, high = (jax.nn.logsumexp(jnp.where(self.shown, v, -jnp.inf), -1) for v in r)
            return certain(low - room * (1 + jnp.abs(low)), high + room * (1 + jnp.abs(high)))

        _, level, middle = self._shifted()
        out = moved(self.graph, (summed(self.graph, level, middle),), lambda v: v[..., 0])
        return self.graph.hinted(out, (self.x,), run)

    def _difference(self) -> Ref:
        """[..., 2] the other of two logits less the own."""
        return summed(self.graph, moved(self.graph, (self.x,), lambda v: v[..., ::-1]), self.x, -1)

    def _others(self) -> Ref:
        """[..., n] sum of exp(x_j - x_i) over the other j."""
        graph, n = self.graph, self.n
        others = np.array([[j for j in range(n) if j != i] for i in range(n)])
        own = moved(graph, (self.x,), lambda v: jnp.broadcast_to(v[..., None], (*v.shape, n - 1)))
        e = curve(graph, summed(graph, moved(graph, (self.x,), lambda v: v[..., others]), own, -1), "exp")
        part = self.shown[..., others]
        return moved(graph, (e,), lambda v: jnp.sum(jnp.where(part, v, 0), -1), summed=n - 1, over=(len(self.kept) + 1,))

    def _shifted(self) -> tuple[Ref, Ref, Ref]:
        """(log p [..., n], log of the sum of exp(z) [..., 1], mean [..., 1])."""
        graph, n = self.graph, self.n
        middle = moved(graph, (self.x,), lambda v: jnp.sum(jnp.where(self.heard, v, 0), -1, keepdims=True), summed=n)
        middle = scaled(graph, middle, 1 / np.maximum(self.heard.sum(-1, keepdims=True), 1))
        z = summed(graph, self.x, middle, -1)
        e = self._visible(curve(graph, z, "exp"))
        level = curve(graph, moved(graph, (e,), lambda v: jnp.sum(v, -1, keepdims=True), summed=n, over=(len(self.kept),)), "log")
        out = summed(graph, z, level, -1)
        # both know the range: x where boxes are given, z where linear bounds have tightened it
        graph.hinted(out, (self.x, z), lambda *rs: _both(*(_log_share(r, self.shown) for r in rs)))
        return out, level, middle


def _log_share(r: Range, visible: np.ndarray) -> Range:
    """The range of log softmax along the last axis: the own logit at one end, all others at the other."""
    lo, hi = r
    n = lo.shape[-1]
    others = ~np.eye(n, dtype=bool) & visible[..., None, :]

    def rest(v: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(jnp.where(others, v[..., None, :], -jnp.inf), -1)

    low, high = rest(hi) - lo, rest(lo) - hi
    room = 8 * float(jnp.finfo(lo.dtype).eps)
    low, high = (v + s * room * (n + jnp.where(jnp.isfinite(v), jnp.abs(v), 0) + _size(r)) for v, s in ((low, 1), (high, -1)))
    return certain(-jax.nn.softplus(low), -jax.nn.softplus(high))


def _both(a: Range, b: Range) -> Range:
    return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])


def _size(r: Range) -> jax.Array:
    size = jnp.maximum(jnp.abs(r[0]), jnp.abs(r[1]))
    return jnp.where(jnp.isfinite(size), size, 0)


def _lost(r: Range, n: int) -> Any:
    """What exponentials, their sum and a quotient lose: relative to 1, which shares are below."""
    return 4 * errors("exp", None, r[0].dtype)[0] + 2 * errors("log", None, r[0].dtype)[0] + (2 * n + 16) * float(jnp.finfo(r[0].dtype).eps)


def averaged(graph: Graph, out: Ref, numbers: Any, x: Ref, y: Ref) -> Ref:
    """An average by softmax weights, `out = x . y`, is between the least and the largest of what it averages."""
    (cx, cy), (bx, by) = numbers
    for weights, values, (cw, _), (cv, bv), first in (
        (x, y, (cx, bx), (cy, by), False),
        (y, x, (cy, by), (cx, bx), True),
    ):
        axes = graph.shares.get(weights.index)
        if axes is None or set(axes) != set(cw):
            continue
        shape, n = graph.node(values).shape, math.prod(graph.node(weights).shape[a] for a in axes)
        free = [i for i in range(len(shape)) if i not in cv and i not in bv]
        kept = [i for i in range(len(shape)) if i not in cv]
        order = [kept.index(i) for i in (*bv, *free)]
        ones = (1,) * (len(graph.node(out).shape) - len(order))
        batch = tuple(shape[i] for i in bv)
        sides = (*batch, *(shape[i] for i in free), *ones) if first else (*batch, *ones, *(shape[i] for i in free))
        final = graph.node(out).shape

        def run(r: Range, cv: Any = tuple(cv), order: Any = order, sides: Any = sides, n: int = n, final: Any = final) -> Range:
            room = 4 * (n + 4) * float(jnp.finfo(r[0].dtype).eps)
            low, high = jnp.min(r[0], cv), jnp.max(r[1], cv)
            low, high = low - room * jnp.abs(low), high + room * jnp.abs(high)
            return tuple(jnp.broadcast_to(jnp.transpose(v, order).reshape(sides), final) for v in (low, high))  # pyright: ignore

        return graph.hinted(out, (values,), run)
    return out
