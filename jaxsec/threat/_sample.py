"""Random displacements, one key per row, so that a row's draw depends on its own key alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._rows import flat, working_dtype


def each_row(draw: Callable[[jax.Array, int, Any], jax.Array], keys: jax.Array, x0: jax.Array) -> jax.Array:
    """`draw(key, D, dtype)` of every row in the shape of `x0` and its working dtype.

    Args: keys: [B] typed keys, or one key, from which row i gets `fold_in(key, i)`.
    """
    keys = keys_of(keys, x0)
    dtype, size = working_dtype(x0), flat(x0).shape[1]
    return jax.vmap(lambda key: draw(key, size, dtype))(keys).reshape(x0.shape)


def keys_of(keys: jax.Array, x0: jax.Array) -> jax.Array:
    """[B] typed keys, from as many or from one; TypeError for anything else."""
    rows = x0.shape[0]
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape not in ((), (rows,)):
        raise TypeError(
            f"keys is an array of dtype {keys.dtype} and shape {keys.shape}; allowed: one typed key, or {rows} of them, one per row."
        )
    return keys if keys.shape else jax.vmap(jax.random.fold_in, in_axes=(None, 0))(keys, jnp.arange(rows, dtype=jnp.uint32))


def linf_ball(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Uniform in the unit cube [-1, 1]^D."""
    return jax.random.uniform(key, (size,), dtype, -1.0, 1.0)


def linf_sphere(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Uniform in the cube, stretched until the largest element is 1 (AutoAttack's start; not uniform on the surface)."""
    u = linf_ball(key, size, dtype)
    return u / _positive(jnp.max(jnp.abs(u), initial=0))


def gaussian(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Standard normal elements."""
    return jax.random.normal(key, (size,), dtype)


def l2_sphere(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Uniform on the unit sphere: a gaussian over its length."""
    z = gaussian(key, size, dtype)
    return z / _positive(jnp.sqrt(jnp.sum(z * z)))


def l2_ball(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Uniform in the unit ball: the sphere times U^(1/D)."""
    k_direction, k_length = jax.random.split(key)
    return l2_sphere(k_direction, size, dtype) * jax.random.uniform(k_length, (), dtype) ** (1.0 / max(size, 1))


def l1_ball(key: jax.Array, size: int, dtype: Any) -> jax.Array:
    """Uniform in the unit cross-polytope: Laplace elements over their sum plus one more exponential (Barthe et al. 2005)."""
    k_elements, k_rest = jax.random.split(key)
    z = jax.random.laplace(k_elements, (size,), dtype)
    return z / _positive(jnp.sum(jnp.abs(z)) + jax.random.exponential(k_rest, (), dtype))


def _positive(v: jax.Array) -> jax.Array:
    return jnp.maximum(v, jnp.finfo(v.dtype).tiny)
