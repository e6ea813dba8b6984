"""Looking back along the graph: what a node is a multiple, a copy, or a sum of. Functions are recognised by what they compute so far."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._graph import Graph, Ref, concrete, scalar, steady
from ._nodes import Curve, Kink, Move, Node, Scale, Sum

# Elements of one row of the batch (so that batches of all sizes are read alike) beyond which nothing is recognised, and of the whole batch.
# Beyond the first float32 cannot count them either.
_MOST_ELEMENTS, _MOST_IN_ALL = 1 << 24, 1 << 29


def multiple(graph: Graph, ref: Ref) -> tuple[Any, Any, Ref]:
    """(scale, bias, inner) with ref = scale * inner + bias elementwise, as far back as that goes."""
    scale, bias = np.float64(1), np.float64(0)
    while isinstance(node := graph.node(ref), Scale) and graph.nodes[node.inputs[0]].shape == node.shape:
        s, b = (1.0 if node.scale is None else _exact(node.scale)), (0.0 if node.bias is None else _exact(node.bias))
        bias = steady(lambda t, s, b: t + s * b, bias, scale, b)
        scale = steady(lambda s, t: s * t, scale, s)
        ref = Ref(node.inputs[0])
    return scale, bias, ref


def _exact(v: Any) -> Any:
    """Concrete numbers in float64, so that constants multiply without rounding."""
    return v if isinstance(v, Tracer) else np.asarray(v, np.float64)


@dataclasses.dataclass(frozen=True)
class Copied:
    """`ref = factor * source[picked]`: each element is a multiple of one element of the source. `picked` has ref's shape; -1 is a zero."""

    factor: float
    source: Ref
    picked: np.ndarray

    def along(self, axes: tuple[int, ...]) -> bool:
        """All elements along these axes are one and the same."""
        first = self.picked
        for axis in axes:
            first = np.take(first, [0], axis)
        return bool((self.picked == first).all())


def copied(graph: Graph, ref: Ref, wanted: Callable[[Node], bool] = lambda node: True) -> Copied | None:
    """As far back as elements are only scaled by one known number and moved.

    None where the source is not wanted (looked at first, because following elements costs a run of every move), or too large.
    """
    factor, moves = 1.0, []
    while True:
        node = graph.node(ref)
        if isinstance(node, Scale) and node.bias is None and (s := scalar(node.scale)) is not None:
            factor *= s
        elif isinstance(node, Move) and len(node.inputs) == 1 and node.summed == 1 and node.bias is None:
            moves.append(node)
        else:
            break
        ref = Ref(node.inputs[0])
    size = int(np.prod(graph.node(ref).shape))
    if not wanted(graph.node(ref)):
        return None
    most = max(size, *(int(np.prod(m.shape)) for m in moves), 0)
    if most >= min(_MOST_ELEMENTS * graph.rows, _MOST_IN_ALL):
        return None
    picked = np.arange(1, size + 1).reshape(graph.node(ref).shape)
    for move in reversed(moves):
        dtype = graph.node(Ref(move.inputs[0])).dtype if most < _MOST_ELEMENTS else np.int32
        out = steady(lambda v, move=move: jnp.asarray(move.run(v)), np.asarray(picked, dtype))
        if isinstance(out, Tracer):
            return None  # moved by traced indices
        if most >= _MOST_ELEMENTS and not jnp.issubdtype(out.dtype, jnp.integer):
            return None  # numbers that float32 cannot count
        picked = np.asarray(out).astype(np.int64)
    return Copied(factor, ref, picked - 1)


@dataclasses.dataclass(frozen=True)
class Total:
    """`ref = factor * sum(terms over axes)[picked]`."""

    factor: float
    terms: Ref
    axes: tuple[int, ...]
    picked: np.ndarray


def total(graph: Graph, ref: Ref) -> Total | None:
    """The sum that a node is a multiple of, however it is laid out again."""
    at = copied(graph, ref, lambda node: isinstance(node, Move) and bool(node.over))
    node = None if at is None else graph.node(at.source)
    if at is None or not isinstance(node, Move) or not node.over:
        return None
    return Total(at.factor, Ref(node.inputs[0]), node.over, at.picked)


def places(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """For every element the place of the sum over `axes` that it is a term of; of `shape`."""
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    return np.broadcast_to(np.arange(int(np.prod(kept))).reshape(kept), shape)


def spread_back(graph: Graph, of: Total) -> bool:
    """The total, laid out again, stands at every one of its own terms."""
    shape = graph.node(of.terms).shape
    return of.picked.shape == shape and bool((of.picked == places(shape, of.axes)).all())


def mean_of(graph: Graph, ref: Ref) -> Total | None:
    """The total where it is the mean of its terms."""
    of = total(graph, ref)
    if of is None:
        return None
    shape = graph.node(of.terms).shape
    return of if abs(of.factor * np.prod([shape[a] for a in of.axes]) - 1) < 1e-6 else None


def nonnegative(graph: Graph, ref: Ref) -> bool:
    """Never below 0, by what it is made of."""
    node = graph.node(ref)
    inner = [Ref(i) for i in node.inputs]
    if isinstance(node, Curve):
        return node.unary.curve.least >= 0
    if isinstance(node, Kink):
        neg, pos = scalar(node.neg), scalar(node.pos)
        return neg is not None and pos is not None and neg <= 0 <= pos
    if isinstance(node, Scale) and not (_positive(node.scale) and _positive(node.bias)):
        return False
    if isinstance(node, Move) and not _positive(node.bias):
        return False
    if isinstance(node, Sum) and node.sign < 0:
        return False
    return isinstance(node, Scale | Move | Sum) and all(nonnegative(graph, v) for v in inner)


def _positive(v: Any) -> bool:
    array = None if v is None else concrete(v)
    return v is None or (array is not None and bool((array >= 0).all()))


def curve_of(graph: Graph, ref: Ref, *names: str) -> Ref | None:
    """The argument, where the node is one of these curves. A power names itself with its exponent: "integer_pow 2"."""
    node = graph.node(ref)
    if not isinstance(node, Curve):
        return None
    name = node.unary.name + (f" {node.unary.parameter:g}" if node.unary.parameter is not None else "")
    return Ref(node.inputs[0]) if name in names else None
