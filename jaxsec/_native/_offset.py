"""Where a stream is read: 64-bit block numbers as two uint32, low word first, so that they work without x64."""

import jax
import jax.numpy as jnp
import numpy as np

from ._philox import multiply


def as_offset(offset: int | jax.Array | np.ndarray) -> jax.Array:
    """A block number as uint32[2].

    Args:
      offset: an `int` from 0 to 2^64 - 1, or an array that is uint32[2] already.

    Raises:
      TypeError: anything else, a traced scalar too: its width would not be clear. Use `sample_offset` for those.
      ValueError: an `int` out of range.

    Example:
      >>> as_offset(2**32 + 5).tolist()
      [5, 1]
    """
    if isinstance(offset, int) and not isinstance(offset, bool):
        if not 0 <= offset < 1 << 64:
            raise ValueError(f"offset is {offset}; allowed are 0 to 2^64 - 1 blocks of four words.")
        return jnp.asarray(np.array([offset & 0xFFFFFFFF, offset >> 32], np.uint32))
    if not isinstance(offset, jax.Array | np.ndarray) or offset.shape != (2,) or offset.dtype != np.uint32:
        shown = f"{offset.dtype}{list(offset.shape)}" if isinstance(offset, jax.Array | np.ndarray) else repr(offset)
        raise TypeError(f"offset is {shown}; it must be an int or uint32[2]. sample_offset(index, size) makes one from a traced index.")
    return jnp.asarray(offset)


def advance(offset: jax.Array, blocks: jax.Array | int) -> jax.Array:
    """`offset + blocks` modulo 2^64, `blocks` being an `int` below 2^32 or a uint32 scalar.

    Example:
      >>> advance(as_offset(2**32 - 1), 3).tolist()
      [2, 1]
    """
    if isinstance(blocks, int) and not 0 <= blocks < 1 << 32:
        raise ValueError(f"blocks is {blocks}; allowed are 0 to 2^32 - 1. Use as_offset for a larger step.")
    blocks = jnp.asarray(blocks, jnp.uint32)
    low = offset[0] + blocks
    return jnp.stack([low, offset[1] + (low < blocks).astype(jnp.uint32)])


def sample_offset(index: jax.Array | int, size: int) -> jax.Array:
    """Where sample number `index` begins when each sample takes `size` words.

    Guarantee: different samples never share a block, whatever shard or batch they are in; key noise by the *global* index.

    Args:
      index: scalar, an `int` or a uint32 or int32 array, at least 0 and below 2^32 (an array is not checked).
      size: words a sample, from 0 to 2^32; rounded up to whole blocks.

    Returns:
      jax.Array: [2] uint32.

    Raises:
      TypeError: `index` is no integer scalar. ValueError: an `int` or `size` is out of range.

    Example:
      >>> sample_offset(3, 10).tolist()
      [9, 0]
    """
    if not 0 <= size <= 1 << 32:
        raise ValueError(f"size is {size}; allowed are 0 to 2^32 words a sample.")
    if isinstance(index, int):
        if not 0 <= index < 1 << 32:
            raise ValueError(f"index is {index}; allowed are 0 to 2^32 - 1.")
        return as_offset(index * -(-size // 4))
    if index.shape != () or not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(f"index is {index.dtype}{list(index.shape)}; it must be an integer scalar. Use jax.vmap for several.")
    high, low = multiply(index.astype(jnp.uint32), -(-size // 4))
    return jnp.stack([low, high])


def key_words(key: jax.Array) -> jax.Array:
    """The uint32[2] Philox key drawn from a typed JAX key, which is thereby consumed.

    Example:
      >>> import jax
      >>> key_words(jax.random.key(0)).dtype
      dtype('uint32')
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape != ():
        raise TypeError(f"key is {key.dtype}{list(key.shape)}; it must be one typed key from jax.random.key(seed).")
    return jax.random.bits(key, (2,), jnp.uint32)
