"""Some of d positions without replacement, keyed by sample: the same choice on every backend, in any batch, chunk or mesh."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._native import philox4x32
from .._native._philox import dependent_zero, multiply
from ..core._manual import marked_like

_STREAM = np.uint32(0x41626C61)  # second word of the counter: no block is one of `noise`'s, nor of `random_bits`' first 2^34 words


def chosen(words: jax.Array, first: jax.Array, n: int, d: int, k: int) -> jax.Array:
    """[S, n, d] bool, k of the d positions True: the choices of samples first .. first + n - 1 of each row.

    Guarantee: a choice depends on the row's key words and the sample's number alone. Its law is within `bias(d, k)` of the uniform one over
      all sets of k positions, in total variation, the random words taken for uniform.
    Args: words, first: [S, 2] uint32, low word first. 0 <= k <= d < 2^32.
    Cost: min(k, d - k) steps of one read and one write a sample, and two random words each; no sort. Memory: d bytes a sample.
    Source: Floyd's sampling (Bentley and Floyd 1987): for j = d - k .. d - 1 draw t from 0 .. j, take t, or j where t is taken already.

    Example:
      >>> words = jnp.zeros((1, 2), jnp.uint32)
      >>> chosen(words, words, 5, 20, 3).sum(2).tolist()
      [[3, 3, 3, 3, 3]]
    """
    steps = min(k, d - k)
    like = dependent_zero(words.T, first.T)
    if steps == 0:
        return jnp.full((len(words), n, d), k > 0) | (like > 0)[:, None, None]
    draws = _draws(words, first, n, d, steps)

    def step(i: jax.Array, taken: jax.Array) -> jax.Array:
        last = d - steps + i

        # one sample, under `vmap`: a scatter whose batch axis is known to be one stays on each device
        def one(taken: jax.Array, t: jax.Array) -> jax.Array:
            return taken.at[jnp.where(taken[t], last, t)].set(True, mode="promise_in_bounds")

        return jax.vmap(one)(taken, draws[i])

    none = marked_like(jnp.zeros((len(words) * n, d), bool), draws)
    taken = lax.fori_loop(0, steps, step, none).reshape(len(words), n, d)
    return taken if steps == k else ~taken


def bias(d: int, k: int) -> tuple[int, int]:
    """(a, b): the law of `chosen` is within a / b of the uniform one in total variation.

    A draw is the integer part of U m / M with U uniform on 0 .. M - 1, M = 2^64: r = M mod m of the m values have the ceiling of M / m of
    the words, the others the floor. A value at the ceiling has probability 1/m + (m - r) / (m M), so the distance of a draw to the uniform
    law is r (m - r) / (m M), at most m / (4 M). The set is a function of min(k, d - k) independent draws with m <= d, and the distances of
    independent parts add up at most; for exactly uniform draws the set is uniform.
    """
    return min(k, d - k) * d, 1 << 66


def _draws(words: jax.Array, first: jax.Array, n: int, d: int, steps: int) -> jax.Array:
    """[steps or one more, S * n] int32: draw i is uniform on 0 .. d - steps + i."""
    blocks = -(-steps // 2)
    sample = jnp.arange(n, dtype=jnp.uint32)[None]
    low = first[:, :1] + sample
    high = first[:, 1:] + (low < sample).astype(jnp.uint32)
    nought = jnp.zeros((blocks, len(words), n), jnp.uint32) + dependent_zero(words.T, first.T)[None, :, None]
    block = jnp.arange(blocks, dtype=jnp.uint32)[:, None, None]
    counter = (nought + block, nought + _STREAM, nought + low[None], nought + high[None])
    a, b, c, e = philox4x32(counter, (nought + words[:, 0][None, :, None], nought + words[:, 1][None, :, None]))
    values = np.uint32(d - steps + 1) + 2 * block
    return jnp.stack([_below(values, a, b), _below(values + 1, c, e)], 1).reshape(2 * blocks, len(words) * n)


def _below(m: jax.Array, high: jax.Array, low: jax.Array) -> jax.Array:
    """The integer part of (2^32 high + low) m / 2^64."""
    top, rest = multiply(high, m)
    carried = rest + multiply(low, m)[0]
    return (top + (carried < rest).astype(jnp.uint32)).astype(jnp.int32)
