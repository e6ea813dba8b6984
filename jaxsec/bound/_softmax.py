"""The nodes of softmax, log-softmax and logsumexp along some axes of logits.

None of them changes when the same number is added everywhere. Two forms, by size:

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

from ._build import curve, moved, negated, scaled, size, summed
from ._graph import Graph, Ref, concrete
from ._nodes import Move, Range, Scale, certain

# Up to so many pairs in a row of the batch softmax is written with pairs: a head's classes or a short sequence, what CROWN tightens one by
# one.
PAIRS = 2048
# Known logits below this are a program's way to write minus infinity: their exponentials are 0.
_MASKED = -(2.0**100)
# A known term that much below another is a mask that was added.
_FAR = 1e3


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
        return math.prod(self.kept) * self.n**2 <= PAIRS * self.graph.rows

    def softmax(self) -> Ref:
        if not self.pairs:
            p = curve(self.graph, self._shifted()[0], "exp")
        elif self.n == 2 and self.shown.all():
            p = curve(self.graph, moved(self.graph, (negated(self.graph, self._difference()),), lambda v: v[..., :1]), "logistic")
            rest = scaled(self.graph, p, -1, 1)  # what one gains the other loses, to the last digit
            p = moved(self.graph, (p, rest), lambda a, b: jnp.concatenate([a, b], -1))
        else:
            whole = scaled(self.graph, self._others(), bias=1, fresh=True)
            p = curve(self.graph, self.graph.hinted(whole, (), lambda: _at_least(jnp.ones(()))), "reciprocal")
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
        total = moved(graph, (e,), lambda v: jnp.sum(jnp.where(part, v, 0), -1), summed=n - 1, over=(len(self.kept) + 1,))
        return graph.hinted(total, (), lambda: _at_least(jnp.zeros(())))

    def _shifted(self) -> tuple[Ref, Ref, Ref]:
        """(log p [..., n], log of the sum of exp(z) [..., 1], mean [..., 1])."""
        graph, n = self.graph, self.n
        middle = moved(graph, (self.x,), lambda v: jnp.sum(jnp.where(self.heard, v, 0), -1, keepdims=True), summed=n)
        middle = scaled(graph, middle, 1 / np.maximum(self.heard.sum(-1, keepdims=True), 1))
        z = summed(graph, self.x, middle, -1)
        e = self._visible(curve(graph, z, "exp"))
        total = moved(graph, (e,), lambda v: jnp.sum(v, -1, keepdims=True), summed=n, over=(len(self.kept),))
        level = curve(graph, graph.hinted(total, (e,), lambda r: _at_least(jnp.max(r[0], -1, keepdims=True))), "log")
        out = summed(graph, z, level, -1, fresh=True)
        # both know the range: x where boxes are given, z where linear bounds have tightened it
        graph.hinted(out, (self.x, z), lambda *rs: _both(*(_log_share(r, self.shown) for r in rs)))
        return out, level, middle


def _at_least(lo: jax.Array) -> Range:
    """What a sum of numbers that are not negative cannot fall below, in any order and however it is rounded, though its error bound may."""
    return lo, jnp.full_like(lo, jnp.inf)


def _log_share(r: Range, visible: np.ndarray) -> Range:
    """The range of log softmax along the last axis: the own logit at one end, all others at the other."""
    lo, hi = r
    n = lo.shape[-1]
    others = ~np.eye(n, dtype=bool) & visible[..., None, :]

    def rest(v: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(jnp.where(others, v[..., None, :], -jnp.inf), -1)

    low, high = rest(hi) - lo, rest(lo) - hi
    room = 8 * float(jnp.finfo(lo.dtype).eps)
    low, high = (v + s * room * (n + jnp.where(jnp.isfinite(v), jnp.abs(v), 0) + size(r)) for v, s in ((low, 1), (high, -1)))
    return certain(-jax.nn.softplus(low), -jax.nn.softplus(high))


def _both(a: Range, b: Range) -> Range:
    return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])
