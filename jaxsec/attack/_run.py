"""One eager attack from clean evaluation to record: chunks, live rows in power-of-two batches, pauses, resumable state."""

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._batch import bucket, pad_rows, take_leaves, take_rows
from ..core._check import program_of
from ..core._keys import fold, row_keys
from ..core._model import Model
from ..core._result import Status
from ..core._rewrite import untuned
from ..core._working_set import rows_in_cache
from ..threat import Threat
from ..threat._rows import working_dtype
from ._checkpoint import Checkpoint, Cursor, fingerprint, held, of_programs
from ._method import Method, Track
from ._problem import Problem
from ._progress import Report, progress
from ._record import Record
from ._verdict import Opinion, door_verdict, judge, judging, rounding_of

# The compiled programs, shared by every call: everything that may change without a retrace is a traced argument.


@jax.jit
def start(method: Method, problem: Problem, round: jax.Array) -> Any:
    return method.init(problem, round)


@partial(jax.jit, donate_argnums=2)
def advance(method: Method, problem: Problem, state: Any, first: jax.Array, last: jax.Array) -> Any:
    return jax.lax.fori_loop(first, last, lambda i, s: method.step(problem, s, i), state)


@jax.jit
def finish(method: Method, problem: Problem, state: Any) -> Track:
    """The round's findings."""
    return method.finish(problem, state)


opinion = jax.jit(door_verdict)


@jax.jit
def _clean(problem: Problem) -> Opinion:
    return judge(problem, problem.x0)


@jax.jit
def _done(method: Method, state: Any) -> jax.Array:
    return method.done(state)


def _retired(state: Any, n: int) -> Any:
    """The padding beyond `n` rows has nothing left to find: what asks only about standing rows skips it."""
    success = state.track.success
    if n == len(success):
        return state
    return state.replace(track=state.track.replace(success=success | (np.arange(len(success)) >= n)))


@jax.jit
def _distance(threat: Threat, x0: jax.Array, x: jax.Array) -> jax.Array:
    return threat.distance(x0, x)


class Run:
    """One eager attack: the rows on the host, the stages, and the loop over them."""

    def __init__(
        self,
        model: Model,
        x: np.ndarray,
        y: np.ndarray,
        threat: Threat,
        stages: list[tuple[str, Method]],
        key: jax.Array,
        targeted: bool,
        draws: int,
        ids: np.ndarray,
        max_rows: int,
        min_rows: int,
        n_classes: int,
    ):
        self.model, self.x, self.y, self.stages = model, x, y, stages
        self.threat = jax.tree.map(np.asarray, threat.canonical(jnp.asarray(x)))
        self.keys = jax.random.key_data(row_keys(key, jnp.asarray(ids)))
        self.keys = np.asarray(self.keys)
        self.key, self.targeted, self.draws, self.n_classes = key, targeted, draws, n_classes
        self.max_rows, self.min_rows = min(max_rows, rows_in_cache(untuned(model), self.x)), min_rows
        self.ids = ids
        self.impl = jax.random.key_impl(key)
        self.rounding = rounding_of(model, self.x)
        self.scale = np.zeros(len(y), np.float32)
        self.judging = judging(model.stochastic, draws)

    def problem(self, rows: np.ndarray, stage: int = 0, round: int = 0, *, size: int | None = None) -> Problem:
        """The rows as a batch of the next power of two, or of `size`; the padding repeats the first row."""
        padded = pad_rows(rows, size or bucket(len(rows), self.max_rows, self.min_rows))
        keys = fold(fold(jax.random.wrap_key_data(jnp.asarray(self.keys[padded]), impl=self.impl), stage), round)
        return Problem(
            model=self.model,
            x0=jnp.asarray(self.x[padded]),
            y=jnp.asarray(self.y[padded]),
            threat=jax.tree.map(jnp.asarray, take_leaves(self.threat, padded, len(self.y))),
            keys=keys,
            scale=jnp.asarray(self.scale[padded]),
            targeted=self.targeted,
            draws=self.draws,
            n_classes=self.n_classes,
            rounding=self.rounding,
        )

    def chunks(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[i : i + self.max_rows] for i in range(0, len(rows), self.max_rows)]

    def clean(self) -> Record:
        """The record before any attack; the scale of the rows' logits is kept for all that follows."""
        wrong, finite = np.zeros(len(self.y), bool), np.zeros(len(self.y), bool)
        for rows in self.chunks(np.arange(len(self.y))):
            w, _, _, f, scale = (np.asarray(v)[: len(rows)] for v in _clean(self.problem(rows)))
            wrong[rows], finite[rows], self.scale[rows] = w, f, scale
        return Record.start(self.x, wrong, finite, self.judging)

    def go(self, choice: bool | Report | None, folder: str | os.PathLike[str] | None) -> Record:
        with held(folder):
            return self._go(choice, folder)

    def _go(self, choice: bool | Report | None, folder: str | os.PathLike[str] | None) -> Record:
        disk = None if folder is None else Checkpoint(folder, self.identity())
        saved = disk.load() if disk else None
        clean = self.clean()
        record, at = saved or (clean, Cursor(0, 0, 0, np.zeros(0, np.int64)))
        resume = saved is not None
        rounds = [m.rounds(self.n_classes) for _, m in self.stages]
        with progress(choice) as report:
            for s, (name, _) in enumerate(self.stages):
                for r in range(rounds[s]):
                    if (s, r) < (at.stage, at.round):
                        continue
                    resumed = resume and (s, r) == (at.stage, at.round)
                    rows = at.rows if resumed else record.live()
                    past = at.past if resumed else 0
                    for group in self.chunks(rows[past:]):
                        done = (s + (r + past / len(rows)) / rounds[s]) / len(self.stages)
                        share = len(group) / (len(self.stages) * rounds[s] * len(rows))
                        self.round(record, s, r, group, lambda f, n=name, d=done, w=share: report(n, d + f * w, len(record.live())))
                        past += len(group)
                        if disk:
                            disk.save(record, Cursor(s, r, past, rows))
                    if len(record.live()) == 0:
                        break
        return record

    def round(self, record: Record, stage: int, round: int, rows: np.ndarray, report: Any) -> None:
        """One round of one stage on one chunk; solved rows leave at pauses, the rest move to smaller batches."""
        method = self.stages[stage][1]
        problem = self.problem(rows, stage, round)
        state = _retired(start(method, problem, jnp.int32(round)), len(rows))
        steps = method.total_steps
        pause = max(10, -(-steps // 10))
        for first in range(0, steps, pause):
            live = np.flatnonzero(~np.asarray(_done(method, state))[: len(rows)])
            size = bucket(len(live), self.max_rows, self.min_rows)
            if size < problem.y.shape[0] and first:
                gone = np.setdiff1d(np.arange(len(rows)), live)
                self.enter(record, stage, method, problem, state, rows, gone)
                if len(live) == 0:
                    return
                keep = jnp.asarray(pad_rows(live, size))
                problem = problem.replace(
                    x0=problem.x0[keep],
                    y=problem.y[keep],
                    threat=take_leaves(problem.threat, keep, problem.y.shape[0]),
                    keys=problem.keys[keep],
                    scale=problem.scale[keep],
                )
                state, rows = _retired(take_rows(state, keep), len(live)), rows[live]
            state = advance(method, problem, state, jnp.int32(first), jnp.int32(min(first + pause, steps)))
            report(min(first + pause, steps) / steps)
        self.enter(record, stage, method, problem, state, rows, np.arange(len(rows)))

    def enter(self, record: Record, stage: int, method: Method, problem: Problem, state: Any, rows: np.ndarray, which: np.ndarray) -> None:
        track = finish(method, problem, state)
        inside, wrong, _ = opinion(problem, track)
        track, inside, wrong = jax.tree.map(lambda a: np.asarray(a)[which], (track, inside, wrong))
        record.merge(rows[which], track, stage, inside, wrong, method, self.judging)

    def distances(self, record: Record) -> np.ndarray:
        out = np.zeros(len(self.y), working_dtype(self.x))
        for rows in self.chunks(np.arange(len(self.y))):
            p = self.problem(rows)
            x = jnp.asarray(record.x[pad_rows(rows, p.y.shape[0])])
            out[rows] = np.asarray(_distance(p.threat, p.x0, x))[: len(rows)]
        out[record.status == Status.WRONG_BEFORE] = 0.0
        return out

    def identity(self) -> str:
        from .. import __version__

        settings = repr((__version__, self.targeted, self.draws, self.n_classes, self.stages))
        # the programs too, of the model and of one step of each stage
        programs = [program_of(untuned(self.model), self.x)] + [self._program(method) for _, method in self.stages]
        leaves = [method for _, method in self.stages]
        return fingerprint(self.model, self.x, self.y, self.threat, self.keys, leaves, *of_programs(settings, programs))

    def _program(self, method: Method) -> Any:
        problem = self.problem(np.arange(min(len(self.y), 1)), size=1)
        state = jax.eval_shape(start, method, problem, jnp.int32(0))
        return jax.make_jaxpr(method.step)(problem, state, jnp.int32(0))
