"""`random_bits`: native on the CPU, the twin elsewhere, the same bits everywhere."""

import functools
import math

import jax
import jax.numpy as jnp

from ._load import available
from ._offset import as_offset
from ._philox import dependent_zero, philox_bits

_TARGET = "jaxsec_random_bits"


def random_bits(key: jax.Array, shape: tuple[int, ...], *, offset: int | jax.Array = 0) -> jax.Array:
    """Uniform 32-bit words; equal, bit for bit, to `philox_bits(key, offset, shape)`.

    Guarantee: depends on `key`, `offset` and `shape` alone: not on the platform, on the number of threads, on `vmap`, on
    sharding, or on whether native code is there.

    Args:
      key: [2] uint32; `key_words` makes one from a typed key.
      shape: of the result; at most 2^34 words.
      offset: first block of four words, an `int` or uint32[2]. Under `shard_map` give each shard its own, made by
        `sample_offset` from the *global* index of its first sample, else every shard draws the same words.

    Returns:
      jax.Array: `shape` uint32.

    Raises:
      TypeError, ValueError: as `philox_bits` and `as_offset`.

    Cost: native, one pass over the result; `vmap` over keys or offsets stays one call. Not differentiable: integers.
    Edge cases: under `jit` with sharded inputs the native call is opaque to the partitioner, which gathers; use `shard_map`.
      `jax.export` of a program with native code needs `disabled_checks` for the target; set `JAXSEC_NATIVE=0` to export pure JAX.
    Source: see `philox4x32`.

    Example:
      >>> import jax.numpy as jnp
      >>> [hex(w) for w in random_bits(jnp.zeros(2, jnp.uint32), (2,))]
      ['0x6627e8d5', '0xe169c58d']
    """
    return _bits(key, as_offset(offset), shape=tuple(shape), native=available())


# `native` is an argument so that the switch is part of what compiled programs are looked up by.
@functools.partial(jax.jit, static_argnames=("shape", "native"))
def _bits(key: jax.Array, offset: jax.Array, *, shape: tuple[int, ...], native: bool) -> jax.Array:
    twin = functools.partial(philox_bits, shape=shape)
    if not native or math.prod(shape) == 0:
        return twin(key, offset)
    jax.eval_shape(twin, key, offset)  # the twin's argument checks
    return jax.lax.platform_dependent(key, offset, cpu=functools.partial(_native_bits, shape=shape), default=twin)


def _native_bits(key: jax.Array, offset: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # The handler takes any number of leading axes, so broadcasting keeps a vmapped draw one call.
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(shape, jnp.uint32), vmap_method="broadcast_all")
    return call(key, offset) | dependent_zero(key, offset)
