"""Looking back along the graph: what a node is a multiple, a copy, or a sum of. Functions are recognised by what they compute so far."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._graph import Graph, Ref, concrete, scalar, steady
from ._nodes import Curve, Kink, Move, Node, Scale, Sum

# Beyond, float32 cannot count the elements of a row, and nothing is recognised.
_MOST_ELEMENTS = 1 << 24


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
    """`ref = factor * source[picked]`: each element is a multiple of one element of the source; -1 is a zero.

    `picked` is about one row, and the same for all rows of the graph: it has ref's shape there, and counts the source's elements there.
    """

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
        if node.inputs and not _counts(graph.node(Ref(node.inputs[0])).dtype):
            break  # numbers of elements are followed as values, which truth values and short integers cannot tell apart
        if isinstance(node, Scale) and node.bias is None and (s := scalar(node.scale)) is not None:
            factor *= s
        elif isinstance(node, Move) and len(node.inputs) == 1 and node.summed == 1 and node.bias is None:
            moves.append(node)
        else:
            break
        ref = Ref(node.inputs[0])
    node = graph.node(ref)
    if not _counts(node.dtype):
        return None
    shapes = [graph.of_row(v.shape) for v in (node, *moves)]
    if not wanted(node) or max(math.prod(shape) for shape in shapes) >= _MOST_ELEMENTS:
        return None
    if graph.rows > 1 and any(v.shape[:1] != (graph.rows,) for v in (node, *moves)):
        return None
    picked = _followed(moves[::-1], node, np.arange(1, math.prod(shapes[0]) + 1).reshape(shapes[0]))
    if picked is None:
        return None
    if graph.rows == 1:
        return Copied(factor, ref, picked - 1)
    numbers = np.arange(1, graph.rows + 1).reshape(-1, *(1,) * (len(node.shape) - 1))
    rows = _followed(moves[::-1], node, numbers)
    if (
        rows is None
        or (picked != picked[:1]).any()
        or (rows != np.where(picked > 0, numbers.reshape(-1, *(1,) * (picked.ndim - 1)), 0)).any()
    ):
        return None  # rows are not all treated alike, or not apart
    return Copied(factor, ref, picked[:1] - 1)


def _counts(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32


def _followed(moves: list[Move], source: Node, numbers: np.ndarray) -> np.ndarray | None:
    """Where the moves take numbers of the source's elements, which are broadcast to its shape; None where traced indices move them."""
    at = np.broadcast_to(numbers, source.shape)
    for move in moves:
        out = steady(lambda v, move=move: jnp.asarray(move.run(v)), np.asarray(at, source.dtype))
        if isinstance(out, Tracer):
            return None
        at = np.asarray(out)
    return at.astype(np.int64)


def taken(graph: Graph, v: Any, picked: np.ndarray) -> Any:
    """The elements `picked` of each row of an array."""
    if graph.rows == 1:
        return v.reshape(-1)[picked]
    return v.reshape(graph.rows, -1)[:, picked.reshape(-1)].reshape(graph.rows, *picked.shape[1:])


@dataclasses.dataclass(frozen=True)
class Total:
    """`ref = factor * sum(terms over axes)[picked]`, `picked` as in `Copied`."""

    factor: float
    terms: Ref
    axes: tuple[int, ...]
    picked: np.ndarray


def total(graph: Graph, ref: Ref) -> Total | None:
    """The sum that a node is a multiple of, however it is laid out again."""
    at = copied(graph, ref, lambda node: isinstance(node, Move) and bool(node.over))
    node = None if at is None else graph.node(at.source)
    if at is None or not isinstance(node, Move) or not node.over or (graph.rows > 1 and 0 in node.over):
        return None
    return Total(at.factor, Ref(node.inputs[0]), node.over, at.picked)


def places(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """For every element the place of the sum over `axes` that it is a term of; of `shape`."""
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    return np.broadcast_to(np.arange(int(np.prod(kept))).reshape(kept), shape)


def spread_back(graph: Graph, of: Total) -> bool:
    """The total, laid out again, stands at every one of its own terms."""
    shape = graph.of_row(graph.node(of.terms).shape)
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
