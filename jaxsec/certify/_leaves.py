"""Subproblems with all signs known, decided exactly: a linear program says what multipliers prove them, or where they are violated.

On such a leaf the network is affine, so the question is whether some x of the box satisfies the clause's rows and all cuts. The program
asks for the x that violates them least: minimise t with `row_i(x) <= t` and `cut_j(x) <= t`, every cut written as `<= 0`. It is never
infeasible; its optimum is at most 0 exactly where a counterexample exists, and else its dual is the proof: weights `w, v >= 0` with
`sum w row + sum v cut >= t > 0` on the whole box. HiGHS works within tolerances, so the proof is its weights put into the bound's own
arithmetic, not its word. Source: Farkas' lemma; leaves solved by LP as in Bunel et al. 2020, section 4.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from ..bound._beta import Subproblem
from ..bound._leaf import Maps, maps, proved_by
from ._cases import Case
from ._question import TOLERANCE, Question

_maps = jax.jit(maps, static_argnums=1, static_argnames=("budget",))
_proved_by = jax.jit(proved_by, static_argnums=1, static_argnames=("sound", "budget"))


class Leaf(NamedTuple):
    """proved: nothing of the clause is left in the leaf. point: else [n] where it is violated least; None where HiGHS gave up."""

    proved: bool
    point: np.ndarray | None


def decided(question: Question, case: Case, lane: Subproblem, spec: np.ndarray, at: np.ndarray, *, sound: bool, budget: int) -> Leaf:
    """spec [m, K], at [m]: the rows of the clause that the lane is about."""
    from scipy.optimize import linprog  # 300 modules that few who import jaxsec need

    at_most = [np.flatnonzero(c & (hi <= 0)) for c, (_, hi) in zip(lane.cut, lane.known, strict=True)]
    at_least = [np.flatnonzero(c & (lo >= 0)) for c, (lo, _) in zip(lane.cut, lane.known, strict=True)]
    chosen = [np.concatenate(pair) for pair in zip(at_most, at_least, strict=True)]
    width = 1 << max(max((len(c) for c in chosen), default=0) - 1, 0).bit_length()
    rows = tuple(np.concatenate([c, np.full(width - len(c), -1)]).astype(np.int32) for c in chosen)
    found: Maps = _maps(question.model, question.shape, case.lo, case.hi, lane, rows, spec, at, budget=budget)
    slopes, constants = [np.asarray(found.slope, np.float64)], [np.asarray(found.at, np.float64)]
    for (slope, constant), low, high in zip(found.layers, at_most, at_least, strict=True):
        sign = np.concatenate([np.ones(len(low)), -np.ones(len(high))])
        slopes.append(sign[:, None] * np.asarray(slope, np.float64)[: len(sign)])
        constants.append(sign * np.asarray(constant, np.float64)[: len(sign)])
    a, b = np.concatenate(slopes), np.concatenate(constants)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Leaf(False, None)
    n = len(case.lo)
    box = [*zip(case.lo.astype(float), case.hi.astype(float), strict=True), (None, None)]
    end = linprog(np.r_[np.zeros(n), 1.0], A_ub=np.c_[a, -np.ones(len(a))], b_ub=-b, bounds=box, method="highs")
    if end.x is None:
        return Leaf(False, None)
    weights = np.maximum(-end.ineqlin.marginals, 0).astype(np.float32)
    m = len(at)
    above, below, used = [], [], m
    for shape, low, high in zip((v[0].shape for v in lane.known), at_most, at_least, strict=True):
        for index, kept in ((low, below), (high, above)):
            flat = np.zeros(int(np.prod(shape)), np.float32)
            flat[index] = weights[used : used + len(index)]
            used += len(index)
            kept.append(flat.reshape(1, *shape))
    slopes_of: Any = tuple(v[:1] for v in lane.slopes)
    lane = lane._replace(above=tuple(above), below=tuple(below), slopes=slopes_of)
    # the weighted row in float32, and what it differs from the exact one by: rows may cancel
    w, rows64 = weights[:m].astype(np.float64), spec.astype(np.float64)
    exact, exact_at = w @ rows64, float(w @ at.astype(np.float64))
    row, row_at = exact.astype(np.float32), np.array([exact_at], np.float32)
    lower, size, most = _proved_by(
        question.model, question.shape, case.lo, case.hi, lane, row[None], row_at, sound=sound, budget=budget
    )  # fmt: skip
    most = np.asarray(most, np.float64)
    whole = float((w @ np.abs(rows64)) @ most + w @ np.abs(at.astype(np.float64)))  # before anything cancels
    lost = float(np.abs(exact - row) @ most) + abs(exact_at - float(row_at[0])) + 1e-13 * whole
    threshold = lost if sound else lost + TOLERANCE * (float(size[0]) + whole)
    return Leaf(bool(float(lower[0]) > threshold), end.x[:n])
