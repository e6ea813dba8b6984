"""Ranges of a layer tightened beyond what one set of lines can say: a small tree of cuts in the layers before it, for every element.

What MILP refinement does for the ranges of an open layer (Singh et al. 2019, section 4), by beta-CROWN instead of a solver: every element's
bound is the least over 2^depth subproblems, each with slopes and multipliers of its own. All subproblems of branch and bound on the
output then start from these ranges. Where networks are deep this decides more than the same time spent on the output's own tree.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..core._model import Model
from . import _beta, _beta_cuts
from ._lines import carried, only_sign_matters
from ._problem import Known, Problem
from ._region import Region
from ._run import of_model, on_platform, output

_TRIES = 4


def refinable(model: Model, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """[number of carried nodes] whether kinks alone read the node and there is something to cut before it. Pure."""
    graph = of_model(model, jnp.zeros((1, *shape), dtype), False)
    consumers = graph.consumers()
    return jnp.asarray([bool(carried(graph, t)) and only_sign_matters(graph, t, consumers) for t in carried(graph, output(graph))])


def refine(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, known: Known, rows: jax.Array, sign: jax.Array, *,
    layer: int, depth: int, steps: int, sound: bool, budget: int,
) -> jax.Array:  # fmt: skip
    """[R] lower bounds of `sign * element` for elements rows [R] of the carried node at position `layer`, over the box lo, hi [n].

    known: of all carried nodes. Every bound holds by itself. Pure; one program for each layer and R.
    """

    def run(model: Model, lo: Any, hi: Any, known: Any, rows: Any, sign: Any, *, native: bool) -> jax.Array:
        box = (lo.reshape(1, *shape), hi.reshape(1, *shape))
        graph = of_model(model, box[0], native)
        names = carried(graph, output(graph))
        target = names[layer]
        before = tuple(known[names.index(t)] for t in carried(graph, target))
        node = graph.nodes[target]

        def one(asked: tuple[jax.Array, jax.Array]) -> jax.Array:
            row, s = asked
            spec = (jax.nn.one_hot(row, known[layer][0].size, dtype=node.dtype) * s).reshape(1, *node.shape)
            problem = Problem(graph, target, Region([box]), spec, jnp.zeros(1, node.dtype), sound, 1 << depth, budget)
            return _tree(problem, _beta.started(problem, before, {}), depth, steps)

        return lax.map(one, (rows, sign), batch_size=4)

    return on_platform(run, model, lo, hi, known, rows, sign)


def _tree(problem: Problem, lane: _beta.Subproblem, depth: int, steps: int) -> jax.Array:
    """The least bound over all leaves of a full tree; a problem of one form.

    All 2^depth places are there from the start. At level d those that agree in their lowest d bits are one subproblem: its state and its
    cut are taken from the place that stands for it, so that the two halves always meet at the same point.
    """
    n = 1 << depth
    place = jnp.arange(n)
    lanes = jax.tree.map(lambda v: jnp.broadcast_to(v, (n, *v.shape)), lane)

    def chosen(lane: _beta.Subproblem) -> tuple[jax.Array, _beta.Subproblem, jax.Array, jax.Array]:
        bound, lane = _beta.optimised(problem, lane, steps)
        elements, _ = _beta_cuts.candidates(problem, lane, jnp.full(1, -1.0, problem.at.dtype), _TRIES)
        return bound[0], lane, *_beta_cuts.best_cut(problem, lane, elements)

    def half(lane: _beta.Subproblem, element: jax.Array, point: jax.Array, upper: jax.Array) -> _beta.Subproblem:
        both = (_beta_cuts.child(lane, element, point, side) for side in (True, False))
        return jax.tree.map(lambda a, b: jnp.where(upper, a, b), *both)

    def level(lanes: _beta.Subproblem, d: jax.Array) -> tuple[_beta.Subproblem, jax.Array]:
        bounds, lanes, element, point = jax.vmap(chosen)(lanes)
        stands = place & ((1 << d) - 1)
        lanes, element, point = jax.tree.map(lambda v: v[stands], (lanes, element, point))
        return jax.vmap(half)(lanes, element, point, (place >> d) & 1 == 1), jnp.min(bounds)

    _, least = lax.scan(level, lanes, jnp.arange(depth + 1))  # at the last level the cuts are not used: one program for all levels
    return jnp.max(least)
