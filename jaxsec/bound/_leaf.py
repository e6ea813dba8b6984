"""A subproblem with all signs known is affine: its exact linear maps, and the bound that given multipliers prove for it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core._model import Model
from ._backward import backward, dense
from ._beta import Subproblem, lane_ranges, multipliers, turned
from ._lines import carried
from ._rounding import largest
from ._run import box_problem, on_platform


class Maps(NamedTuple):
    """`slope x + at` on the box, x flat: of the forms on the output [m, n], [m], and of the chosen elements of every carried node."""

    slope: jax.Array
    at: jax.Array
    layers: tuple[tuple[jax.Array, jax.Array], ...]


def maps(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, lane: Subproblem, rows: tuple[jax.Array, ...], spec: jax.Array,
    at: jax.Array, *, budget: int,
) -> Maps:  # fmt: skip
    """rows: for each carried node [k] flat indices of elements; spec [m, K], at [m]. Exact where every kink's sign is known. Pure."""

    def run(model: Model, lo: Any, hi: Any, lane: Any, rows: Any, spec: Any, at: Any, *, native: bool) -> Maps:
        problem = box_problem(model, shape, lo, hi, spec, at, sound=False, rows=1, budget=budget, native=native)
        graph, ranges = problem.graph, lane_ranges(problem, lane)

        def walked(target: int, form: jax.Array, at: jax.Array) -> tuple[jax.Array, jax.Array]:
            forms, constant = backward(graph, target, form, at, ranges, problem.lines(target, ranges))
            return dense(forms[0]).reshape(len(at), -1), constant

        layers = []
        for t, chosen in zip(carried(graph, problem.out), rows, strict=True):
            node = graph.nodes[t]
            unit = jax.nn.one_hot(chosen, ranges[t][0].size, dtype=node.dtype).reshape(len(chosen), *node.shape)
            layers.append(walked(t, unit, jnp.zeros(len(chosen), node.dtype)))
        return Maps(*walked(problem.out, problem.spec, problem.at), tuple(layers))

    return on_platform(run, model, lo, hi, lane, rows, spec, at)


def proved_by(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, lane: Subproblem, spec: jax.Array, at: jax.Array, *,
    sound: bool, budget: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """([S] the lane's bounds with the multipliers it carries, the size of what they were summed from, [K] the largest |output|). Pure."""

    def run(model: Model, lo: Any, hi: Any, lane: Any, spec: Any, at: Any, *, native: bool) -> Any:
        problem = box_problem(model, shape, lo, hi, spec, at, sound=sound, rows=1, budget=budget, native=native)
        ranges = lane_ranges(problem, lane)
        forms, constant = problem.walked(ranges, turn=turned(problem, lane), splits=multipliers(problem, lane))
        return problem.least(forms, constant), problem.magnitude(forms), largest(ranges[problem.out]).reshape(-1)

    return on_platform(run, model, lo, hi, lane, spec, at)
