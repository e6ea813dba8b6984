"""Philox4x32-10 in JAX's 32-bit integers: the specification of the native random bits."""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio, sqrt(3) - 1
_ROUNDS = 10
_HALF = 0xFFFF

Words: TypeAlias = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def multiply(a: jax.Array, b: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """High and low word of the 64-bit product of two uint32, made of 16-bit halves: JAX has no uint64 unless x64 is on."""
    b = jnp.asarray(b, jnp.uint32) if isinstance(b, jax.Array) else jnp.uint32(b)
    a0, a1 = a & _HALF, a >> 16
    b0, b1 = b & _HALF, b >> 16
    cross = a1 * b0 + (a0 * b0 >> 16)  # at most (2^16 - 1) 2^16: no overflow
    middle = a0 * b1 + (cross & _HALF)
    return a1 * b1 + (cross >> 16) + (middle >> 16), a * b


def philox4x32(counter: Words, key: tuple[jax.Array, jax.Array]) -> Words:
    """The four words of one Philox4x32-10 block for each element.

    Args:
      counter: four uint32 arrays of one shape, least significant word first.
      key: two uint32 arrays that broadcast against them without new axes (scalars do).

    Returns:
      Words: four uint32 arrays of the counter's shape.

    Cost: 20 wide multiplications a block.
    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.

    Example:
      >>> import jax.numpy as jnp
      >>> zero = jnp.uint32(0)
      >>> [hex(w) for w in philox4x32((zero,) * 4, (zero, zero))]
      ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    # A loop, not ten rounds in a row: XLA:CPU fuses an unrolled chain into its consumer and computes it again for each of the
    # four words (100 ns a word against 6).
    return jax.lax.fori_loop(0, _ROUNDS, lambda _, state: _round(*state), (counter, key))[0]


def _round(x: Words, key: tuple[jax.Array, jax.Array]) -> tuple[Words, tuple[jax.Array, jax.Array]]:
    high0, low0 = multiply(x[0], _MULTIPLIERS[0])
    high1, low1 = multiply(x[2], _MULTIPLIERS[1])
    words = (high1 ^ x[1] ^ key[0], low1, high0 ^ x[3] ^ key[1], low0)
    return words, (key[0] + np.uint32(_WEYL[0]), key[1] + np.uint32(_WEYL[1]))


def dependent_zero(key: jax.Array, offset: jax.Array) -> jax.Array:
    """A zero that varies with both inputs as far as `shard_map` can see; the compiler folds it away.

    Inside `shard_map` every value is typed by the mesh axes it varies over. A loop's carry must keep its type, and the result
    of an FFI call is taken for a replicated one unless told otherwise. This says so in terms that every JAX version has.
    """
    return (key[0] ^ offset[0]) & jnp.uint32(0)


def philox_bits(key: jax.Array, offset: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform 32-bit words of the stream `key`, from block `offset` on.

    Guarantee: element i of the flattened result is word i % 4 of the Philox4x32-10 block whose counter is `offset + i // 4`
    modulo 2^64 in the low two words and zero in the high two. The same on every platform, under every transformation.

    Args:
      key: [2] uint32.
      offset: [2] uint32, low word first: the number of the first block.
      shape: of the result; at most 2^34 words.

    Returns:
      jax.Array: `shape` uint32.

    Raises:
      TypeError: `key` or `offset` is not uint32 of shape [2].
      ValueError: `shape` is too large for one stream.

    Cost: 20 wide multiplications and 4 words of memory for each 4 words of result.
    Edge cases: an empty shape gives an empty result, `()` one word.
    Source: see `philox4x32`.

    Example:
      >>> import jax.numpy as jnp
      >>> zero = jnp.zeros(2, jnp.uint32)
      >>> [hex(w) for w in philox_bits(zero, zero, (2,))]
      ['0x6627e8d5', '0xe169c58d']
    """
    for name, words in (("key", key), ("offset", offset)):
        if words.shape != (2,) or words.dtype != jnp.uint32:
            raise TypeError(f"{name} is {words.dtype}{list(words.shape)}; it must be uint32[2]. Use key_words(key) or as_offset(number).")
    size = math.prod(shape)
    blocks = -(-size // 4)
    if blocks > 1 << 32:
        raise ValueError(f"shape {shape} asks for {size} words; one call gives at most 2^34. Split it with sample_offset.")
    nought = dependent_zero(key, offset)
    block = jax.lax.iota(jnp.uint32, blocks)
    low = offset[0] + block + nought
    high = offset[1] + (low < block).astype(jnp.uint32)
    zero = jnp.zeros_like(low)
    words = philox4x32((low, high, zero, zero), (key[0] | nought, key[1] | nought))
    return jnp.stack(words, axis=1).reshape(-1)[:size].reshape(shape)
