"""One round of branch and bound inside the network: the root by alpha-CROWN, then many subproblems side by side by beta-CROWN."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core._model import Model
from . import _alpha, _beta, _beta_cuts
from ._backward import dense
from ._crown import tightened
from ._lines import carried
from ._method import by_lines
from ._problem import Known
from ._run import box_problem, on_platform


class Root(NamedTuple):
    """[C, m] bounds of the whole region, the size of what they were summed from, and the lane that each clause starts from."""

    lower: jax.Array
    size: jax.Array
    lanes: _beta.Subproblem


class Grown(NamedTuple):
    """Of every lane: [D, m] bounds and the size of what they were summed from, the lane optimised, which element to cut next and where,
    [D, n] the point where the bound is least."""

    lower: jax.Array
    size: jax.Array
    lanes: _beta.Subproblem
    element: jax.Array
    point: jax.Array
    corner: jax.Array


def bound_root(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, known: Known, spec: jax.Array, at: jax.Array, *,
    steps: int, open: int, sound: bool, budget: int,
) -> Root:  # fmt: skip
    """CROWN, then alpha-CROWN with `steps` (none: CROWN only), of forms spec [C, m, K], at [C, m] over the box lo, hi [n].

    known: ranges of the carried nodes to start from. Pure.
    """

    def run(model: Model, lo: jax.Array, hi: jax.Array, known: Known, spec: jax.Array, at: jax.Array, *, native: bool) -> Root:
        how = {"sound": sound, "rows": 1, "budget": budget, "native": native}
        problem = box_problem(model, shape, lo, hi, spec.reshape(-1, spec.shape[-1]), at.reshape(-1), **how)
        start = dict(zip(carried(problem.graph, problem.out), known, strict=True))
        if steps:
            lower, ranges, slopes = _alpha.optimised(problem, steps, 0.3, open, start)
        else:
            ranges, slopes = tightened(problem, start), {}
            lower = by_lines(problem, ranges)
        forms, _ = problem.walked(ranges)
        layers = tuple(ranges[t] for t in carried(problem.graph, problem.out))

        def lane(spec: jax.Array, at: jax.Array, slopes: _alpha.Slopes) -> _beta.Subproblem:
            return _beta.started(box_problem(model, shape, lo, hi, spec, at, **how), layers, slopes)

        by_clause = {i: v.reshape(*at.shape, *v.shape[1:]) for i, v in slopes.items() if v.shape[0] == at.size}
        return Root(lower.reshape(at.shape), problem.magnitude(forms).reshape(at.shape), jax.vmap(lane)(spec, at, by_clause))

    return on_platform(run, model, lo, hi, known, spec, at)


def grow(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, lanes: _beta.Subproblem, spec: jax.Array, at: jax.Array, *,
    steps: int, sound: bool, budget: int,
) -> Grown:  # fmt: skip
    """Beta-CROWN on every lane over the box lo, hi [n], spec [D, m, K], at [D, m]; then the best of a few cuts. Pure."""

    def run(model: Model, lo: jax.Array, hi: jax.Array, lanes: Any, spec: jax.Array, at: jax.Array, *, native: bool) -> Grown:
        def one(lane: _beta.Subproblem, spec: jax.Array, at: jax.Array) -> Grown:
            problem = box_problem(model, shape, lo, hi, spec, at, sound=sound, rows=rows, budget=budget, native=native)
            lower, lane = _beta.optimised(problem, lane, steps)
            elements, forms = _beta_cuts.candidates(problem, lane, lower, _beta_cuts.tried(problem))
            element, point = _beta_cuts.best_cut(problem, lane, elements)
            slope = dense(forms[0]).reshape(len(at), -1)
            corner = jnp.where(slope[jnp.argmax(lower)] > 0, lo, hi)
            return Grown(lower, problem.magnitude(forms), lane, element, point, corner)

        return jax.vmap(one)(lanes, spec, at)

    rows = len(spec)
    return on_platform(run, model, lo, hi, lanes, spec, at)


def cut(lanes: _beta.Subproblem, element: jax.Array, point: jax.Array) -> _beta.Subproblem:
    """Both halves of every lane: first all lower ones, then all upper ones."""
    halves = [jax.vmap(lambda lane, e, p, up=up: _beta_cuts.child(lane, e, p, up))(lanes, element, point) for up in (False, True)]
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *halves)
