"""Noise keyed by sample and position, and batches noised with it: the same values on every backend, in any batch, chunk or mesh."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._native import DISCRETE, DISTRIBUTIONS, alias_table, as_offset, key_words, noised, plan_of
from ..core._keys import as_key, row_keys

_DTYPES = (jnp.float32, jnp.bfloat16)


def noise(
    key: jax.Array, shape: tuple[int, ...], *, sigma: Any = 1.0, dtype: Any = jnp.float32, distribution: str = "gaussian", first: Any = 0
) -> jax.Array:
    """Independent noise; the first axis counts samples, each of which depends on the key and its own number alone.

    Guarantee: `noise(key, (n, ...))[i]` is `noise(key, (1, ...), first=i)[0]`, on every backend, under `jit`, `vmap` and `shard_map`: the
      same random bits, and values within 4 units in the last place of each other.
    Args:
      key: a PRNG key. shape: (samples, ...), or () for one value; at most 2^34 values a sample.
      sigma: scalar scale: the standard deviation of "gaussian" and the `b` of "laplace" (`exp(-|z| / b) / 2b`); "uniform" is flat on
        [-sigma, sigma]. Traced: another one does not compile again. dtype: float32 or bfloat16, rounded to nearest.
        "discrete-gaussian" is a Gaussian rounded to whole multiples of 1/255, drawn exactly: its sigma is a number, not traced.
      first: number of the first sample, an int from 0 to 2^64 - 1 or uint32[2], low word first.
    Returns: `shape`, `dtype`. Gaussian values are at most 6.77 sigma, Laplace ones at most 22.2 sigma.
    Raises: TypeError: no key, or another dtype. ValueError: an unknown distribution.
    Cost: one pass over the result. Not bits of `jax.random.normal`.
    Source: Philox4x32-10 (Salmon et al. 2011); Box and Muller 1958.

    Example:
      >>> import jax
      >>> z = noise(jax.random.key(0), (1000, 8))
      >>> bool((z[3] == noise(jax.random.key(0), (1, 8), first=3)[0]).all())
      True
    """
    samples, d = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
    plan = plan_of(samples, d, 1, _distribution(distribution), _dtype(dtype))
    words = key_words(as_key(key))[None]
    one = jnp.ones(1, jnp.float32)
    table = None
    if distribution == DISCRETE:
        table, sigma = table_of(sigma), 1.0
    scale = jnp.asarray(sigma, jnp.float32).reshape(1)
    nothing = jnp.zeros((1, 0), jnp.float32)
    return noised(plan, nothing, words, as_offset(first)[None], scale, one, jnp.zeros_like(one), table).reshape(shape)


def noisy_batch(
    key: jax.Array, x: jax.Array, sigma: Any, first_sample: Any, n: int, *, mean: Any = 0.0, std: Any = 1.0, channel_axis: int = -1,
    dtype: Any = jnp.float32, distribution: str = "gaussian", rows: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """n noised and normalised copies of every row, in one pass: `(x + sigma z - mean) / std`.

    Guarantee: sample i of a row depends on the key, the row's number and i alone, as in `noise`; its gradient in x is that of the sum.
    Args:
      key: a PRNG key; row r draws from `fold_in(key, rows[r])`. x: [B, ...] float32, or uint8 that is read as 1/255 of it.
      sigma: scalar or [B], in units of x. first_sample: as `first` in `noise`, or uint32 [B, 2]. n: samples of each row.
      mean, std: scalars, or one for each entry of x's `channel_axis`, in units of x. dtype: float32 or bfloat16.
      distribution: as in `noise`; "discrete-gaussian" takes one sigma for all rows, rounds float32 x to the grid of 1/255, and adds whole
        steps, so that a sample depends on their sum alone. rows: [B] numbers of the rows, 0 .. B - 1 by default.
    Returns: [B * n, ...] `dtype`, the samples of a row together.
    Raises: TypeError, ValueError: other dtypes, shapes that do not fit.
    Cost: x is read once, the result written once; nothing float32 in between where that is bfloat16.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.zeros((2, 4, 4, 3), jnp.uint8)
      >>> noisy_batch(jax.random.key(0), x, 0.25, 0, 100, mean=jnp.array([0.5, 0.5, 0.4]), dtype=jnp.bfloat16).shape
      (200, 4, 4, 3)
    """
    if x.ndim < 1 or x.dtype not in (jnp.float32, jnp.uint8):
        raise TypeError(f"x is {x.dtype}{list(x.shape)}; it must be float32 or uint8 [B, ...].")
    rows = jnp.arange(len(x), dtype=jnp.uint32) if rows is None else rows
    words = jax.vmap(key_words)(row_keys(as_key(key), rows))
    table = table_of(sigma) if distribution == DISCRETE else None
    how = {"mean": mean, "std": std, "channel_axis": channel_axis, "dtype": dtype, "distribution": distribution, "table": table}
    return copies(words, x, 1.0 if distribution == DISCRETE else sigma, first_sample, n, **how)


def copies(
    words: jax.Array, x: jax.Array, sigma: Any, first: Any, n: int, *, mean: Any = 0.0, std: Any = 1.0, channel_axis: int = -1,
    dtype: Any, distribution: str, table: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """`noisy_batch` with the key words of each row, [B, 2] uint32, and of the discrete Gaussian its table."""
    b, d = len(x), math.prod(x.shape[1:])
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    channels = max(mean.size, std.size)
    inner = max(1, d)
    if channels > 1:
        axis = channel_axis % x.ndim
        if axis == 0 or not {mean.size, std.size, x.shape[axis]} <= {1, channels} or x.shape[axis] != channels:
            raise ValueError(
                f"mean and std have {mean.size} and {std.size} values, x has shape {x.shape}; needed: one value, or one for each entry of "
                f"axis {channel_axis}. Name another channel_axis."
            )
        inner = math.prod(x.shape[axis + 1 :])
    multiply = jnp.broadcast_to((1 / std).reshape(-1), (channels,))
    offset = first if isinstance(first, jax.Array) and first.ndim == 2 else jnp.broadcast_to(as_offset(first)[None], (b, 2))
    plan = plan_of(n, d, inner, _distribution(distribution), _dtype(dtype))
    scale = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32).reshape(-1), (b,))
    y = noised(plan, x.reshape(b, d), words, offset, scale, multiply, -mean.reshape(-1) * multiply, table)
    return y.reshape(b * n, *x.shape[1:])


def table_of(sigma: Any) -> jax.Array:
    """The discrete Gaussian's table for a sigma in units of x; TypeError where it is traced, ValueError where there are several."""
    if isinstance(sigma, Tracer):
        raise TypeError("sigma is traced; the table of the discrete Gaussian is made on the host: give a number.")
    values = np.unique(np.asarray(sigma, np.float32))
    if values.size != 1:
        raise ValueError(f"sigma has {values.size} values; the discrete Gaussian takes one for all rows.")
    return jnp.asarray(alias_table(255 * float(values[0])))  # exact: 24 bits times 8


def _distribution(name: str) -> str:
    if name not in DISTRIBUTIONS:
        raise ValueError(f"distribution is {name!r}; allowed are {', '.join(DISTRIBUTIONS)}.")
    return name


def _dtype(dtype: Any) -> Any:
    if jnp.dtype(dtype) not in map(jnp.dtype, _DTYPES):
        raise TypeError(f"dtype is {np.dtype(dtype).name}; allowed are float32 and bfloat16.")
    return dtype


def vote(logits: jax.Array, counts: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Adds the classes that samples vote for to counts; no logits leave the device.

    Guarantee: exact integers; a sample whose logits are not all finite votes for none.
    Args: logits: [B * n, K] or [B, n, K]. counts: [B, K] int32. valid: [B] how many of the n samples count, all by default.
    Returns: [B, K] int32.

    Example:
      >>> import jax.numpy as jnp
      >>> vote(jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.4]]), jnp.zeros((1, 2), jnp.int32)).tolist()
      [[1, 2]]
    """
    b, k = counts.shape
    logits = logits.reshape(b, -1, k)
    best = jnp.argmax(logits, -1)
    counted = jnp.all(jnp.isfinite(logits), -1)
    if valid is not None:
        counted = counted & (jnp.arange(logits.shape[1])[None] < valid[:, None])
    hit = (best[..., None] == jnp.arange(k)[None, None]) & counted[..., None]
    return counts + jnp.sum(hit, 1, dtype=jnp.int32)
