"""Beta-CROWN: bounds of many subproblems side by side, each with its own decided signs, slopes and multipliers.

A subproblem is what is left of one row's region after curves' arguments were cut in two, again and again. All that it knows of the
layers is their ranges: a cut at p leaves `x <= p` or `x >= p`, and inside a subproblem every such end is an inequality that holds, so it
may be added to the bound with a multiplier that is not negative. Source: Wang et al. 2021 (beta-CROWN), theorem 3.1, with the cuts of any
curve (Shi et al. 2024, GenBaB) as the same thing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._backward import Split, Turn, dotted
from ._lines import carried
from ._nodes import Curve, Kink, Range
from ._problem import Known, Problem
from ._region import known
from ._rounding import gamma, largest, tiny

# First lengths of steps on slopes, and on multipliers in units of the form's coefficients; how much of the averaged gradient is kept.
# Measured on 128 subproblems each of two rows of mnist_cnn_a_adv: 10 steps leave mean bounds of -0.299 and -0.031; of Adam, with long steps
# (0.7, 0.1), 10 leave -0.378 and -0.069, and 20 leave -0.243 and -0.03, at twice the cost of a step.
_TURN, _PUSH, _KEPT = 0.2, 0.1, 0.5


class Subproblem(NamedTuple):
    """One lane. Tuples run over the carried nodes (`layers`), in order; `slopes` over the curves before the output."""

    known: Known
    cut: tuple[jax.Array, ...]  # bool: elements that were cut, whose multipliers are free
    slopes: tuple[jax.Array, ...]  # in [0, 1]
    above: tuple[jax.Array, ...]  # multipliers of `x >= lower end`, [S, *shape]
    below: tuple[jax.Array, ...]  # and of `x <= upper end`


def started(problem: Problem, known: Known, climbed: Mapping[int, jax.Array]) -> Subproblem:
    """The lane before any cut, with the slopes that have `climbed`, CROWN's for other nodes, and no multipliers."""
    graph, s = problem.graph, len(problem.at)
    names = carried(graph, problem.out)
    ranges = problem.intervals(dict(zip(names, known, strict=True)))
    slopes = []
    for i in problem.lines_before(problem.out):
        node = graph.nodes[i]
        assert isinstance(node, Kink | Curve)
        start = node.start(*(jnp.broadcast_to(v, (s, *node.shape)) for v in ranges[node.inputs[0]]))
        slopes.append(climbed[i] if i in climbed and climbed[i].shape == start.shape else start)
    zeros = tuple(jnp.zeros((s, *r[0].shape), r[0].dtype) for r in known)
    return Subproblem(known, tuple(jnp.zeros(r[0].shape, bool) for r in known), tuple(slopes), zeros, zeros)


def multipliers(problem: Problem, lane: Subproblem) -> dict[int, Split]:
    """What `x >= lower end` and `x <= upper end` add to a form; an end that is infinite says nothing, whatever its multiplier.

    The ends are those that were cut. In an empty subproblem they contradict the intervals of the layers before, and adding both to the
    bound is what shows it.
    """
    found = {}
    for t, (lo, hi), above, below in zip(carried(problem.graph, problem.out), lane.known, lane.above, lane.below, strict=True):
        above, below = jnp.where(jnp.isfinite(lo), above, 0), jnp.where(jnp.isfinite(hi), below, 0)
        lo, hi = jnp.where(jnp.isfinite(lo), lo, 0), jnp.where(jnp.isfinite(hi), hi, 0)
        at = dotted(above, lo) - dotted(below, hi)
        if problem.sound:  # the constant's own sum, and the form's one subtraction
            size = dotted(above + below, largest((lo, hi)))
            at = at - 1.02 * gamma(lo.size + 8, at.dtype) * size - lo.size * tiny(at.dtype)
        found[t] = Split(below - above, at)
    return found


def turned(problem: Problem, lane: Subproblem) -> Turn:
    by_node = dict(zip(problem.lines_before(problem.out), lane.slopes, strict=True))

    def turn(node: int, shape: tuple[int, ...], r: Range) -> jax.Array | None:
        t = by_node[node]
        return t if t.shape == shape else None

    return turn


def lane_ranges(problem: Problem, lane: Subproblem) -> list[Range]:
    return problem.intervals(dict(zip(carried(problem.graph, problem.out), lane.known, strict=True)))


def value(problem: Problem, lane: Subproblem, ranges: list[Range] | None = None) -> jax.Array:
    """[S] the lane's bounds; `ranges` of all nodes where they are known."""
    return known(_summed(problem, lane, lane_ranges(problem, lane) if ranges is None else ranges))


def _summed(problem: Problem, lane: Subproblem, ranges: list[Range]) -> jax.Array:
    forms, at = problem.walked(ranges, turn=turned(problem, lane), splits=multipliers(problem, lane))
    return problem.region.summed(forms, at, problem.sound)


def optimised(problem: Problem, lane: Subproblem, steps: int) -> tuple[jax.Array, Subproblem]:
    """([S] the best bounds met, the lane with the slopes and multipliers of the last step) by steps along the signs of averaged gradients.

    The bound is concave and piecewise linear in them, the slopes fill a box and few steps are taken from a parent's: all elements that
    are not where they belong move at full length, which shrinks to a twentieth.
    """
    ranges = lane_ranges(problem, lane)  # the same at every step
    scale = jnp.maximum(jnp.max(jnp.abs(problem.spec)), 1e-12)

    def with_free(free: Any) -> Subproblem:
        return lane._replace(slopes=free[0], above=free[1], below=free[2])

    def objective(free: Any) -> tuple[jax.Array, jax.Array]:
        bounds = _summed(problem, with_free(free), ranges)
        return jnp.sum(bounds), known(bounds)  # the plain sum: its derivative is 1 everywhere, and not computed again at every element

    def step(state: Any, i: jax.Array) -> tuple[Any, None]:
        free, mean, best = state
        (_, bounds), gradient = jax.value_and_grad(objective, has_aux=True)(free)
        mean = jax.tree.map(lambda m, g: jnp.nan_to_num(_KEPT * m + (1 - _KEPT) * g), mean, gradient)  # NaN where a bound is infinite
        length = 0.05 ** (i / max(steps, 1))
        slopes = tuple(jnp.clip(v + _TURN * length * jnp.sign(m), 0, 1) for v, m in zip(free[0], mean[0], strict=True))
        pushed = (
            tuple(jnp.where(c, jnp.maximum(v + _PUSH * length * scale * jnp.sign(m), 0), 0) for c, v, m in zip(lane.cut, *of, strict=True))
            for of in zip(free[1:], mean[1:], strict=True)
        )
        return ((slopes, *pushed), mean, jnp.fmax(best, bounds)), None

    free = (lane.slopes, lane.above, lane.below)
    state = (free, jax.tree.map(jnp.zeros_like, free), jnp.full(len(problem.at), -jnp.inf, problem.at.dtype))
    (free, _, best), _ = jax.lax.scan(step, state, jnp.arange(steps))
    last = with_free(free)
    return jnp.fmax(best, value(problem, last, ranges)), last
