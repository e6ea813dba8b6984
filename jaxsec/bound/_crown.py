"""CROWN's ranges: those of the nodes that matter, tightened one after the other by linear forms walked back to the input."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._backward import Form, backward
from ._forward_pass import intersection
from ._graph import Graph
from ._lines import carried, only_sign_matters
from ._nodes import Contract, Curve, Kink, Lines, Range, Scale, Sum
from ._patches import started
from ._problem import Problem


def tightened(problem: Problem, known: Mapping[int, Range] | None = None) -> list[Range]:
    """The ranges of all nodes, those that lines depend on by CROWN, starting from what is `known`.

    Where only kinks read a node, its elements of known sign are left alone: a kink is exact there.
    """
    graph = problem.graph
    consumers = graph.consumers()
    found = dict(known or {})
    # what is known of a node is final once it has been tightened: ranges and lines before it are computed once
    ranges: list[Range] = []
    lines: dict[int, Lines] = {}
    for target in carried(graph, problem.out):
        ranges = problem.intervals(found, target, ranges)
        lines |= problem.lines(target, ranges, done=lines)
        ranges[target] = refined(problem, target, ranges, lines, only_sign_matters(graph, target, consumers))
    return problem.intervals(found, so_far=ranges)


def refined(problem: Problem, target: int, ranges: Sequence[Range], lines: Mapping[int, Lines], sign_only: bool) -> Range:
    """One node's range by forms `+e_i` and `-e_i`, for every element, or for those of open sign only."""
    chunk = problem.chunk(target)
    lo, hi = ranges[target]
    size, shape = math.prod(lo.shape), lo.shape
    charged = problem.charges(target, ranges, lines)

    def both(rows: jax.Array) -> Range:
        return both_ends(problem, target, rows, ranges, lines, charged=charged)

    if size <= chunk:
        down, up = both(jnp.arange(size))
        return intersection((lo, hi), (down.reshape(shape), up.reshape(shape)))
    flat_lo, flat_hi = lo.reshape(-1), hi.reshape(-1)
    wanted = (flat_lo < 0) & (flat_hi > 0) if sign_only else jnp.ones(size, bool)
    order = jnp.argsort(~wanted, stable=True)
    order = jnp.concatenate([order, jnp.full(-size % chunk, size)])  # beyond the end: a form of zeros, and nothing written
    rounds = -(-jnp.sum(wanted) // chunk)

    def step(i: jax.Array, state: Range) -> Range:
        low, high = state
        rows = lax.dynamic_slice(order, (i * chunk,), (chunk,))
        down, up = both(rows)
        return low.at[rows].max(down, mode="drop"), high.at[rows].min(up, mode="drop")

    low, high = lax.fori_loop(0, rounds, step, (flat_lo, flat_hi))
    return low.reshape(shape), jnp.maximum(low, high).reshape(shape)


def both_ends(problem: Problem, target: int, rows: jax.Array, ranges: Sequence[Range], lines: Mapping[int, Lines], **how: Any) -> Range:
    """(lower, upper) [n] of the elements `rows [n]` of a node, by one walk of the forms `+e_i` and `-e_i`."""
    n, dtype = len(rows), problem.graph.nodes[target].dtype
    forms = signed(problem.graph, target, jnp.concatenate([rows, rows]), jnp.repeat(jnp.asarray([1, -1], dtype), n))
    values = problem.least(*backward(problem.graph, target, forms, jnp.zeros(2 * n, dtype), ranges, lines, **how))
    return values[:n], -values[n:]


def signed(graph: Graph, target: int, rows: jax.Array, sign: jax.Array) -> Form:
    """The forms `sign * e_row` on a node: on patches where a convolution and elementwise nodes make it."""
    node, shape = graph.nodes[target], graph.nodes[target].shape
    while isinstance(node, Scale | Sum | Kink | Curve) and graph.nodes[node.inputs[0]].shape == shape:
        node = graph.nodes[node.inputs[0]]
    if isinstance(node, Contract) and node.shape == shape and (patch := started(node, rows, sign)) is not None:
        return patch
    return jax.nn.one_hot(rows, math.prod(shape), dtype=sign.dtype).reshape(len(rows), *shape) * sign.reshape(-1, *(1,) * len(shape))
