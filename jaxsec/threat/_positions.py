"""What counts as one position of a row: every element, or a pixel with all its channels."""

import math
from typing import Any

import jax
import jax.numpy as jnp

POSITIONS = {"flat": None, "chw": 1, "hwc": -1}  # the axis of a batch that one position spans


def channel_axis(positions: str, shape: tuple[int, ...]) -> int | None:
    """The channels' axis in a batch of rows of this shape; ValueError for a name or a shape that does not fit."""
    if positions not in POSITIONS:
        raise ValueError(
            f"positions is {positions!r}; allowed are 'flat' (every element or token), 'chw' and 'hwc' (a pixel with its channels)."
        )
    if positions != "flat" and len(shape) != 3:
        raise ValueError(f"positions is {positions!r} and a row has shape {shape}; three axes are needed, or positions='flat'.")
    return POSITIONS[positions]


def count_of(positions: str, shape: tuple[int, ...]) -> int:
    """How many positions a row of this shape has."""
    axis = channel_axis(positions, shape)
    return math.prod(shape) if axis is None else math.prod(shape) // shape[axis if axis < 0 else axis - 1]


def by_position(v: Any, positions: str) -> jax.Array:
    """[B, ...] -> [B, D, C]: the elements of each position together."""
    axis = channel_axis(positions, v.shape[1:])
    if axis is None:
        return v.reshape(v.shape[0], math.prod(v.shape[1:]), 1)
    v = jnp.moveaxis(v, axis, -1)
    return v.reshape(v.shape[0], v.shape[1] * v.shape[2], v.shape[3])


def over_elements(v: jax.Array, positions: str, shape: tuple[int, ...]) -> jax.Array:
    """[B, D], one value a position -> [B, ...] for rows of this shape; the channels' axis stays 1."""
    axis = channel_axis(positions, shape)
    if axis is None:
        return v.reshape(v.shape[0], *shape)
    one = list(shape)
    one[axis if axis < 0 else axis - 1] = 1
    return v.reshape(v.shape[0], *one)
