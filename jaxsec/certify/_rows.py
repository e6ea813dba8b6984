"""The compiled programs of a certificate: margins of rows under a threat, clean rows, and the whole ladder as one program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..bound._method import BoundMethod
from ..bound._run import lower_rows
from ..core._model import Model
from ..threat import Threat
from ._certificate import Certificate, Verdict
from ._question import TOLERANCE


def margins(y: jax.Array, k: int, dtype: Any) -> jax.Array:
    """[B, K - 1, K] the forms `logit[y] - logit[j]` for j other than y, in rising order of j."""
    others = jnp.arange(k - 1)[None] + (jnp.arange(k - 1)[None] >= y[:, None])
    return jax.nn.one_hot(y, k, dtype=dtype)[:, None] - jax.nn.one_hot(others, k, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("sound", "budget"))
def least_margins(model: Model, x: jax.Array, y: jax.Array, threat: Threat, method: BoundMethod, *, sound: bool, budget: int) -> Any:
    """([B] the least margin's lower bound, [B] what it must exceed)."""
    logits = model(x)
    spec = margins(y, logits.shape[1], x.dtype)
    low = jnp.min(lower_rows(model, x, threat, spec, jnp.zeros(spec.shape[:2], x.dtype), method, sound=sound, budget=budget), axis=1)
    slack = jnp.zeros_like(low) if sound else TOLERANCE * jnp.max(jnp.abs(logits), axis=1)
    return low, slack


@jax.jit
def clean_status(model: Model, x: jax.Array, y: jax.Array) -> jax.Array:
    """[B] int32: OPEN, or why a row is not bounded at all."""
    logits = model(x)
    right = jnp.argmax(logits, axis=1) == y
    state = jnp.where(right, Verdict.OPEN.value, Verdict.WRONG_BEFORE.value)
    return jnp.where(jnp.all(jnp.isfinite(logits), axis=1), state, Verdict.NONFINITE.value).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("names", "precision", "budget"))
def all_rows(model: Model, x: Any, y: Any, threat: Threat, methods: Any, *, names: Any, precision: str, budget: int) -> Certificate:
    """Every method on every row, as one program."""
    status = clean_status(model, x, y)
    margin = jnp.full(len(y), -jnp.inf, x.dtype)
    by = jnp.full(len(y), -1, jnp.int32)
    for i, m in enumerate(methods):
        low, slack = least_margins(model, x, y, threat, m, sound=precision == "sound", budget=budget)
        proved = (status == Verdict.OPEN.value) & (low > slack)
        margin = jnp.where(status == Verdict.OPEN.value, jnp.fmax(margin, low), margin)
        by, status = jnp.where(proved, i, by), jnp.where(proved, Verdict.CERTIFIED.value, status)
    robust = status == Verdict.CERTIFIED.value
    return Certificate(robust=robust, margin=margin, method=by, status=status, methods=names, precision=precision)
