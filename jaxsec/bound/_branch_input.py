"""One round of branch and bound on the input: bounds of many boxes side by side, and which element of each to halve."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..core._model import Model
from ._crown import tightened
from ._gaps import input_scores, weighed
from ._lines import carried
from ._method import by_intervals
from ._problem import Known
from ._run import box_problem, on_platform


class Boxes(NamedTuple):
    """[D, n] corners, and what is known of the layers inside: a child starts from its parent's ranges."""

    lo: jax.Array
    hi: jax.Array
    known: Known


class Bounded(NamedTuple):
    """Of every box: [D, S] lower bounds, those of the linear forms alone, and the size of what these were summed from; [D, S, n] the
    linear forms' slopes; [D, S, F] the scores of the elements that may be halved; its ranges."""

    lower: jax.Array
    linear: jax.Array
    size: jax.Array
    slope: jax.Array
    score: jax.Array
    known: Known


def bound_boxes(
    model: Model, shape: tuple[int, ...], boxes: Boxes, spec: jax.Array, at: jax.Array, elements: jax.Array, *, sound: bool, budget: int
) -> Bounded:
    """CROWN on every box. shape: of one row; spec [S, K], at [S] and the elements to score [F], the same for all boxes. Pure."""

    def run(model: Model, boxes: Boxes, spec: jax.Array, at: jax.Array, elements: jax.Array, *, native: bool) -> Bounded:
        def one(lo: jax.Array, hi: jax.Array, known: Known) -> Bounded:
            problem = box_problem(model, shape, lo, hi, spec, at, sound=sound, rows=len(boxes.lo), budget=budget, native=native)
            names = carried(problem.graph, problem.out)
            ranges = tightened(problem, dict(zip(names, known, strict=True)))
            linear, costs, found = weighed(problem, ranges)
            lower = jnp.fmax(linear, by_intervals(problem, ranges))
            slope = found[0].reshape(len(at), -1)
            scores, now = input_scores(problem, ranges, costs, elements), tuple(ranges[t] for t in names)
            return Bounded(lower, linear, problem.magnitude(found), slope, scores, now)

        return jax.vmap(one)(boxes.lo, boxes.hi, boxes.known)

    return on_platform(run, model, boxes, spec, at, elements)
