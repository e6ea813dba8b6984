"""When an input counts as adversarial: beyond rounding and beyond luck while a method searches, and once more at the front door."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core._check import logits_of
from ..core._manual import marked_like
from ..core._model import Model
from ..core._rewrite import untuned
from ._problem import Problem

# A stochastic model is judged by the mean over that many times the draws of a query, here and at the front door ...
JUDGE = 4
# ... and a row is frozen only where the gap of the mean probabilities is that many standard errors wide: over a hundred steps
# any narrower test passes by luck somewhere.
ERRORS = 3.0
# A method's margin must be that many times wider than rounding, the front door's once: so the door's other program still agrees.
WIDER = 2.0
_CONFIRM_AT, _JUDGE_AT = 2**29, 2**30  # steps that no method uses, so their draws are fresh


def confirmed(problem: Problem, x: jax.Array, logits: jax.Array, step: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """([B] bool: wrong beyond doubt, [B] int32: further queries that this cost).

    Deterministic model: the margin is beyond what another order of summation could change. Stochastic model: over `JUDGE`
    times the draws, all fresh, the mean probabilities differ by `ERRORS` standard errors; asked only when a row is wrong, and
    counted only there.
    """
    wrong = problem.wrong(logits)
    if not problem.model.stochastic:
        return _beyond_rounding(problem, logits, WIDER), jnp.zeros_like(problem.y)
    n = judging(True, problem.draws)

    def test(wrong: jax.Array) -> jax.Array:
        own = jax.nn.one_hot(problem.y, problem.n_classes, dtype=bool)

        def add(sums: tuple[jax.Array, jax.Array], d: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            p = jax.nn.softmax(problem.draw(x, _CONFIRM_AT + jnp.asarray(step), d))
            gap = p - jnp.sum(jnp.where(own, p, 0.0), axis=1, keepdims=True)
            return (sums[0] + gap, sums[1] + gap * gap), None

        none = jnp.zeros(own.shape, jnp.float32)
        (total, square), _ = jax.lax.scan(add, marked_like((none, none), x), jnp.arange(n))
        mean = total / n
        error = jnp.sqrt(jnp.maximum(square / n - mean * mean, 0.0) / n)
        if problem.targeted:  # above every other class
            return wrong & jnp.all(own | (mean < -ERRORS * error), axis=1)
        return wrong & jnp.any(~own & (mean > ERRORS * error), axis=1)

    sure = jax.lax.cond(jnp.any(wrong), test, lambda w: w, wrong)
    return sure, jnp.where(wrong, n, 0).astype(jnp.int32)


def _beyond_rounding(problem: Problem, logits: jax.Array, times: float) -> jax.Array:
    return problem.wrong(logits) & (problem.loss("margin", logits) > times * problem.unsure(logits))


class Opinion(NamedTuple):
    """[B] each: wrong? wrong by more than rounding? all logits finite? the largest logit in magnitude."""

    wrong: jax.Array
    surely: jax.Array
    finite: jax.Array
    scale: jax.Array


def judge(problem: Problem, x: jax.Array) -> Opinion:
    """The front door's own opinion of `x`.

    By the program that the user wrote. Stochastic model: by the mean over `JUDGE` times the draws of a query, all of them fresh,
    which rounding does not decide.
    """
    logits = problem.replace(model=untuned(problem.model), draws=judging(problem.model.stochastic, problem.draws)).logits(x, _JUDGE_AT)
    wrong = problem.wrong(logits)
    surely = wrong if problem.model.stochastic else _beyond_rounding(problem, logits, 1.0)
    finite = jnp.all(jnp.isfinite(logits), axis=1)
    return Opinion(wrong, surely, finite, jnp.where(finite, jnp.max(jnp.abs(logits), axis=1), 0.0))


def judging(stochastic: bool, draws: int) -> int:
    """Queries that one `judge` costs per row."""
    return draws * JUDGE if stochastic else draws


def rounding_of(model: Model, x: Any) -> float:
    """The share of the largest logit that rounding may decide: sums in float32 (15 units seen on a small net), then the logits' dtype."""
    return 16 * float(jnp.finfo(jnp.float32).eps) + 2 * float(jnp.finfo(logits_of(model, x).dtype).eps)
