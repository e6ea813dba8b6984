"""Branch and bound on the input box: for few inputs, where halving a box soon makes the network nearly linear on it."""

from typing import Any

import jax
import numpy as np

from ..bound._branch_input import Bounded, Boxes, bound_boxes
from ..core._batch import pad_rows, take_leaves
from ._pool import Pool
from ._question import TOLERANCE, Case, Question

_BATCHES = (32, 512)  # two compiled sizes
_WIDE = 20_000  # open boxes beyond which the newest go first: memory stays bounded

_bounded = jax.jit(bound_boxes, static_argnums=1, static_argnames=("sound", "budget"))


class InputSplit:
    """The open boxes of one case, and one round of work on them at a time."""

    def __init__(self, question: Question, case: Case, *, sound: bool, budget: int):
        self.question, self.case, self.sound, self.budget = question, case, sound, budget
        known = question.unknown()
        self.pool = Pool()
        self.pool.put(Boxes(case.lo[None], case.hi[None], known), np.full(1, -np.inf, np.float32))  # pyright: ignore[reportArgumentType]
        self.done = 0
        clauses, m, k = case.spec.shape
        self.spec, self.at = case.spec.reshape(-1, k), case.at.reshape(-1)
        self.rows = (clauses, m)

    def round(self) -> np.ndarray | None:
        """Bounds a batch of boxes, halves what stays open; returns points worth trying as counterexamples."""
        batch = _BATCHES[0] if len(self.pool) <= _BATCHES[0] else _BATCHES[1]
        n = min(batch, len(self.pool))
        boxes = take_leaves(self.pool.take(n, newest=len(self.pool) > _WIDE), pad_rows(np.arange(n), batch), n)
        found: Bounded = _bounded(self.question.model, self.question.shape, boxes, self.spec, self.at, sound=self.sound, budget=self.budget)
        lower, size, slope, score = (np.asarray(v)[:n] for v in (found.lower, found.size, found.slope, found.score))
        self.done += n
        threshold = 0.0 if self.sound else TOLERANCE * size
        by_clause: Any = (lower > threshold).reshape(n, *self.rows).any(-1)  # [n, clauses] proved
        still = ~by_clause.all(1)
        lo, hi = boxes.lo[:n][still], boxes.hi[:n][still]
        known = jax.tree.map(lambda v: np.asarray(v)[:n][still], found.known)
        worst = np.where(by_clause, np.inf, lower.reshape(n, *self.rows).max(-1)).min(1)[still]
        wanted = np.repeat(~by_clause[still], self.rows[1], axis=1)  # rows of open clauses
        axis = self._axis(score[still], slope[still], wanted, lo, hi)
        rows = np.arange(len(lo))
        middle = 0.5 * (lo[rows, axis] + hi[rows, axis])
        below, above = hi.copy(), lo.copy()
        below[rows, axis] = above[rows, axis] = middle
        self.pool.put(Boxes(lo, below, known), worst)
        self.pool.put(Boxes(above, hi, known), worst)
        if not len(lo):
            return None
        corner = np.where(slope[still][rows, np.where(wanted, lower[still], np.inf).argmin(1)] > 0, lo, hi)
        return np.concatenate([0.5 * (lo + hi), corner])

    def _axis(self, score: np.ndarray, slope: np.ndarray, wanted: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        """[n] which element is halved: the one to blame for most looseness; the linear bound's own where nothing is loose."""
        blame = np.where(wanted[..., None], np.nan_to_num(score), 0).sum(1)
        width = (hi - lo).astype(np.float64)
        linear = np.where(wanted[..., None], np.abs(np.nan_to_num(slope)), 0).sum(1) * width
        linear /= linear.sum(1, keepdims=True) + 1e-30
        blame /= blame.sum(1, keepdims=True) + 1e-30
        splittable = 0.5 * (lo + hi)
        free = (splittable > lo) & (splittable < hi)
        return np.where(free, blame + 0.05 * linear + 1e-9 * width / (width.max(1, keepdims=True) + 1e-30), -1.0).argmax(1)
