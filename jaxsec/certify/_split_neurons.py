"""Branch and bound inside the network: for many inputs, where cutting the argument of the right ReLU decides more than any input."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bound._beta import Subproblem
from ..bound._branch_neuron import Grown, Root, bound_root, cut, grow
from ..bound._refine import refinable, refine
from ..core._batch import pad_rows, take_leaves
from ._cases import Case
from ._leaves import decided
from ._pool import Pool
from ._question import TOLERANCE, Question

_bound_root = jax.jit(bound_root, static_argnums=1, static_argnames=("steps", "open", "sound", "budget"))
_grow = jax.jit(grow, static_argnums=1, static_argnames=("steps", "sound", "budget"))
_cut = jax.jit(cut)
_refinable = jax.jit(refinable, static_argnums=(1, 2))
_refine = jax.jit(refine, static_argnums=1, static_argnames=("layer", "depth", "steps", "sound", "budget"))
_REFINED = 16  # elements whose two ends are refined by one call
_OPEN_SHARE = 4  # bytes of open subproblems, in units of the budget of the bounds' arrays
_SIGNS = np.array([1, -1], np.float32)


def _packed(lanes: Subproblem) -> Subproblem:
    """With slopes and multipliers, any of which are sound, in half precision: most of the memory of a tree is open subproblems."""

    def half(values: Any) -> Any:
        return tuple(np.clip(v, 0, 6e4).astype(np.float16) for v in values)

    return lanes._replace(slopes=half(lanes.slopes), above=half(lanes.above), below=half(lanes.below))


def _unpacked(lanes: Subproblem) -> Subproblem:
    def whole(values: Any, like: Any) -> Any:
        return tuple(v.astype(like[0].dtype if like else np.float32) for v in values)

    ends = tuple(lo for lo, _ in lanes.known)
    return lanes._replace(slopes=whole(lanes.slopes, ends), above=whole(lanes.above, ends), below=whole(lanes.below, ends))


class NeuronSplit:
    """The open subproblems of one case, each of one clause, and one round of work on them at a time."""

    def __init__(self, question: Question, case: Case, *, sound: bool, budget: int):
        self.question, self.case, self.sound, self.budget = question, case, sound, budget
        self.done = 0
        self.pool = Pool()  # of (lane, clause)
        self.known = jax.tree.map(lambda v: v[0], question.unknown())
        self.least = np.inf  # bound of the whole box over all clauses, by the last root
        self.stuck = 0  # leaves that neither their linear program nor a replayed point decided
        self.batch = 1

    def root(self, steps: int) -> np.ndarray:
        """[C] whether each clause is proved by CROWN (`steps` 0) or alpha-CROWN; what is not becomes a subproblem."""
        case = self.case
        found: Root = _bound_root(
            self.question.model, self.question.shape, case.lo, case.hi, self.known, case.spec, case.at,
            steps=steps, open=256, sound=self.sound, budget=self.budget,
        )  # fmt: skip
        lower = np.asarray(found.lower)
        self.least = float(lower.max(1).min())
        proved = (lower > self._threshold(found.size)).any(1)
        left = np.flatnonzero(~proved)
        self.known = jax.tree.map(lambda v: np.asarray(v)[0], found.lanes.known)
        lanes = jax.tree.map(lambda v: np.asarray(v)[left], found.lanes)
        self.pool, self.stuck = Pool(), 0
        self.pool.put((_packed(lanes), left), lower.max(1)[left])
        numbers = sum(int(np.prod(v.shape[1:])) for v in jax.tree.leaves(lanes))
        self.batch = int(np.clip(self.budget // (4 * 40 * max(numbers, 1)), 4, 128))
        return proved

    def refinements(self) -> Iterator[bool]:
        """Tightens ranges of layers, the first layer first and its widest open elements first, a few of them a step. Yields after every
        step whether its layer is done with; what was won is in the next root."""
        for layer in np.flatnonzero(np.asarray(_refinable(self.question.model, self.question.shape, jnp.float32))).tolist():
            lo, hi = (v.reshape(-1) for v in self.known[layer])
            width = np.where((lo < 0) & (hi > 0), np.minimum(-lo, hi), 0)
            order = np.argsort(-width, kind="stable")[: np.count_nonzero(width)]
            for start in range(0, len(order), _REFINED):
                self._refine(layer, order[start : start + _REFINED])
                yield start + _REFINED >= len(order)

    def _refine(self, layer: int, part: np.ndarray) -> None:
        rows = pad_rows(part, _REFINED).astype(np.int32)
        bounds = np.asarray(_refine(
            self.question.model, self.question.shape, self.case.lo, self.case.hi, self.known, np.tile(rows, 2), np.repeat(_SIGNS, _REFINED),
            layer=layer, depth=4, steps=12, sound=self.sound, budget=self.budget,
        ))  # fmt: skip
        lo, hi = (v.copy() for v in self.known[layer])
        lo.flat[part] = np.fmax(lo.flat[part], bounds[: len(part)])
        hi.flat[part] = np.maximum(lo.flat[part], np.fmin(hi.flat[part], -bounds[_REFINED : _REFINED + len(part)]))
        self.known = (*self.known[:layer], (lo, hi), *self.known[layer + 1 :])

    def resume(self, pool: Pool, stuck: int) -> None:
        """Goes on with a pool of an earlier root, with the ranges of this one, if it is nearer to its end than this root's own."""
        if len(pool) and pool.bound.min() > self.pool.bound.min():
            lanes, clause = pool.rows
            for (lo, hi), (least, most) in zip(lanes.known, self.known, strict=True):
                np.maximum(lo, least, out=lo)
                np.minimum(hi, most, out=hi)
            pool.keep(np.isin(clause[pool.at], self.pool.rows[1][self.pool.at]))
            self.pool, self.stuck = pool, stuck

    @property
    def full(self) -> bool:
        """Whether the open subproblems take more memory than they may."""
        return self.pool.size > _OPEN_SHARE * self.budget

    def _threshold(self, size: Any) -> Any:
        return 0.0 if self.sound else TOLERANCE * np.asarray(size)

    def round(self) -> np.ndarray | None:
        """Bounds a batch of subproblems, cuts what stays open; returns points worth trying as counterexamples."""
        batch = self.batch if len(self.pool) > min(8, self.batch) else min(8, self.batch)
        n = min(batch, len(self.pool))
        lanes, clause = take_leaves(self.pool.take(n), pad_rows(np.arange(n), batch), n)
        lanes = _unpacked(lanes)
        case = self.case
        found: Grown = _grow(
            self.question.model, self.question.shape, case.lo, case.hi, lanes, case.spec[clause], case.at[clause],
            steps=10, sound=self.sound, budget=self.budget,
        )  # fmt: skip
        lower, element = np.asarray(found.lower), np.asarray(found.element)
        self.done += n
        proved = (lower > self._threshold(found.size)).any(1)[:n]
        keep = np.flatnonzero(~proved)
        points = np.asarray(found.corner)[keep]
        for i in keep[element[keep] < 0]:
            lane = jax.tree.map(lambda v, i=i: np.asarray(v[i]), found.lanes)
            leaf = decided(self.question, case, lane, case.spec[clause[i]], case.at[clause[i]], sound=self.sound, budget=self.budget)
            self.stuck += not leaf.proved
            points = points if leaf.proved or leaf.point is None else np.concatenate([leaf.point[None].astype(np.float32), points])
        keep = keep[element[keep] >= 0]
        children = _cut(found.lanes, found.element, found.point)
        both, worst = np.concatenate([keep, keep + batch]), lower.max(1)
        halves = _packed(jax.tree.map(lambda v: np.asarray(v)[both], children))
        self.pool.put((halves, np.tile(clause[keep], 2)), np.tile(worst[keep], 2))
        return points if len(points) else None
