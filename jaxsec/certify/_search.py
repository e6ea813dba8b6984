"""Counterexamples by gradient, in two ways: a quick descent in one small program, and the engine's own Auto-PGD.

The descent comes first, because most properties with a counterexample need no more, and Auto-PGD's programs take longer to compile than
the descent to find it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..attack import APGD, attack
from ..core._model import Model, bind
from ..core._rewrite import tuned
from ..threat import Box
from ._cases import Case
from ._question import Question, differentiable

_STARTS = 256
_ROUND = 20


def search(
    question: Question, case: Case, key: jax.Array, *, rounds: int, out_of_time: Callable[[], bool]
) -> tuple[np.ndarray, np.ndarray] | None:
    """A replayed counterexample in the case's box, or None after `rounds` of fresh starts."""
    model = tuned(question.model)
    starts, smooth = _starts(case), differentiable(question.model, question.shape)
    for r in range(rounds):
        if out_of_time():
            return None
        start = jax.random.fold_in(key, r)
        if smooth:
            x = np.asarray(_descend(model, question.shape, case.lo, case.hi, case.spec, case.at, start, starts=starts))
        else:
            x = case.lo + np.asarray(jax.random.uniform(start, (starts, len(case.lo)))) * (case.hi - case.lo)
        found = question.counterexample(x.reshape(-1, len(case.lo)))
        if found is not None:
            return found
    return None


def auto_pgd(question: Question, case: Case, key: jax.Array) -> tuple[np.ndarray, np.ndarray] | None:
    """A replayed counterexample found by Auto-PGD, or None: 0 against the most violated clause are the logits of a classifier of safe
    inputs, and its margin is what is attacked. Boxes without an end have no start, and networks without a derivative no direction: None."""
    ends = np.isfinite(case.lo).all() and np.isfinite(case.hi).all()
    if not (ends and len(case.spec) and differentiable(question.model, question.shape)):
        return None
    rows = _starts(case)
    lo, hi = case.lo.reshape(question.shape), case.hi.reshape(question.shape)
    model = bind(_unsafe, (question.model, case.spec, case.at))
    middle = np.repeat((lo + 0.5 * (hi - lo))[None], rows, 0)
    found = attack(
        model, middle, np.zeros(rows, np.int32), threat=Box(lower=lo, upper=hi), method=APGD(loss="margin"), key=key,
        max_rows=rows, min_rows=rows, checks=False, progress=False,
    )  # fmt: skip
    return question.counterexample(np.asarray(found.x).reshape(rows, -1))


def _unsafe(asked: tuple[Model, jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """[N, 1 + clauses]: 0, and how far each clause is violated."""
    model, spec, at = asked
    y = model(x).reshape(len(x), -1)
    worst = jnp.max(jnp.einsum("cmk,nk->ncm", spec, y) + at[None], axis=2)
    return jnp.concatenate([jnp.zeros_like(worst[:, :1]), -worst], axis=1)


def _starts(case: Case) -> int:
    return int(np.clip((1 << 24) // (4 * len(case.lo) * 8), 32, _STARTS))


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
