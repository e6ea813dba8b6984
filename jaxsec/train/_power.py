"""The largest singular value of a linear operator by the power method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def power_iteration(op: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any, steps: int, key: jax.Array) -> jax.Array:
    """[] the largest singular value of a linear operator, from below; its derivative is that at the singular vectors found."""
    transpose = jax.linear_transpose(op, jax.ShapeDtypeStruct(shape, dtype))
    start = jax.random.normal(key, shape, dtype)

    def step(_: Any, v: jax.Array) -> jax.Array:
        (v,) = transpose(op(v))
        return v / jnp.maximum(jnp.linalg.norm(v.reshape(-1)), jnp.finfo(dtype).tiny)

    v = lax.stop_gradient(step(0, start))
    v = lax.stop_gradient(lax.fori_loop(0, steps, step, v))
    out = op(v)
    u = lax.stop_gradient(out) / jnp.maximum(jnp.linalg.norm(lax.stop_gradient(out).reshape(-1)), jnp.finfo(dtype).tiny)
    return jnp.sum(u * out)  # not the norm itself, which has no slope where the operator is 0
