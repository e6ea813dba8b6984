"""Random numbers of rows inside a hot loop: counter-based, so a step costs one small pass instead of three hashes of keys."""

import functools

import jax
import jax.numpy as jnp

from .._native import key_words, on_one_cpu, philox_bits, random_bits, sample_offset


def row_streams(keys: jax.Array) -> jax.Array:
    """keys [B], thereby consumed -> [B, 2] uint32, one stream per row."""
    return jax.vmap(key_words)(keys)


def row_uniforms(streams: jax.Array, step: jax.Array, n: int) -> jax.Array:
    """[B, n] float32 in [0, 1), multiples of 2^-24: `n` fresh numbers of each row's stream for each `step` (int32, >= 0).

    Guarantee: depends on the stream, the step and n alone. `n` must be the same at every step, or steps overlap.
    """
    offset = sample_offset(step, n)
    draw = random_bits if on_one_cpu() else philox_bits
    bits = jax.vmap(functools.partial(draw, shape=(n,), offset=offset))(streams)
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)
