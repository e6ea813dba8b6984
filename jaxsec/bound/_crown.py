"""CROWN's ranges: those of the nodes that matter, tightened one after the other by linear forms walked back to the input."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._backward import Form, backward
from ._graph import Graph
from ._lines import carried, only_sign_matters
from ._nodes import Contract, Curve, Kink, Lines, Range, Scale, Sum
from ._patches import started
from ._problem import Problem


def tightened(problem: Problem, known: Mapping[int, Range] | None = None, then: Callable[..., Range] | None = None) -> list[Range]:
    """The ranges of all nodes, those that lines depend on by CROWN, starting from what is `known`.

    Where only kinks read a node, its elements of known sign are left alone: a kink is exact there. then: (node, ranges, lines) -> the
    node's range, tightened further.
    """
    graph = problem.graph
    found = dict(known or {})
    # what is known of a node is final once it has been tightened: ranges and lines before it are computed once
    ranges: list[Range] = []
    lines: dict[int, Lines] = {}
    for target in carried(graph, problem.out):
        ranges = problem.intervals(found, target, ranges)
        lines |= problem.lines(target, ranges, done=lines)
        ranges[target] = refined(problem, target, ranges, lines)
        if then is not None:
            ranges[target] = then(target, ranges, lines)
    return problem.intervals(found, so_far=ranges)


def refined(problem: Problem, target: int, ranges: Sequence[Range], lines: Mapping[int, Lines]) -> Range:
    """One node's range by forms `+e_i` and `-e_i`, for every element, or for those of open sign only."""
    shape = ranges[target][0].shape
    charged = problem.charges(target, ranges, lines)
    order, rounds, chunk = work_list(problem, target, ranges[target])

    def step(i: Any, state: Range) -> Range:
        low, high = state
        rows = lax.dynamic_slice(order, (i * chunk,), (chunk,))
        down, up = both_ends(problem, target, rows, ranges, lines, charged=charged)
        return low.at[rows].max(down, mode="drop"), high.at[rows].min(up, mode="drop")

    low, high = each_chunk(step, rounds, ranges[target])
    return low.reshape(shape), jnp.maximum(low, high).reshape(shape)


def work_list(problem: Problem, target: int, r: Range, most: int | None = None, at_once: int | None = None) -> tuple[jax.Array, Any, int]:
    """(elements to walk back from, those to leave alone last; rounds of `chunk` of them; chunk). One round is a plain 1.

    most: the elements of the largest interval only. at_once: the largest chunk.
    """
    lo, hi = (v.reshape(-1) for v in r)
    size, chunk = lo.size, min(problem.chunk(target), at_once or lo.size)
    if size <= chunk and (most is None or size <= most):
        return jnp.arange(size), 1, size
    sign_only = only_sign_matters(problem.graph, target, problem.graph.consumers())
    wanted = (lo < 0) & (hi > 0) if sign_only else jnp.ones(size, bool)
    count = jnp.sum(wanted)
    if most is not None:
        width = jnp.where(wanted, jnp.minimum(-lo, hi) if sign_only else hi - lo, -1)
        order, count = jnp.argsort(-width, stable=True), jnp.minimum(count, most)
        chunk = min(chunk, most)
        order = jnp.where(jnp.arange(size) < count, order, size)
    else:
        order = jnp.argsort(~wanted, stable=True)
    order = jnp.concatenate([order, jnp.full(-size % chunk, size)])  # beyond the end: a form of zeros, and nothing written
    return order, -(-count // chunk), chunk


def each_chunk(step: Callable[[Any, Range], Range], rounds: Any, r: Range) -> Range:
    """Flat ends after all rounds."""
    state = r[0].reshape(-1), r[1].reshape(-1)
    return step(0, state) if isinstance(rounds, int) else lax.fori_loop(0, rounds, step, state)


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
