"""Votes of pixels: which class each pixel's first samples choose, and how many others agree; integers that stay on the device."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class PixelVotes:
    """Adds a chunk's votes to counts [S, P..., K] int32. A pixel whose logits are not all finite votes for no class."""

    class_axis: int

    def __call__(self, counts: jax.Array, logits: jax.Array, used: jax.Array) -> jax.Array:
        best, counted = _best(logits, self.class_axis, used)
        hit = (best[..., None] == jnp.arange(counts.shape[-1]).reshape((1,) * best.ndim + (-1,))) & counted[..., None]
        return counts + jnp.sum(hit, 1, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class PixelHits:
    """(top, hits) [S, P...] int32: adds how many of a chunk's votes are for each pixel's class `top`."""

    class_axis: int

    def __call__(self, carry: tuple[jax.Array, jax.Array], logits: jax.Array, used: jax.Array) -> tuple[jax.Array, jax.Array]:
        top, hits = carry
        best, counted = _best(logits, self.class_axis, used)
        return top, hits + jnp.sum((best == top[:, None]) & counted, 1, dtype=jnp.int32)


def _best(logits: jax.Array, class_axis: int, used: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[S, n, P...] int32 and bool. logits: [S, n, ...] with the classes on `class_axis` of the model's own output [B, ...]."""
    logits = jnp.moveaxis(logits, class_axis + 1 if class_axis >= 0 else class_axis, -1)
    counted = jnp.all(jnp.isfinite(logits), -1) & used.reshape(1, -1, *(1,) * (logits.ndim - 3))
    return jnp.argmax(logits, -1).astype(jnp.int32), counted


@jax.jit
def top_of(counts: jax.Array) -> jax.Array:
    """[S, P...] int32."""
    return jnp.argmax(counts, -1).astype(jnp.int32)
