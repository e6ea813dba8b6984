"""Schedules over training, as traced values: what share of a ramp is behind, and how far eps has grown by then."""

from typing import Any

import jax
import jax.numpy as jnp

SHAPES = ("linear", "cosine", "smooth")
_BEND = 0.25  # of the smooth ramp: where it stops to grow as a power and grows linearly


def share_of(progress: jax.Array, start: Any, length: Any) -> jax.Array:
    """[] in [0, 1]: 0 up to the share `start` of training, then linear, 1 from `start + length` on."""
    length = jnp.asarray(length, jnp.float32)
    gone = jnp.asarray(progress, jnp.float32) - start
    return jnp.where(length > 0, jnp.clip(gone / jnp.where(length > 0, length, 1), 0, 1), (gone >= 0).astype(jnp.float32))


def ramp(t: jax.Array, shape: str) -> jax.Array:
    """0 to 1 as t in [0, 1] goes from 0 to 1; "smooth" is `c t^4` up to a quarter, then the tangent there (Xu et al. 2020, appendix)."""
    if shape == "cosine":
        return 0.5 - 0.5 * jnp.cos(jnp.pi * t)
    if shape == "smooth":
        c = 1 / (_BEND**3 * (4 - 3 * _BEND))
        return jnp.where(t < _BEND, c * t**4, 1 - 4 * c * _BEND**3 * (1 - t))
    return t
