"""Branch and bound inside the network: for many inputs, where cutting the argument of the right ReLU decides more than any input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
_FORMS = 32  # lower and upper bounds that are refined by one call
_SIGNS = np.array([1, -1], np.float32)


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
        self.pool.put((lanes, left), lower.max(1)[left])
        numbers = sum(int(np.prod(v.shape[1:])) for v in jax.tree.leaves(lanes))
        self.batch = int(np.clip(self.budget // (4 * 40 * max(numbers, 1)), 4, 128))
        return proved

    def refine(self, late: Callable[[], bool]) -> np.ndarray:
        """The root again, after the ranges of layers have been refined, first layer first; [C] proved. Ends early where it is `late`."""
        proved = np.zeros(len(self.case.spec), bool)
        for layer in np.flatnonzero(np.asarray(_refinable(self.question.model, self.question.shape, jnp.float32))).tolist():
            if late() or proved.all():
                break
            lo, hi = (v.copy() for v in self.known[layer])
            if self._refined(layer, lo.reshape(-1), hi.reshape(-1), late):
                self.known = (*self.known[:layer], (lo, hi), *self.known[layer + 1 :])
                proved = self.root(20)
        return proved

    def _refined(self, layer: int, lo: np.ndarray, hi: np.ndarray, late: Callable[[], bool]) -> bool:
        """Tightens flat ends in place, the widest open elements first; whether there were any."""
        width = np.where((lo < 0) & (hi > 0), np.minimum(-lo, hi), 0)
        order = np.argsort(-width, kind="stable")[: np.count_nonzero(width)]
        case, half = self.case, _FORMS // 2
        for start in range(0, len(order), half):
            if late():
                break
            part = order[start : start + half]
            rows = pad_rows(part, half).astype(np.int32)
            bounds = np.asarray(_refine(
                self.question.model, self.question.shape, case.lo, case.hi, self.known, np.tile(rows, 2), np.repeat(_SIGNS, half),
                layer=layer, depth=4, steps=12, sound=self.sound, budget=self.budget,
            ))  # fmt: skip
            lo[part] = np.fmax(lo[part], bounds[: len(part)])
            hi[part] = np.maximum(lo[part], np.fmin(hi[part], -bounds[half : half + len(part)]))
        return len(order) > 0

    def _threshold(self, size: Any) -> Any:
        return 0.0 if self.sound else TOLERANCE * np.asarray(size)

    def round(self) -> np.ndarray | None:
        """Bounds a batch of subproblems, cuts what stays open; returns points worth trying as counterexamples."""
        batch = self.batch if len(self.pool) > min(8, self.batch) else min(8, self.batch)
        n = min(batch, len(self.pool))
        lanes, clause = take_leaves(self.pool.take(n), pad_rows(np.arange(n), batch), n)
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
        self.pool.put((jax.tree.map(lambda v: np.asarray(v)[both], children), np.tile(clause[keep], 2)), np.tile(worst[keep], 2))
        return points if len(points) else None
