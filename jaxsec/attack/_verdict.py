"""When an input counts as adversarial: beyond rounding and beyond luck while a method searches, and once more at the front door."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core._check import logits_of
from ..core._manual import marked_like
from ..core._model import Model
from ..core._rewrite import untuned
from ._problem import Problem

# A stochastic model is judged over that many times the draws of a query, here and at the front door, and never over fewer than LEAST.
JUDGE, LEAST = 4, 20
# A row is frozen only where the gap of the mean probabilities is that many standard errors wide: a hundred steps are as many chances to
# be lucky. The front door asks ALONE of an input that a method is not sure of (one in each of twenty rounds), and AGAIN of one that it is.
ERRORS, ALONE, AGAIN = 3.0, 2.0, 1.0
_CONFIRM_AT, _JUDGE_AT = 2**29, 2**30  # steps that no method uses, so their draws are fresh


def confirmed(problem: Problem, x: jax.Array, logits: jax.Array, step: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """([B] bool: wrong beyond doubt, [B] int32: further queries that this cost).

    Deterministic model: the margin is beyond what another order of summation could change. Stochastic model: over fresh draws
    the mean probabilities differ by `ERRORS` standard errors; asked only when a row is wrong, and counted only there. An input that
    is wrong and not beyond doubt is a candidate, and the front door decides.
    """
    wrong = problem.wrong(logits)
    if not problem.model.stochastic:
        return wrong & (problem.loss("margin", logits) > problem.unsure(logits)), jnp.zeros_like(problem.y)
    at = _CONFIRM_AT + jnp.asarray(step)
    sure = jax.lax.cond(jnp.any(wrong), lambda w: w & (_gap(problem, x, at)[0] > ERRORS), lambda w: w, wrong)
    return sure, jnp.where(wrong, judging(True, problem.draws), 0).astype(jnp.int32)


def _gap(problem: Problem, x: jax.Array, step: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """([B] by how many standard errors the mean probabilities of fresh draws meet the goal, [B] bool: all logits finite)."""
    n = judging(True, problem.draws)
    own = jax.nn.one_hot(problem.y, problem.n_classes, dtype=bool)

    def add(sums: tuple[jax.Array, jax.Array, jax.Array], d: jax.Array) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        z = problem.draw(x, step, d)
        p = jax.nn.softmax(z)
        gap = p - jnp.sum(jnp.where(own, p, 0.0), axis=1, keepdims=True)
        return (sums[0] + gap, sums[1] + gap * gap, sums[2] & jnp.all(jnp.isfinite(z), axis=1)), None

    none = jnp.zeros(own.shape, jnp.float32)
    sums = marked_like((none, none, jnp.ones(own.shape[:1], bool)), x)
    (total, square, finite), _ = jax.lax.scan(add, sums, jnp.arange(n))
    mean = total / n
    error = jnp.sqrt(jnp.maximum(square - n * mean * mean, 0.0) / ((n - 1) * n)) + 1e-12
    wide = jnp.where(own, -jnp.inf, mean / error)
    # the goal is one class above all others, or any class above the label
    return jnp.min(jnp.where(own, jnp.inf, -wide), axis=1) if problem.targeted else jnp.max(wide, axis=1), finite


class Opinion(NamedTuple):
    """[B] each: wrong? wrong, of an input that a method is sure of? of one that it is not sure of? finite logits? their `deciding`."""

    wrong: jax.Array
    again: jax.Array
    alone: jax.Array
    finite: jax.Array
    scale: jax.Array


def judge(problem: Problem, x: jax.Array) -> Opinion:
    """The front door's own opinion of `x`, by the program that the user wrote.

    Deterministic model: what argmax says, the criterion of the published evaluations; that methods leave a margin where there is one
    only makes it hold on other batch sizes and machines. Stochastic model: the gap of the mean probabilities over fresh draws.
    """
    problem = problem.replace(model=untuned(problem.model))
    if problem.model.stochastic:
        wide, finite = _gap(problem, x, _JUDGE_AT)
        return Opinion(wide > 0, wide > AGAIN, wide > ALONE, finite, jnp.zeros(finite.shape, jnp.float32))
    logits = problem.logits(x, _JUDGE_AT)
    wrong, finite = problem.wrong(logits), jnp.all(jnp.isfinite(logits), axis=1)
    return Opinion(wrong, wrong, wrong, finite, jnp.where(finite, problem.deciding(logits), 0.0))


def door_verdict(problem: Problem, track: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The front door on what a round found: [B] each, inside the set? wrong? wrong on the whole, be it by luck?"""
    seen = judge(problem, track.x)
    return problem.threat.contains(problem.x0, track.x), jnp.where(track.success, seen.again, seen.alone), seen.wrong


def judging(stochastic: bool, draws: int) -> int:
    """Queries that one `judge` costs per row."""
    return max(draws * JUDGE, LEAST) if stochastic else draws


def rounding_of(model: Model, x: Any) -> float:
    """The share of the largest logit that rounding may decide: sums in float32 (15 units seen on a small net), then the logits' dtype."""
    return 32 * float(jnp.finfo(jnp.float32).eps) + 2 * float(jnp.finfo(logits_of(model, x).dtype).eps)
