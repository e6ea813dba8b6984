"""How much of a bound's looseness each curve is to blame for: the score by which branch and bound chooses what to split.

The bound is linear in the heights of all lines, so its derivative with respect to a line's height is the weight that the walk gave to
that line. Weight times the gap between the line and the function is what a split could win there at most.
Source: the score of BaBSR (Bunel et al. 2020, section 5) written as a derivative; for inputs the spread over directions is ours.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._backward import Turn, backward
from ._nodes import Affine, Curve, Input, Kink, Lines, Product, Range
from ._problem import Problem


def weighed(
    problem: Problem, ranges: Sequence[Range], turn: Turn | None = None, splits: Any = None
) -> tuple[jax.Array, dict[int, jax.Array], dict[int, Any]]:
    """([S] bounds, {curve node: [S, *shape] what its lines cost each bound}, {input: form})."""
    graph = problem.graph
    lines = problem.lines(problem.out, ranges)
    charged = problem.charges(problem.out, ranges, lines)
    heights = {i: (jnp.zeros_like(v.upper_at), jnp.zeros_like(v.upper_at)) for i, v in lines.items()}

    def bound(spec: jax.Array, at: jax.Array, heights: dict[int, tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, dict[int, Any]]:
        how = {"charged": charged, "turn": turn, "splits": splits, "heights": heights}
        forms, at = backward(graph, problem.out, spec, at, ranges, lines, **how)
        return problem.least(forms, at), forms

    # a row's bound depends on no other row's forms; and XLA 0.10.2 fuses the derivatives of all rows into CPU code that ends the process
    def alone(spec: jax.Array, at: jax.Array) -> Any:
        total, pull, forms = jax.vjp(lambda heights: bound(spec[None], at[None], heights), heights, has_aux=True)
        return total[0], pull(jnp.ones_like(total))[0], jax.tree.map(lambda v: v[0], forms)

    if turn is None and splits is None:
        values, weights, forms = jax.vmap(alone)(problem.spec, problem.at)
    else:
        values, pull, forms = jax.vjp(lambda heights: bound(problem.spec, problem.at, heights), heights, has_aux=True)
        (weights,) = jax.vmap(pull)(jnp.eye(len(values), dtype=values.dtype))
    costs = {}
    for i, line in lines.items():
        below, above = gaps(graph.nodes[i], ranges[graph.nodes[i].inputs[0]], line)
        costs[i] = weights[i][0] * below - weights[i][1] * above
    return values, costs, forms


def gaps(node: Any, r: Range, line: Lines) -> tuple[jax.Array, jax.Array]:
    """The largest distance of the lower and of the upper line from the function, elementwise.

    A kink's line through the kink counts as 0: which of the two it should be is decided by the slopes' optimiser, not by a split.
    """
    lo, hi = r
    if isinstance(node, Kink):
        open_ = (lo < 0) & (hi > 0)
        convex = jnp.asarray(node.pos) >= jnp.asarray(node.neg)
        above = jnp.where(open_ & convex & jnp.isfinite(line.upper_at), line.upper_at, 0)
        below = jnp.where(open_ & ~convex & jnp.isfinite(line.lower_at), -line.lower_at, 0)
        return below, above
    assert isinstance(node, Curve)
    low, high = jnp.where(jnp.isfinite(lo), lo, 0), jnp.where(jnp.isfinite(hi), hi, 0)
    below, above = jnp.zeros_like(low), jnp.zeros_like(low)
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = low + t * (high - low)
        f = node.unary.value(x)
        below = jnp.maximum(below, f - (line.lower_slope * x + line.lower_at))
        above = jnp.maximum(above, line.upper_slope * x + line.upper_at - f)
    return tuple(jnp.where(jnp.isfinite(v), v, 0) for v in (below, above))  # pyright: ignore[reportReturnType]


def directions(problem: Problem, ranges: Sequence[Range], lines: dict[int, Lines], elements: jax.Array) -> dict[int, jax.Array]:
    """{curve node: [F, *shape]}: how far each of the input `elements` [F] moves the node's argument, to first order, over its interval."""
    graph = problem.graph
    widths = jnp.concatenate([(hi - lo).reshape(-1) for lo, hi in problem.inputs])

    def moved(flat: jax.Array) -> dict[int, jax.Array]:
        values: list[jax.Array] = []
        parts, at = [], 0
        for lo, _ in problem.inputs:
            parts.append(flat[at : at + lo.size].reshape(lo.shape))
            at += lo.size
        for i, node in enumerate(graph.nodes):
            before = [values[j] for j in node.inputs]
            if isinstance(node, Input):
                values.append(parts[node.position])
            elif isinstance(node, Affine):
                values.append(node.op(*before))
            elif isinstance(node, Kink | Curve) and i in lines:
                slope = jnp.where(jnp.isfinite(lines[i].upper_slope), lines[i].upper_slope, 0)
                values.append(slope * before[0])
            elif isinstance(node, Product):
                middle = [0.5 * (ranges[j][0] + ranges[j][1]) for j in node.inputs]
                values.append(node.run(before[0], middle[1]) + node.run(middle[0], before[1]))
            else:
                values.append(jnp.zeros(node.shape, flat.dtype))
        return {i: values[graph.nodes[i].inputs[0]] for i in lines}

    per_input = jax.vmap(moved)(jax.nn.one_hot(elements, len(widths), dtype=widths.dtype) * widths)
    return {i: jnp.abs(v) for i, v in per_input.items()}


def input_scores(problem: Problem, ranges: Sequence[Range], costs: dict[int, jax.Array], elements: jax.Array) -> jax.Array:
    """[S, F] how much of each bound's looseness halving each of the input elements [F] would remove: costs shared out by who moves the
    curve. Elements beyond the input's end move none."""
    lines = problem.lines(problem.out, ranges)
    shares = directions(problem, ranges, lines, elements)
    total = jnp.zeros((len(problem.at), len(elements)), problem.at.dtype)
    for i, cost in costs.items():
        share = shares[i] / (jnp.sum(shares[i], axis=0) + 1e-30)
        total = total + jnp.einsum("sk,nk->sn", cost.reshape(len(cost), -1), share.reshape(len(share), -1))
    return total
