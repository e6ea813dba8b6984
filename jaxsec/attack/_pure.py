"""The same attack as one traced program: masks instead of compaction, for use under `jit`, `vmap` and on sharded inputs."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core._check import n_classes_of
from ..core._keys import fold, row_keys
from ..core._manual import marked_like
from ..core._model import Model
from ..core._result import AttackResult, Status
from ..threat import Threat
from ._method import Method
from ._problem import Problem, expand
from ._verdict import door_verdict, judge, judging, rounding_of


def pure(
    model: Model,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    stages: list[tuple[str, Method]],
    key: jax.Array,
    targeted: bool,
    draws: int,
    row_ids: Any,
) -> AttackResult:
    """`attack` without a host: the same keys, methods and re-verification, every row worked on to the end."""
    k = n_classes_of(model, x)
    x, y, threat, key = marked_like((x, y, threat.canonical(x), key), (x, y))
    ids = jnp.arange(x.shape[0], dtype=jnp.uint32) if row_ids is None else jnp.asarray(row_ids, jnp.uint32)
    keys = row_keys(key, ids)
    base = Problem(
        model=model,
        x0=x,
        y=y.astype(jnp.int32),
        threat=threat,
        keys=keys,
        targeted=targeted,
        draws=draws,
        n_classes=k,
        rounding=rounding_of(model, x),
    )
    wrong, _, _, finite, scale = judge(base.replace(keys=fold(fold(keys, 0), 0)), x)
    base = base.replace(scale=scale)
    zero = jnp.zeros_like(base.y)
    result = AttackResult(
        x=x,
        success=wrong,
        loss=jnp.full(wrong.shape, -jnp.inf, jnp.float32),
        distance=jnp.zeros(wrong.shape, jnp.float32),
        queries=zero + judging(model.stochastic, draws),
        gradients=zero,
        first_step=jnp.where(wrong, 0, -1).astype(jnp.int32),
        stage=zero - 1,
        status=jnp.where(wrong, int(Status.WRONG_BEFORE), jnp.where(finite, int(Status.ROBUST), int(Status.NONFINITE))).astype(jnp.int32),
        zero_gradients=zero,
        bad_gradients=zero,
        rising=jnp.zeros(wrong.shape, bool),
        stages=tuple(name for name, _ in stages),
    )
    for s, (_, method) in enumerate(stages):

        def one(r: jax.Array, result: AttackResult, s: int = s, m: Method = method) -> AttackResult:
            return _round(base.replace(keys=fold(fold(keys, s), r)), m, result, s, r)

        result = jax.lax.fori_loop(0, method.rounds(k), one, marked_like(result, x))
    return result.replace(distance=jnp.where(wrong, 0.0, threat.distance(x, result.x)))


def _round(problem: Problem, method: Method, old: AttackResult, stage: int, round: jax.Array) -> AttackResult:
    state = marked_like(method.init(problem, round), problem.x0)
    state = jax.lax.fori_loop(0, method.total_steps, lambda i, s: method.step(problem, s, i), state)
    track = method.finish(problem, state)
    inside, wrong, _ = door_verdict(problem, track)
    live = ~old.success & (old.status != int(Status.NONFINITE))
    good = live & (track.success | track.candidate) & inside & wrong
    claimed = live & track.success
    status = jnp.where(claimed & ~inside, int(Status.INFEASIBLE), jnp.where(claimed & ~wrong, int(Status.UNVERIFIED), old.status))
    count = live.astype(jnp.int32)
    rising = live & ~good & jnp.isfinite(track.late) & (track.loss - track.late > 0.05 * jnp.abs(track.loss) + 1e-6)
    return old.replace(
        x=jnp.where(expand(live & inside, problem.x0), track.x, old.x),
        success=old.success | good,
        loss=jnp.where(live, track.loss, old.loss),
        queries=old.queries + (track.queries + judging(problem.model.stochastic, problem.draws)) * count,
        gradients=old.gradients + track.gradients * count,
        first_step=jnp.where(good, jnp.where(track.success, track.first_step, method.total_steps), old.first_step),
        stage=jnp.where(good, stage, old.stage),
        status=jnp.where(good, int(Status.ADVERSARIAL), status).astype(jnp.int32),
        zero_gradients=old.zero_gradients + track.zero_gradients * count,
        bad_gradients=old.bad_gradients + track.bad_gradients * count,
        rising=jnp.where(live & method.ascends, rising, old.rising),
    )
