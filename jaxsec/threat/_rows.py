"""How a threat's leaves meet a batch: shapes, dtypes, and additions that round to the safe side."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def working_dtype(x: Any) -> Any:
    """float32, or x's dtype where that is wider: norms of half-precision rows are never summed in half precision."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x has dtype {x.dtype}; a threat needs floating point rows, e.g. x.astype(jnp.float32) / 255.")
    return jnp.promote_types(x.dtype, jnp.float32)


def flat(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B, D], also for empty batches."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def column(v: jax.Array, x: jax.Array) -> jax.Array:
    """[B] -> [B, 1, ..., 1] with the rank of `x`."""
    return v.reshape(v.shape + (1,) * (x.ndim - 1))


def per_row(name: str, v: Any, x: jax.Array) -> jax.Array:
    """A scalar or [B] leaf as a strong [B] array in the working dtype."""
    v = jnp.asarray(v, working_dtype(x))
    if v.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"{name} has shape {v.shape} for a batch of {x.shape[0]}; allowed: a scalar, or one value per row, ({x.shape[0]},)."
        )
    return jnp.broadcast_to(v, x.shape[:1])


def aligned(name: str, v: Any, x: jax.Array) -> jax.Array:
    """A scalar, one row's shape, or [B, ...] leaf as a strong array of x's rank (a scalar stays one), trailing axes aligned."""
    return shaped(name, jnp.asarray(v, working_dtype(x)), x)


def shaped(name: str, v: jax.Array, x: jax.Array) -> jax.Array:
    """As `aligned`, in v's own dtype."""
    if v.ndim == 0:
        return v
    shape = (1,) * (x.ndim - v.ndim) + v.shape
    if len(shape) != x.ndim or any(a not in (1, b) for a, b in zip(shape, x.shape, strict=True)):
        raise ValueError(
            f"{name} has shape {v.shape}; allowed: a scalar, or a shape that broadcasts to one row {x.shape[1:]} or to {x.shape}."
        )
    return v.reshape(shape)


def rounded(x: jax.Array) -> jax.Array:
    """Half-precision `x` as it is stored: inside a program XLA may otherwise go on with the wider number that it was rounded from."""
    return lax.optimization_barrier(x) if jnp.finfo(x.dtype).bits < 32 else x


def inward(x0: jax.Array, x: jax.Array) -> jax.Array:
    """`x` in the dtype of `x0`, each element rounded towards `x0`: what is in a set around `x0` stays in it. Else the same array."""
    if x.dtype == x0.dtype:
        return x
    centre = x0.astype(x.dtype)
    return add_inward(centre, x - centre, x0.dtype)


def _add_rounded(x0: jax.Array, d: jax.Array, dtype: Any, outward: bool) -> jax.Array:
    # Knuth's TwoSum: total + error is x0 + d without rounding, so the error's sign tells on which side the sum fell
    total = x0 + d
    part = total - x0
    error = (x0 - (total - part)) + (d - part)
    side = jnp.sign(d)
    away = side * jnp.asarray(jnp.inf, x0.dtype)
    if outward:
        total = jnp.where(error * side > 0, jnp.nextafter(total, jnp.where(side == 0, total, away)), total)
    else:
        total = jnp.where(error * side < 0, jnp.nextafter(total, x0), total)
    if dtype == total.dtype:
        return total
    narrow = rounded(total.astype(dtype))
    beyond = (narrow.astype(total.dtype) - total) * side
    if outward:
        return jnp.where(beyond < 0, jnp.nextafter(narrow, jnp.where(side == 0, narrow, away.astype(dtype))), narrow)
    return jnp.where(beyond > 0, jnp.nextafter(narrow, x0.astype(dtype)), narrow)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def add_inward(x0: jax.Array, d: jax.Array, dtype: Any) -> jax.Array:
    """`x0 + d` in `dtype`, rounded towards `x0`: the real distance of the result from `x0` is at most `|d|` per element."""
    return _add_rounded(x0, d, dtype, outward=False)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def add_outward(x0: jax.Array, d: jax.Array, dtype: Any) -> jax.Array:
    """`x0 + d` in `dtype`, rounded away from `x0` where inexact: the real distance is at least `|d|` per element."""
    return _add_rounded(x0, d, dtype, outward=True)


# nextafter has no derivative rule; rounding is the identity to first order
@add_inward.defjvp
def _add_inward_jvp(dtype: Any, primals: Any, tangents: Any) -> Any:
    return add_inward(primals[0], primals[1], dtype), (tangents[0] + tangents[1]).astype(dtype)


@add_outward.defjvp
def _add_outward_jvp(dtype: Any, primals: Any, tangents: Any) -> Any:
    return add_outward(primals[0], primals[1], dtype), (tangents[0] + tangents[1]).astype(dtype)
