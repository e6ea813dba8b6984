"""Normalisations: a value divided by the root of the mean square of its group. Layer, group, instance and RMS norm, and x / |x|.

The value is bounded as a product like any other; what is recognised is its range. With c in [lo, hi] and S the sum of the squares of the
rest of the group, `c / sqrt(f (c^2 + S) + eps)` rises with c, and falls with S where c > 0; and centred values have `S >= c^2 / (N - 1)`,
because the rest sums to -c. The product of the ranges of c and of the root would have no limit but 1 / sqrt(eps).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ._build import curve, moved, product, rewritten, scaled, size, summed
from ._graph import Graph, Ref, scalar
from ._nodes import Curve, Range, Sum
from ._patterns import copied, curve_of, mean_of, multiple, places, spread_back, taken, total

_SMALL = 1e-15


def variance(graph: Graph, x: Ref, y: Ref) -> Ref | None:
    """`mean(v^2) - mean(v)^2` as `mean((v - mean(v))^2)`: the same number, and never below 0."""
    squares, root = mean_of(graph, x), curve_of(graph, y, "square")
    mean = None if root is None else mean_of(graph, root)
    if squares is None or mean is None or curve_of(graph, squares.terms, "square") != mean.terms or squares.axes != mean.axes:
        return None
    if squares.picked.shape != mean.picked.shape or (squares.picked != mean.picked).any():
        return None
    axes, picked = mean.axes, mean.picked
    n = math.prod(graph.node(mean.terms).shape[a] for a in axes)
    middle = moved(graph, (mean.terms,), lambda v: jnp.sum(v, axes, keepdims=True), summed=n, over=axes)
    centred = summed(graph, mean.terms, scaled(graph, middle, 1 / n), -1)
    spread = scaled(graph, moved(graph, (curve(graph, centred, "square"),), lambda v: jnp.sum(v, axes), summed=n, over=axes), 1 / n)
    # the program takes the difference of two numbers that may be much larger, each a sum of n
    eps = float(jnp.finfo(graph.node(spread).dtype).eps)
    rewritten(graph, spread, (mean.terms,), lambda own, r: jnp.mean(jnp.square(size(r)), axes) * (2 * n + 16) * eps)
    if picked.size == math.prod(graph.of_row(graph.node(spread).shape)) and (picked.reshape(-1) == np.arange(picked.size)).all():
        return moved(graph, (spread,), lambda v: v.reshape(graph.node(x).shape))
    return moved(graph, (spread,), lambda v: taken(graph, v, picked))


def normalised(graph: Graph, x: Ref, y: Ref) -> Ref | None:
    """`x * y` where y is 1 / sqrt of the mean square (plus eps) of x's group, times anything known."""
    for value, root in ((x, y), (y, x)):
        gain, bias, inner = multiple(graph, value)
        if (found := _one_way(graph, value, root)) is not None:
            return found
        if scalar(bias) == 0 and inner != value and (found := _one_way(graph, inner, root)) is not None:
            return scaled(graph, found, gain)
    return None


def _one_way(graph: Graph, x: Ref, y: Ref) -> Ref | None:
    gain, bias, root = multiple(graph, y)
    at = copied(graph, root, lambda node: isinstance(node, Curve)) if scalar(bias) == 0 else None
    power = None if at is None else curve_of(graph, at.source, "rsqrt", "pow -0.5")
    if at is None or power is None or (at.picked < 0).any():
        return None
    factor, eps, energy = multiple(graph, power)
    of, f, e = total(graph, energy), scalar(factor), scalar(eps)
    group = None if of is None else curve_of(graph, of.terms, "square")
    if of is None or group is None or f is None or e is None or f * of.factor <= 0 or e < 0 or (of.picked < 0).any():
        return None
    where = _same(graph, x, group)
    home = places(graph.of_row(graph.node(group).shape), of.axes)
    wanted = of.picked.reshape(-1)[at.picked]  # the group whose root stands at each element of y
    shape = graph.node(x).shape
    if where is None or graph.node(root).shape != shape or (home.reshape(-1)[where] != wanted).any():
        return None
    identical = where.shape == home.shape and bool((where.reshape(-1) == np.arange(where.size)).all())
    out = product(graph, group if identical else x, root)
    limits = _limits(of.axes, f * of.factor, e, _centred(graph, group) == of.axes)
    others, lost = _lost(graph, energy, of.terms)

    def run(r: Range, *rs: Range) -> Range:
        low, high = limits(r, f * taken(graph, lost(*rs), home) if rs else jnp.zeros(()))
        return (low, high) if identical else (taken(graph, low, where), taken(graph, high, where))

    return scaled(graph, graph.hinted(out, (group, *others), run), None if scalar(gain) == 1 else gain)


def _lost(graph: Graph, ref: Ref, terms: Ref) -> tuple[tuple[Ref, ...], Callable[..., jax.Array]]:
    """(whose ranges it takes, how far the program's sum for each group may be from the node's by rounding)."""
    while ref != terms:
        node = graph.node(ref)
        if node.slack is not None:
            return tuple(Ref(i) for i in node.slack[0]), functools.partial(node.slack[1], None)
        ref = Ref(node.inputs[0])
    return (), lambda: jnp.zeros(())


def _centred(graph: Graph, ref: Ref) -> tuple[int, ...] | None:
    """The axes along which the values sum to 0, because their mean has been taken off."""
    node = graph.node(ref)
    if not isinstance(node, Sum) or node.sign > 0:
        return None
    mean = mean_of(graph, Ref(node.inputs[1]))
    return mean.axes if mean is not None and mean.terms == Ref(node.inputs[0]) and spread_back(graph, mean) else None


def _same(graph: Graph, x: Ref, group: Ref) -> np.ndarray | None:
    """For every element of x the element of `group` that has the same value, if x is the group's values laid out again."""
    nx, ng = graph.node(x), graph.node(group)
    if x == group:
        shape = graph.of_row(nx.shape)
        return np.arange(math.prod(shape)).reshape(shape)
    a, b = copied(graph, x), copied(graph, group)
    if a is not None and b is not None and a.source == b.source and a.factor == b.factor:
        return _found(a.picked, b.picked)
    if not (isinstance(nx, Sum) and isinstance(ng, Sum) and nx.sign == ng.sign == -1):
        return None
    # both v - mean(v), each with copies of its own: the same element of v, and a mean of the same elements
    a, b = copied(graph, Ref(nx.inputs[0])), copied(graph, Ref(ng.inputs[0]))
    if a is None or b is None or a.source != b.source or a.factor != b.factor:
        return None
    where = _found(a.picked, b.picked)
    mine, theirs = _members(graph, Ref(nx.inputs[1]), a.source), _members(graph, Ref(ng.inputs[1]), a.source)
    if where is None or mine is None or theirs is None or mine.shape[-1] != theirs.shape[-1]:
        return None
    return where if (mine == theirs.reshape(-1, theirs.shape[-1])[where]).all() else None


def _found(picked: np.ndarray, among: np.ndarray) -> np.ndarray | None:
    """Where in `among`, whose entries are all different, each entry stands."""
    order = np.argsort(among, axis=None)
    entries = among.reshape(-1)[order]
    if (np.diff(entries) == 0).any() or (entries[:1] < 0).any() or picked.size == 0:
        return None
    at = np.minimum(np.searchsorted(entries, picked), entries.size - 1)
    return order[at] if (entries[at] == picked).all() else None


def _members(graph: Graph, ref: Ref, source: Ref) -> np.ndarray | None:
    """[*shape, N]: the elements of `source` whose mean stands at each element."""
    mean = mean_of(graph, ref)
    terms = None if mean is None else copied(graph, mean.terms)
    if mean is None or terms is None or terms.source != source or terms.factor != 1 or (mean.picked < 0).any():
        return None
    n = math.prod(terms.picked.shape[a] for a in mean.axes)
    rows = np.moveaxis(terms.picked, mean.axes, range(-len(mean.axes), 0)).reshape(-1, n)
    return np.sort(rows, axis=1)[mean.picked]


def _limits(axes: tuple[int, ...], f: float, eps: float, centred: bool) -> Callable[[Range, jax.Array], Range]:
    def run(r: Range, unsure: jax.Array) -> Range:
        lo, hi = r
        n = math.prod(lo.shape[a] for a in axes)
        least = jnp.square(jnp.where((lo < 0) & (hi > 0), 0, jnp.minimum(jnp.abs(lo), jnp.abs(hi))))
        most = jnp.square(jnp.maximum(jnp.abs(lo), jnp.abs(hi)))
        low, high = (_rest(v, axes) for v in (least, most))
        room = 1 + 8 * float(jnp.finfo(lo.dtype).eps) * (n + 8)  # for rounding, here and in the program

        def at(c: jax.Array, s: jax.Array, eps: jax.Array) -> jax.Array:
            """c / sqrt(f (c^2 + s) + eps), also for infinite c; infinite where that may not be a root."""
            share = s / jnp.square(c)
            if centred:
                share = jnp.maximum(share, 1 / max(n - 1, 1e-9))
            z = jnp.sign(c) / jnp.sqrt(jnp.maximum(f * (1 + share) + eps / jnp.square(c), 0))
            return jnp.where(jnp.isnan(z), jnp.sign(c) / math.sqrt(f), z)

        def highest(c: jax.Array) -> jax.Array:
            # c squared must not round to 0; and between 0 and minus that number, 0 is all that is known
            up, down = at(jnp.maximum(c, _SMALL), low, eps - unsure) * room, at(c, high, eps + unsure) / room
            return jnp.where(c > 0, up, jnp.where((c < -_SMALL) & jnp.isfinite(jnp.square(c)), down, 0))

        return -highest(-lo), highest(hi)

    return run


def _rest(v: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The sum of all others along the axes: by sums from both sides, because taking one off the total would round to nothing."""
    shape = v.shape
    kept = [i for i in range(v.ndim) if i not in axes]
    flat = jnp.transpose(v, (*kept, *axes)).reshape(*(shape[i] for i in kept), -1)
    zero = jnp.zeros_like(flat[..., :1])
    before = jnp.concatenate([zero, jnp.cumsum(flat, -1)[..., :-1]], -1)
    after = jnp.concatenate([jnp.flip(jnp.cumsum(jnp.flip(flat, -1), -1), -1)[..., 1:], zero], -1)
    laid = (before + after).reshape(*(shape[i] for i in kept), *(shape[i] for i in axes))
    return jnp.transpose(laid, [int(i) for i in np.argsort((*kept, *axes))])
