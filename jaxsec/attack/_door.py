"""`attack`: the verb. It owns validation, batching, compaction, keys, progress, resume, and never trusts a method."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core._batch import bucket, pad_rows, take_leaves, take_rows
from ..core._check import check_batch
from ..core._keys import as_key, fold, row_keys
from ..core._model import Model, ModelInfo
from ..core._result import AttackResult, Status
from ..core._rewrite import tuned
from ..threat import Threat
from ._checkpoint import Checkpoint, Cursor, fingerprint
from ._method import Method, Track
from ._problem import Problem
from ._progress import Report, progress
from ._pure import pure
from ._record import Record
from ._suite import AutoAttack

# The compiled programs, shared by every call: everything that may change without a retrace is a traced argument.


@jax.jit
def _clean(problem: Problem) -> tuple[jax.Array, jax.Array]:
    logits = problem.logits(problem.x0, 0)
    return problem.wrong(logits), jnp.all(jnp.isfinite(logits), axis=1)


@jax.jit
def _start(method: Method, problem: Problem, round: jax.Array) -> Any:
    return method.init(problem, round)


@partial(jax.jit, donate_argnums=2)
def _advance(method: Method, problem: Problem, state: Any, first: jax.Array, last: jax.Array) -> Any:
    return jax.lax.fori_loop(first, last, lambda i, s: method.step(problem, s, i), state)


@jax.jit
def _finish(method: Method, problem: Problem, state: Any) -> tuple[Track, jax.Array, jax.Array]:
    """The round's findings, and the front door's own opinion of them: inside the set? wrong? (fresh draws)"""
    track = method.finish(problem, state)
    return track, problem.threat.contains(problem.x0, track.x), problem.wrong(problem.logits(track.x, 2**30))


@jax.jit
def _done(method: Method, state: Any) -> jax.Array:
    return method.done(state)


@jax.jit
def _distance(threat: Threat, x0: jax.Array, x: jax.Array) -> jax.Array:
    return threat.distance(x0, x)


def attack(
    model: Model,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    method: Method | AutoAttack,
    key: jax.Array,
    targeted: bool = False,
    draws: int | None = None,
    row_ids: Any = None,
    max_rows: int = 512,
    checks: bool | None = None,
    progress: bool | Report | None = None,
    state: str | os.PathLike[str] | None = None,
) -> AttackResult:
    """Searches the threat set around each row for an input that the model gets wrong.

    Guarantee: where `result.success`, the returned input is inside the set and wrong, both recomputed here on the returned
    array. A row's result depends on the model, the row, the threat, the method, the key and the row's id, and on nothing
    else: not on its neighbours, `max_rows`, restarts from disk, or earlier calls. A second call with another eps, key, or
    weights compiles nothing new.

    Args:
      model: `jaxsec.bind` or `jaxsec.load` makes one.
      x: [B, ...] floating, inside the threat's box. y: [B] integer labels (with `targeted`, the classes to reach).
      threat: the set; eps a scalar or [B].
      method: one method, or `AutoAttack()`.
      key: one PRNG key, consumed; row i uses `fold_in(key, row_ids[i])`.
      draws: model draws averaged per query for a stochastic model (default 20 for AutoAttack "rand", else 1).
      row_ids: [B] ids of the rows in the whole data set, when this call sees a part of it (default 0..B-1).
      max_rows: rows worked on at once; memory grows with it.
      checks: look for signs that the evaluation misleads (masked gradients, randomness, probabilities for logits); None means
        yes for AutoAttack. The cheap checks always run.
      progress: True, False, a function, or None: a bar on a terminal after 3 s.
      state: a folder to keep the run's state in; call again with the same arguments to go on after a kill.

    Returns:
      AttackResult: one row per input; `1 - success.mean()` is robust accuracy.

    Raises: ValueError, TypeError: shapes, NaN, labels, box or key are unusable; the message says how to mend it.
    Status: see `Status`; a row with NaN clean logits is NONFINITE and not attacked.

    Cost: the method's, on live rows only: rows leave at pauses and between rounds, and the rest move to a batch of the next
    power of two. Called under `jit` (or on inputs sharded over several devices) it runs as one program with masks instead:
    no compaction, no flags, shardings flow through.
    Edge cases: an empty batch returns an empty result.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> x, y = jnp.array([[0.6, 0.4]]), jnp.array([0])
      >>> threat = jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0)
      >>> r = jaxsec.attack(model, x, y, threat=threat, method=jaxsec.PGD(steps=5), key=jax.random.key(0))
      >>> bool(r.success[0])
      True
    """
    if draws is None:
        draws = method.draws if isinstance(method, AutoAttack) and method.version == "rand" and model.stochastic else 1
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, x, y, threat, key, row_ids))):
        x, y = jnp.asarray(x), jnp.asarray(y)
        model = tuned(model).replace(info=ModelInfo())
        return pure(model, x, y, threat, _stages(method, threat.norm), as_key(key), targeted, draws, row_ids)
    x, y, n_classes = check_batch(model, x, y, threat, max_rows)
    key = as_key(key)
    ids = np.arange(len(y), dtype=np.uint32) if row_ids is None else np.asarray(row_ids, np.uint32)
    if ids.shape != y.shape:
        raise ValueError(f"row_ids has shape {ids.shape}, y has {y.shape}; give one id per row.")
    stages, notes = _fitted(method, threat.norm, n_classes, x.shape[1:])
    model = tuned(model).replace(info=ModelInfo())  # names are static: they must not decide what is compiled
    if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
        return _sharded(model, x, y, threat, tuple(stages), key, targeted, draws, ids)
    run = _Run(model, np.asarray(x), np.asarray(y), threat, stages, key, targeted, draws, ids, max_rows, n_classes)
    record = run.go(progress, state)
    from ._flags import flags_of

    full = isinstance(method, AutoAttack) if checks is None else checks
    found = flags_of(run, record, notes, full=full)
    return record.result(run.distances(record), tuple(name for name, _ in stages), found)


def _stages(method: Method | AutoAttack, norm: str) -> list[tuple[str, Method]]:
    return method.stages(norm) if isinstance(method, AutoAttack) else [(method.name, method)]


def _fitted(
    method: Method | AutoAttack, norm: str, n_classes: int, row_shape: tuple[int, ...]
) -> tuple[list[tuple[str, Method]], tuple[str, ...]]:
    if not isinstance(method, Method | AutoAttack):
        raise TypeError(f"method is {type(method).__name__}; allowed: AutoAttack() or a Method such as PGD(), APGD(), FAB(), Square().")
    notes = list(method.missing(norm)) if isinstance(method, AutoAttack) else []
    stages = []
    for name, m in _stages(method, norm):
        fitted, said = m.fit(n_classes, row_shape, norm)
        if norm not in fitted.norms:
            raise ValueError(f"{m.name} does not support the threat {norm!r}; it supports {', '.join(fitted.norms)}.")
        stages.append((name, fitted))
        notes += said
    return stages, tuple(notes)


@partial(jax.jit, static_argnames=("names", "targeted", "draws"))
def _sharded_jit(
    model: Model,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    methods: Any,
    key: jax.Array,
    ids: jax.Array,
    names: Any,
    targeted: bool,
    draws: int,
) -> AttackResult:
    return pure(model, x, y, threat, list(zip(names, methods, strict=True)), key, targeted, draws, ids)


def _sharded(
    model: Model,
    x: jax.Array,
    y: Any,
    threat: Threat,
    stages: Sequence[tuple[str, Method]],
    key: jax.Array,
    targeted: bool,
    draws: int,
    ids: Any,
) -> AttackResult:
    names, methods = tuple(n for n, _ in stages), tuple(m for _, m in stages)
    return _sharded_jit(
        model, x, jnp.asarray(y), threat.canonical(x), methods, key, jnp.asarray(ids), names=names, targeted=targeted, draws=draws
    )


class _Run:
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
        n_classes: int,
    ):
        self.model, self.x, self.y, self.stages = model, x, y, stages
        self.threat = jax.tree.map(np.asarray, threat.canonical(jnp.asarray(x)))
        self.keys = jax.random.key_data(row_keys(key, jnp.asarray(ids)))
        self.keys = np.asarray(self.keys)
        self.key, self.targeted, self.draws, self.max_rows, self.n_classes = key, targeted, draws, max_rows, n_classes
        self.ids = ids
        self.impl = jax.random.key_impl(key)

    def problem(self, rows: np.ndarray, stage: int = 0, round: int = 0, *, model: Model | None = None) -> Problem:
        """The rows as a batch of the next power of two; the padding repeats the first row."""
        padded = pad_rows(rows, bucket(len(rows), self.max_rows))
        keys = fold(fold(jax.random.wrap_key_data(jnp.asarray(self.keys[padded]), impl=self.impl), stage), round)
        return Problem(
            model=model or self.model,
            x0=jnp.asarray(self.x[padded]),
            y=jnp.asarray(self.y[padded]),
            threat=jax.tree.map(jnp.asarray, take_leaves(self.threat, padded, len(self.y))),
            keys=keys,
            targeted=self.targeted,
            draws=self.draws,
            n_classes=self.n_classes,
        )

    def chunks(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[i : i + self.max_rows] for i in range(0, len(rows), self.max_rows)]

    def clean(self) -> Record:
        wrong, finite = np.zeros(len(self.y), bool), np.zeros(len(self.y), bool)
        for rows in self.chunks(np.arange(len(self.y))):
            w, f = _clean(self.problem(rows))
            wrong[rows], finite[rows] = np.asarray(w)[: len(rows)], np.asarray(f)[: len(rows)]
        return Record.start(self.x, wrong, finite, self.draws)

    def go(self, choice: bool | Report | None, folder: str | os.PathLike[str] | None) -> Record:
        disk = None if folder is None else Checkpoint(folder, self.identity())
        saved = disk.load() if disk else None
        record, at = saved if saved else (self.clean(), Cursor(0, 0, 0, np.zeros(0, np.int64)))
        resume = saved is not None
        rounds = [m.rounds(self.n_classes) for _, m in self.stages]
        with progress(choice) as report:
            for s, (name, _) in enumerate(self.stages):
                for r in range(rounds[s]):
                    if (s, r) < (at.stage, at.round):
                        continue
                    resumed = resume and (s, r) == (at.stage, at.round)
                    rows = at.rows if resumed else record.live()
                    groups = self.chunks(rows)
                    for c, group in enumerate(groups):
                        if resumed and c < at.chunk:
                            continue
                        done = (s + (r + c / len(groups)) / rounds[s]) / len(self.stages)
                        share = 1 / (len(self.stages) * rounds[s] * len(groups))
                        self.round(record, s, r, group, lambda f, n=name, d=done, w=share: report(n, d + f * w, len(record.live())))
                        if disk:
                            disk.save(record, Cursor(s, r, c + 1, rows))
                    if len(record.live()) == 0:
                        break
        return record

    def round(self, record: Record, stage: int, round: int, rows: np.ndarray, report: Any) -> None:
        """One round of one stage on one chunk; solved rows leave at pauses, the rest move to smaller batches."""
        method = self.stages[stage][1]
        problem = self.problem(rows, stage, round)
        state = _start(method, problem, jnp.int32(round))
        steps = method.total_steps
        pause = max(10, -(-steps // 10))
        for first in range(0, steps, pause):
            live = np.flatnonzero(~np.asarray(_done(method, state))[: len(rows)])
            size = bucket(max(len(live), 1), self.max_rows)
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
                )
                state, rows = take_rows(state, keep), rows[live]
            state = _advance(method, problem, state, jnp.int32(first), jnp.int32(min(first + pause, steps)))
            report(min(first + pause, steps) / steps)
        self.enter(record, stage, method, problem, state, rows, np.arange(len(rows)))

    def enter(self, record: Record, stage: int, method: Method, problem: Problem, state: Any, rows: np.ndarray, which: np.ndarray) -> None:
        track, inside, wrong = jax.tree.map(np.asarray, _finish(method, problem, state))
        track, inside, wrong = jax.tree.map(lambda a: a[which], (track, inside, wrong))
        record.merge(rows[which], track, stage, inside, wrong, method.needs_gradient, self.draws)

    def distances(self, record: Record) -> np.ndarray:
        out = np.zeros(len(self.y), np.float32)
        for rows in self.chunks(np.arange(len(self.y))):
            p = self.problem(rows)
            x = jnp.asarray(record.x[pad_rows(rows, p.y.shape[0])])
            out[rows] = np.asarray(_distance(p.threat, p.x0, x))[: len(rows)]
        out[record.status == Status.WRONG_BEFORE] = 0.0
        return out

    def identity(self) -> str:
        from .. import __version__

        settings = (__version__, self.targeted, self.draws, self.n_classes, repr([(n, m) for n, m in self.stages]))
        return fingerprint(self.model, self.x, self.y, self.threat, self.keys, repr(settings))
