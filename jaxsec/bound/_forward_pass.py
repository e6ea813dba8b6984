"""Intervals of every node, in the order of evaluation."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from ._graph import Graph
from ._nodes import Curve, Input, Range
from ._rounding import departure, evaluation_error, widened


def intervals(
    graph: Graph,
    inputs: Sequence[Range],
    known: Mapping[int, Range] | None = None,
    upto: int | None = None,
    *,
    sound: bool = False,
    so_far: Sequence[Range] = (),
) -> list[Range]:
    """The range of every node (up to and with `upto`), intersected with what is `known` of it already.

    sound: every range also holds the node's value as a machine computes it. so_far: the ranges of the first nodes, which stay.
    """
    found = list(so_far)
    known = known or {}
    for index in range(len(so_far), len(graph.nodes) if upto is None else upto + 1):
        r = range_of(graph, index, inputs, found, sound)
        found.append(intersection(r, known[index]) if index in known else r)
    return found


def range_of(graph: Graph, index: int, inputs: Sequence[Range], found: Sequence[Range], sound: bool) -> Range:
    """One node's range, from those of all nodes before it."""
    node = graph.nodes[index]
    before = [found[i] for i in node.inputs]
    if isinstance(node, Input):
        r = inputs[node.position]
    elif isinstance(node, Curve):
        r = node.unary.interval(*before[0], sound)
    else:
        r = node.interval(*before)
    if sound:
        # twice: what the machine loses on its value, and what was lost here on its bounds
        error = evaluation_error(node, before, r)
        r = widened(r, 2 * error + departure(node, r, found))
    if node.hint is not None:
        indices, hint = node.hint
        r = intersection(r, hint(*(found[i] for i in indices)))
    return _within(r)


def _within(r: Range) -> Range:
    """An end that overflowed inward says no more than the largest number does: the exact value is beyond that, and need not be infinite."""
    if not jnp.issubdtype(r[0].dtype, jnp.floating):
        return r
    most = float(jnp.finfo(r[0].dtype).max)
    return jnp.minimum(r[0], most), jnp.maximum(r[1], -most)


def intersection(a: Range, b: Range) -> Range:
    """Both hold. Where they do not meet (an empty set, or rounding) the result is one point."""
    lo, hi = jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])
    if lo.dtype == jnp.bool_:
        return a[0] | b[0], a[1] & b[1]
    return lo, jnp.maximum(lo, hi)
