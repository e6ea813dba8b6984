"""Counterexamples by gradient: many starts side by side, each descending towards one clause of the property."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..core._model import Model
from ..core._rewrite import tuned
from ._question import Case, Question

_STARTS = 256
_ROUND = 20


def search(
    question: Question, case: Case, key: jax.Array, *, rounds: int, out_of_time: Callable[[], bool]
) -> tuple[np.ndarray, np.ndarray] | None:
    """A replayed counterexample in the case's box, or None after `rounds` of fresh starts."""
    model = tuned(question.model)
    per_form = 4 * len(case.lo) * 8
    starts = int(np.clip((1 << 24) // max(per_form, 1), 32, _STARTS))
    for r in range(rounds):
        if out_of_time():
            return None
        x = _descend(model, question.shape, case.lo, case.hi, case.spec, case.at, jax.random.fold_in(key, r), starts=starts)
        found = question.counterexample(np.asarray(x).reshape(-1, len(case.lo)))
        if found is not None:
            return found
    return None


@functools.partial(jax.jit, static_argnums=1, static_argnames="starts")
def _descend(model: Model, shape: tuple[int, ...], lo, hi, spec, at, key, *, starts: int) -> jax.Array:
    """[2, starts, n] the ends of the descents and their best points, by signed steps that shrink.

    The objective of a start is the largest row of its clause, so that all rows come below 0 together (the others do not count). Half of
    the starts are corners of the box, where outputs of near-linear networks are least.
    """
    inside, corners, half = (jax.random.fold_in(key, i) for i in range(3))
    x = jnp.where(
        jax.random.bernoulli(half, 0.5, (starts, 1)),
        jax.random.uniform(inside, (starts, lo.size)),
        jax.random.bernoulli(corners, 0.5, (starts, lo.size)).astype(jnp.float32),
    )
    lo, hi = jnp.asarray(lo)[None], jnp.asarray(hi)[None]
    x = lo + x * (hi - lo)
    clause = jnp.arange(starts) % len(spec)
    c, d = spec[clause], at[clause]

    def worst(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = model(x.reshape(starts, *shape)).reshape(starts, -1)
        value = jnp.max(jnp.einsum("smk,sk->sm", c, y) + d, axis=1)
        return jnp.sum(value), value

    def step(i: jax.Array, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, best, at_best = state
        (_, value), g = jax.value_and_grad(worst, has_aux=True)(x)
        better = value < best
        best, at_best = jnp.where(better, value, best), jnp.where(better[:, None], x, at_best)
        size = 0.5 * (1 - i / _ROUND) ** 2 + 0.01
        return jnp.clip(x - size * jnp.sign(g) * (hi - lo) * 0.5, lo, hi), best, at_best

    x, _, best = jax.lax.fori_loop(0, _ROUND, step, (x, jnp.full(starts, jnp.inf), x))
    return jnp.stack([x, best])
