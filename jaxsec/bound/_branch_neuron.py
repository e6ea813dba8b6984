"""One round of branch and bound inside the network: the root by alpha-CROWN, then many subproblems side by side by beta-CROWN."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core._model import Model
from . import _alpha, _beta
from ._crown import tightened
from ._lines import carried
from ._method import by_intervals
from ._run import box_problem, on_platform


class Root(NamedTuple):
    """[C, m] bounds of the whole region, and the lane that each clause starts from."""

    lower: jax.Array
    lanes: _beta.Subproblem


class Grown(NamedTuple):
    """Of every lane: [D, m] bounds, the lane optimised, which element to cut next and where, [D, n] the point where the bound is least."""

    lower: jax.Array
    lanes: _beta.Subproblem
    element: jax.Array
    point: jax.Array
    corner: jax.Array


def bound_root(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, spec: jax.Array, at: jax.Array, *,
    steps: int, open: int, sound: bool, budget: int,
) -> Root:  # fmt: skip
    """CROWN, then alpha-CROWN with `steps` (none: CROWN only), of forms spec [C, m, K], at [C, m] over the box lo, hi [n]. Pure."""

    def run(model: Model, lo: jax.Array, hi: jax.Array, spec: jax.Array, at: jax.Array, *, native: bool) -> Root:
        how = {"sound": sound, "rows": 1, "budget": budget, "native": native}
        problem = box_problem(model, shape, lo, hi, spec.reshape(-1, spec.shape[-1]), at.reshape(-1), **how)
        start = tightened(problem)
        lower = jnp.fmax(problem.lower(start), by_intervals(problem, start))
        known: Any = dict(enumerate(start))
        if steps:
            lower, known = _alpha.optimised(_alpha.Walk(problem, start, open), lower, steps, 0.3)
        layers = tuple(known[t] for t in carried(problem.graph, problem.out))

        def lane(spec: jax.Array, at: jax.Array) -> _beta.Subproblem:
            return _beta.started(box_problem(model, shape, lo, hi, spec, at, **how), layers)

        return Root(lower.reshape(at.shape), jax.vmap(lane)(spec, at))

    return on_platform(run, model, lo, hi, spec, at)


def grow(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, lanes: _beta.Subproblem, spec: jax.Array, at: jax.Array, *,
    steps: int, tries: int, sound: bool, budget: int,
) -> Grown:  # fmt: skip
    """Beta-CROWN on every lane over the box lo, hi [n], spec [D, m, K], at [D, m]; then the best of `tries` cuts. Pure."""

    def run(model: Model, lo: jax.Array, hi: jax.Array, lanes: Any, spec: jax.Array, at: jax.Array, *, native: bool) -> Grown:
        def one(lane: _beta.Subproblem, spec: jax.Array, at: jax.Array) -> Grown:
            problem = box_problem(model, shape, lo, hi, spec, at, sound=sound, rows=rows, budget=budget, native=native)
            lower, lane = _beta.optimised(problem, lane, steps, 0.1, 0.05)
            elements, slope = _beta.candidates(problem, lane, lower, tries)
            element, point = _beta.best_cut(problem, lane, elements)
            corner = jnp.where(slope[jnp.argmax(lower)] > 0, lo, hi)
            return Grown(lower, lane, element, point, corner)

        return jax.vmap(one)(lanes, spec, at)

    rows = len(spec)
    return on_platform(run, model, lo, hi, lanes, spec, at)


def cut(lanes: _beta.Subproblem, element: jax.Array, point: jax.Array) -> _beta.Subproblem:
    """Both halves of every lane: first all lower ones, then all upper ones."""
    halves = [jax.vmap(lambda lane, e, p, up=up: _beta.child(lane, e, p, up))(lanes, element, point) for up in (False, True)]
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *halves)
