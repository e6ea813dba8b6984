"""`Box`: any axis-parallel box, given by its corners (a VNNLIB input region, a set of tolerances per feature)."""

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from ..core._struct import struct
from ._threat import Threat


@struct
class Box(Threat):
    """`{x : lower <= x <= upper}`, whatever the clean input is.

    Args: lower, upper: one row's shape, or [B, ...] for a box per row; scalars allowed. A row with lower > upper is empty.
    Steps are measured in half-widths per coordinate (`radius` is 1). `scaled` shrinks or grows the box around its centre.
    `distance` is the largest displacement in half-widths of its coordinate (so units of different features compare).
    """

    norm: ClassVar[str] = "box"
    lower: Any
    upper: Any

    def normalised(self, x0: jax.Array) -> Self:
        return self.replace(
            lower=jnp.broadcast_to(jnp.asarray(self.lower, x0.dtype), x0.shape),
            upper=jnp.broadcast_to(jnp.asarray(self.upper, x0.dtype), x0.shape),
        )

    def take(self, rows: jax.Array) -> Self:
        return self.replace(lower=self.lower[rows], upper=self.upper[rows])

    def scaled(self, factor: jax.Array | float) -> Self:
        factor = jnp.asarray(factor)
        if factor.ndim:
            factor = factor.reshape(-1, *[1] * (jnp.ndim(self.lower) - 1))
        centre, half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        return self.replace(lower=centre - factor * half, upper=centre + factor * half)

    def _half(self, x: jax.Array) -> jax.Array:
        return jnp.broadcast_to((jnp.asarray(self.upper, x.dtype) - jnp.asarray(self.lower, x.dtype)) / 2, x.shape)

    def radius(self, x: jax.Array) -> jax.Array:
        return jnp.ones(x.shape[:1], jnp.float32)

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.clip(x, jnp.asarray(self.lower, x.dtype), jnp.asarray(self.upper, x.dtype))

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        u = jax.vmap(lambda k: jax.random.uniform(k, x0.shape[1:], x0.dtype))(keys)
        low, high = self.interval(x0)
        return self.project(x0, low + u * (high - low))

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        u = jax.vmap(lambda k: jax.random.uniform(k, x0.shape[1:], x0.dtype, -1.0, 1.0))(keys)
        u = u / jnp.max(jnp.abs(u), axis=tuple(range(1, u.ndim)), keepdims=True)
        low, high = self.interval(x0)
        return self.project(x0, (low + high) / 2 + u * (high - low) / 2)

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.sign(g) * self._half(x)

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        low, high = self.interval(x0)
        return jnp.where(g > 0, high, jnp.where(g < 0, low, jnp.clip(x0, low, high)))

    def contains(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        low, high = self.interval(x0)
        return jnp.all(((x >= low) & (x <= high)).reshape(x.shape[0], -1), axis=1)

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        half = self._half(x)
        moved = jnp.abs(x - x0)
        share = jnp.where(moved == 0, 0.0, moved / jnp.maximum(half, jnp.finfo(x.dtype).tiny))
        return jnp.max(share.reshape(x.shape[0], -1), axis=1).astype(jnp.float32)

    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        low = jnp.broadcast_to(jnp.asarray(self.lower, x0.dtype), x0.shape)
        return low, jnp.broadcast_to(jnp.asarray(self.upper, x0.dtype), x0.shape)
