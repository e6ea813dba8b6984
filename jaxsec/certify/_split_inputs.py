"""Branch and bound on the input box: for few inputs, where halving a box soon makes the network nearly linear on it."""

from typing import Any

import jax
import numpy as np

from ..bound._branch_input import Bounded, Boxes, bound_boxes
from ..core._batch import pad_rows, take_leaves
from ._cases import Case
from ._clip import clipped
from ._pool import Pool
from ._question import TOLERANCE, Question

# Boxes of a round, two compiled sizes: the second is for networks of few neurons, where it takes a fraction of a second.
_BATCHES = (32, 512)
_ELEMENTS = 16
_FEW_NEURONS = 1_000
_WIDE = 20_000  # open boxes beyond which the newest go first: memory stays bounded

_bounded = jax.jit(bound_boxes, static_argnums=1, static_argnames=("sound", "budget"))


class InputSplit:
    """The open boxes of one case, and one round of work on them at a time."""

    full = False  # boxes take no memory to speak of

    def __init__(self, question: Question, case: Case, *, sound: bool, budget: int):
        self.question, self.case, self.sound, self.budget = question, case, sound, budget
        known = question.unknown()
        neurons = sum(lo.size for lo, _ in known)
        self.batches = _BATCHES if neurons <= _FEW_NEURONS else _BATCHES[:1]
        self.wide = int(np.clip(budget // (8 * max(neurons, 1)), _BATCHES[1], _WIDE))
        self.pool = Pool()
        self.pool.put(Boxes(case.lo[None], case.hi[None], known), np.full(1, -np.inf, np.float32))  # pyright: ignore[reportArgumentType]
        self.free = case.free if len(case.free) else np.arange(1)
        few = min(len(case.lo), -(-len(self.free) // _ELEMENTS) * _ELEMENTS)
        self.scored = np.append(self.free, np.full(few - len(self.free), len(case.lo)))  # one program for up to as many that vary
        self.done = 0
        self.least = np.inf  # bound of the whole box, once it was bounded
        self.stuck = 0  # boxes of one point in float32 that neither a bound nor a replay decided
        clauses, m, k = case.spec.shape
        self.spec, self.at = case.spec.reshape(-1, k), case.at.reshape(-1)
        self.rows = (clauses, m)

    def round(self) -> np.ndarray | None:
        """Bounds a batch of boxes, clips and halves what stays open; returns points worth trying as counterexamples."""
        batch = max((b for b in self.batches if b <= len(self.pool)), default=_BATCHES[0])
        n = min(batch, len(self.pool))
        boxes = take_leaves(self.pool.take(n, newest=len(self.pool) > self.wide), pad_rows(np.arange(n), batch), n)
        found: Bounded = _bounded(
            self.question.model, self.question.shape, boxes, self.spec, self.at, self.scored, sound=self.sound, budget=self.budget
        )
        by_row = (n, *self.rows)
        lower, linear, size = (np.asarray(v)[:n].reshape(by_row) for v in (found.lower, found.linear, found.size))
        slope, score = (np.asarray(v)[:n].reshape(*by_row, -1) for v in (found.slope, found.score))
        slope, score = slope[..., self.free], score[..., : len(self.free)]
        self.least = self.least if self.done else float(lower.max(-1).min())
        self.done += n
        threshold = 0.0 if self.sound else TOLERANCE * size
        proved: Any = (lower > threshold).any(-1)  # [n, clauses]
        lo, hi = clipped(boxes.lo[:n, self.free], boxes.hi[:n, self.free], linear - threshold, slope, ~proved)
        still = np.flatnonzero(~proved.all(1) & ~(lo > hi).any(1))
        if not len(still):
            return None
        lo, hi, lower, slope, open = lo[still], hi[still], lower[still], slope[still], ~proved[still]
        rows = np.arange(len(still))
        near = nearest(lower, score[still])
        best = near.argmax(-1)[..., None]  # of every clause the row that is nearest to a proof
        middle = 0.5 * (lo + hi)
        divisible = (lo < middle) & (middle < hi)
        blame = self._blame(_of_row(score[still], best), _of_row(slope, best), open, hi - lo)
        axis = np.where(divisible, blame, -1.0).argmax(1)
        below, above = hi.copy(), lo.copy()
        below[rows, axis] = above[rows, axis] = middle[rows, axis]
        cut = divisible[rows, axis]
        self.stuck += int(np.sum(~cut))
        known = jax.tree.map(lambda v: np.asarray(v)[still[cut]], found.known)
        worst = np.where(open, near.max(-1), np.inf).min(1)
        for a, b in ((lo, below), (above, hi)):
            self.pool.put(Boxes(self._whole(self.case.lo, a[cut]), self._whole(self.case.hi, b[cut]), known), worst[cut])  # pyright: ignore[reportArgumentType]
        steepest = np.where(open[..., None], lower, np.inf).reshape(len(rows), -1).argmin(1)
        corner = np.where(slope.reshape(len(rows), -1, len(self.free))[rows, steepest] > 0, lo, hi)
        return self._whole(self.case.lo, np.concatenate([middle, corner]))

    def _whole(self, others: np.ndarray, free: np.ndarray) -> np.ndarray:
        """[n, inputs] from the free ones [n, free] and the others [inputs]."""
        whole = np.repeat(others[None], len(free), 0)
        whole[:, self.free] = free
        return whole

    def _blame(self, score: np.ndarray, slope: np.ndarray, open: np.ndarray, width: np.ndarray) -> np.ndarray:
        """[n, inputs] how much of the looseness each input is to blame for; the linear bound's own where nothing is loose."""
        blame = np.where(open[..., None], np.nan_to_num(score), 0).sum(1)
        width = width.astype(np.float64)
        linear = np.where(open[..., None], np.abs(np.nan_to_num(slope)), 0).sum(1) * width
        linear /= linear.sum(1, keepdims=True) + 1e-30
        blame /= blame.sum(1, keepdims=True) + 1e-30
        return blame + 0.05 * linear + 1e-9 * width / (width.max(1, keepdims=True) + 1e-30)


def nearest(lower: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[n, clauses, rows] the bounds of rows that cuts can raise, -inf for the others: a row on inputs alone, whose bound is what it is, is
    told by clipping and would draw all cuts. Of a clause in which nothing is loose, all."""
    loose = (np.nan_to_num(score) > 0).any(-1)
    return np.where(loose | ~loose.any(-1, keepdims=True), lower, -np.inf)


def _of_row(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    """[n, clauses, ...] of values [n, clauses, rows, ...] at row [n, clauses, 1]."""
    return np.take_along_axis(values, row[..., None], 2)[:, :, 0]
