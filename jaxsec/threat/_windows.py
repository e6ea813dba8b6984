"""Windows in images: sums over every window, the best one as a mask, and the smallest window that holds what changed."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._rows import flat

Layout: TypeAlias = Literal["chw", "hwc"]
LAYOUTS = ("chw", "hwc")


def sides_of(size: int | tuple[int, int], name: str) -> tuple[int, int]:
    """(height, width) in pixels; ValueError for other than positive ints."""
    sides = (size, size) if isinstance(size, int) else size
    if not (isinstance(sides, tuple) and len(sides) == 2 and all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sides)):
        raise ValueError(f"{name} has size={size!r}; allowed are an int of at least 1, or a tuple (height, width) of two, in pixels.")
    return sides


def image_of(shape: tuple[int, ...], layout: str, name: str) -> tuple[int, int, int]:
    """(height, width, channel axis) of rows [B, ...] of that shape; ValueError where they are no images."""
    if layout not in LAYOUTS:
        raise ValueError(f"{name} has layout={layout!r}; allowed are chw and hwc.")
    if len(shape) != 4:
        raise ValueError(f"x has shape {tuple(shape)}; {name} needs images, [B, C, H, W] or [B, H, W, C]: reshape rows to images.")
    return (shape[2], shape[3], 1) if layout == "chw" else (shape[1], shape[2], 3)


def window_sums(v: jax.Array, sides: tuple[int, int]) -> jax.Array:
    """[B, H, W] -> [B, H - h + 1, W - w + 1] the sum of each window, by its top left corner; each sum adds its own elements only."""
    zero = np.zeros((), v.dtype)  # known while tracing: only then it is a sum, with a derivative
    # one axis after the other: h + w additions instead of h w
    v = lax.reduce_window(v, zero, lax.add, (1, sides[0], 1), (1, 1, 1), "VALID")
    return lax.reduce_window(v, zero, lax.add, (1, 1, sides[1]), (1, 1, 1), "VALID")


def best_window(sums: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([B], [B]) top left corner of the window with the largest sum, the first of equal ones; of a NaN, one that holds it."""
    at = jnp.argmax(flat(sums), axis=1)
    return at // sums.shape[2], at % sums.shape[2]


def window_mask(top: jax.Array, left: jax.Array, sides: tuple[int, int], height: int, width: int, channel: int) -> jax.Array:
    """[B, ...] bool, 1 on the channel axis: the pixels of each row's window."""
    rows = jnp.arange(height, dtype=top.dtype)[None] - top[:, None]
    columns = jnp.arange(width, dtype=left.dtype)[None] - left[:, None]
    inside = ((rows >= 0) & (rows < sides[0]))[:, :, None] & ((columns >= 0) & (columns < sides[1]))[:, None, :]
    return jnp.expand_dims(inside, channel)


def extent(changed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, H, W] bool -> ([B], [B]) height and width of the smallest window that holds all that is True; 0 where nothing is."""

    def length(line: jax.Array) -> jax.Array:
        first, last = jnp.argmax(line, axis=1), line.shape[1] - 1 - jnp.argmax(line[:, ::-1], axis=1)
        return jnp.where(jnp.any(line, axis=1), last - first + 1, 0)

    return length(jnp.any(changed, axis=2)), length(jnp.any(changed, axis=1))
