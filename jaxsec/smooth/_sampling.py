"""The sampling of many rows at once: a fixed number of slots on the device, each for some samples of one row; a row that has enough gives
its slots to the next. One compiled program, whatever the rows and their stopping times."""

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._model import Model
from ..core._rewrite import tuned
from ._inputs import Inputs
from ._randomizer import Randomizer
from ._schedule import OPEN, Rule

_SLOT = 64  # samples of one row in a slot: few enough that little is sampled beyond a stop, enough that slots are cheap to fill


@dataclasses.dataclass
class Tally:
    """What is known of each row: votes of the samples that choose a class [N, K] and of those that count it [N, K], the number of the
    latter, and what they have shown (`Rule.decided`); `finished` rows take no more samples."""

    chosen: np.ndarray
    counts: np.ndarray
    n: np.ndarray
    shown: np.ndarray
    finished: np.ndarray

    @classmethod
    def empty(cls, rows: int, classes: int) -> "Tally":
        zeros = np.zeros((rows, classes), np.int32)
        return cls(zeros, zeros.copy(), np.zeros(rows, np.int64), np.full(rows, OPEN), np.zeros(rows, bool))

    @property
    def top(self) -> np.ndarray:
        """[N] the class chosen by the first samples."""
        return self.chosen.argmax(1)

    @property
    def hits(self) -> np.ndarray:
        """[N] how many of the n samples had the chosen class."""
        return np.take_along_axis(self.counts, self.top[:, None], 1)[:, 0]


def as_run(model: Model, dtype: str) -> Model:
    """The model as samples of that dtype run it: in float32 by the program that is fast on CPUs."""
    return tuned(model) if dtype == "float32" else model


def outputs_of(model: Model, samples: jax.Array, dtype: Any) -> jax.Array:
    """The forward pass, with weights of the samples' dtype."""
    if jnp.dtype(dtype) == jnp.bfloat16:
        model = jax.tree.map(lambda v: v.astype(dtype) if v.dtype == jnp.float32 else v, model)
    return model(samples)


@functools.partial(jax.jit, static_argnames=("n", "dtype", "randomizer"))
def _votes(
    model: Model,
    x: jax.Array,
    words: jax.Array,
    first: jax.Array,
    valid: jax.Array,
    sigma: jax.Array,
    shared: tuple[Any, ...],
    *,
    n: int,
    dtype: Any,
    randomizer: Randomizer,
) -> jax.Array:
    """[S, K] votes of samples first .. first + valid of each slot's row."""
    logits = outputs_of(model, randomizer.draw(words, x, first, sigma, shared, n=n, dtype=dtype), dtype)
    return randomizer.votes(logits, valid, shared)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws until a rule is content; of each row n0 samples choose a class. batch: samples in one forward pass."""

    model: Model
    inputs: Inputs
    n0: int
    rule: Rule
    batch: int
    dtype: Any

    def run(self, tally: Tally, tell: Callable[[Tally], None] = lambda tally: None) -> Tally:
        """Samples every row that is not finished; `tell` hears after each step."""
        stops = self.rule.stops()
        slot = min(_SLOT, self.batch, self.n0 + int(stops[-1]))
        slots = max(1, self.batch // slot)
        slots = -(-slots // self.inputs.devices) * self.inputs.devices
        rows = np.flatnonzero(~tally.finished)
        tally.chosen[rows], tally.counts[rows], tally.n[rows] = 0, 0, 0  # a row that was cut off begins again: its samples are the same
        queue, active, flying = iter(rows.tolist()), deque[_Row](), deque[tuple[list[_Piece], jax.Array]]()
        while True:
            pieces = list(self._pieces(queue, active, stops, slot, slots))
            if pieces:
                flying.append((pieces, self._sent(pieces, slot, slots)))
            if not flying:
                return tally
            if len(flying) > 1 or not pieces:  # the device works on one step while the host looks at another
                self._landed(*flying.popleft(), tally, active, stops)
                tell(tally)

    def _pieces(self, queue: Iterator[int], active: "deque[_Row]", stops: np.ndarray, slot: int, slots: int) -> "Iterator[_Piece]":
        """Up to `slots` pieces of work, of rows under way before new ones."""
        made = 0
        for row in list(active):
            while made < slots and row.issued < row.target:
                yield row.piece(slot)
                made += 1
        while made < slots and (index := next(queue, None)) is not None:
            row = _Row(index, self.n0 or int(stops[0]), self.n0)
            active.append(row)
            while made < slots and row.issued < row.target:
                yield row.piece(slot)
                made += 1

    def _sent(self, pieces: "list[_Piece]", slot: int, slots: int) -> jax.Array:
        rows = np.array([p.row.index for p in pieces] + [pieces[0].row.index] * (slots - len(pieces)))
        first = np.array([p.first for p in pieces] + [0] * (slots - len(pieces)), np.uint64)
        valid = np.array([p.n for p in pieces] + [0] * (slots - len(pieces)), np.int32)
        halves = np.stack([first & np.uint64(0xFFFFFFFF), first >> np.uint64(32)], 1).astype(np.uint32)
        inputs = self.inputs
        arrays = inputs.placed(inputs.x[rows], inputs.words[rows], halves, valid, inputs.sigma[rows])
        return _votes(self.model, *arrays, inputs.shared, n=slot, dtype=self.dtype, randomizer=inputs.randomizer)

    def _landed(self, pieces: "list[_Piece]", votes: jax.Array, tally: Tally, active: "deque[_Row]", stops: np.ndarray) -> None:
        counts = np.asarray(votes)
        for piece, found in zip(pieces, counts, strict=False):
            row = piece.row
            (tally.chosen if piece.first < self.n0 else tally.counts)[row.index] += found
            row.landed += piece.n
        ready = [row for row in active if row.landed == row.target]
        if not ready:
            return
        index = np.array([row.index for row in ready])
        tally.n[index] = [row.target - self.n0 for row in ready]
        known = tally.n[index] > 0
        shown = np.full(len(index), OPEN)
        if known.any():
            top = tally.chosen[index].argmax(1)
            hits = np.take_along_axis(tally.counts[index], top[:, None], 1)[:, 0]
            shown[known] = self.rule.decided(hits[known], tally.n[index][known], index[known])
        for row, what in zip(ready, shown, strict=True):
            done = row.target - self.n0
            if what != OPEN or done >= stops[-1]:
                tally.shown[row.index], tally.finished[row.index] = what, True
                active.remove(row)
            else:
                row.target = self.n0 + int(stops[np.searchsorted(stops, done, side="right")])


@dataclasses.dataclass(eq=False)
class _Row:
    index: int
    target: int  # samples until it is looked at, those that choose the class included
    n0: int
    issued: int = 0
    landed: int = 0

    def piece(self, slot: int) -> "_Piece":
        found = _Piece(self, self.issued, min(slot, self.target - self.issued))
        self.issued += found.n
        return found


@dataclasses.dataclass(eq=False)
class _Piece:
    row: _Row
    first: int
    n: int
