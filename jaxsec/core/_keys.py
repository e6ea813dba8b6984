"""Keys of rows: everything random about a row is derived from its own id, so neighbours, batch size and mesh cannot matter."""

import functools

import jax
import jax.numpy as jnp


# compiled, because the front door asks for keys outside of any program, where a vmapped hash costs milliseconds to trace
@functools.partial(jax.jit, inline=True)
def row_keys(key: jax.Array, row_ids: jax.Array) -> jax.Array:
    """One key per row: `fold_in(key, row_id)`. key, [B] uint32 -> keys [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, row_ids.astype(jnp.uint32))


@functools.partial(jax.jit, inline=True)
def fold(keys: jax.Array, data: jax.Array | int) -> jax.Array:
    """`fold_in` of the same number into each row's key. keys [B] -> keys [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, jnp.asarray(data).astype(jnp.uint32))


def as_key(key: object) -> jax.Array:
    """A typed key from a typed or a legacy uint32 key; an int is refused, because a seed is not a key."""
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.shape == ():
                return key
        elif key.dtype == jnp.uint32 and key.ndim == 1:
            return jax.random.wrap_key_data(key)
    shown = repr(key) if not isinstance(key, jax.Array) else f"array of dtype {key.dtype} and shape {key.shape}"
    raise TypeError(f"key is {shown}; one PRNG key is needed, e.g. jax.random.key(0).")
