"""Curves of two or three pieces with a bend in the slope where they meet: elu, hard_silu, soft_sign, max(x, t).

A point where the slope jumps is a critical point of every line, so it always is one of the arguments at which lines are tried.
"""

import jax
import jax.numpy as jnp

from ._unary_curve import Curve, Ends


def elu(alpha: float) -> Curve:
    """x above 0, `alpha * (exp(x) - 1)` below; alpha >= 0. Convex for alpha up to 1."""
    alpha = float(alpha)

    def critical(s: jax.Array, *_) -> tuple[jax.Array, ...]:
        return jnp.zeros_like(s), jnp.log(jnp.maximum(s, 0) / alpha) if alpha else jnp.zeros_like(s)

    def derivative(x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, 1, alpha * jnp.exp(jnp.minimum(x, 0))).astype(x.dtype)

    def steepness(lo: jax.Array, hi: jax.Array) -> Ends:
        # at 0 both slopes count
        low, high = derivative(lo), jnp.where(hi > 0, jnp.where(lo <= 0, max(1.0, alpha), 1.0), derivative(hi))
        return jnp.where((lo <= 0) & (hi > 0), jnp.minimum(low, 1), low), high

    return Curve(
        lambda x: jax.nn.elu(x, alpha), critical, convex=True if alpha <= 1 else None, bends=(0.0,), least=-alpha,
        derivative=derivative, steepness=steepness,
    )  # fmt: skip


def hard_silu() -> Curve:
    """x * clip(x / 6 + 1 / 2, 0, 1): convex from -3 to 3, where the slope falls from -1/2 to 3/2 to 0 and 1."""

    def critical(s: jax.Array, *_) -> tuple[jax.Array, ...]:
        return jnp.full_like(s, -3), jnp.full_like(s, 3), 3 * s - 1.5

    def derivative(x: jax.Array) -> jax.Array:
        return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, x / 3 + 0.5)).astype(x.dtype)

    def steepness(lo: jax.Array, hi: jax.Array) -> Ends:
        a, b = derivative(lo), derivative(hi)
        within = (lo <= 3) & (hi >= -3)
        inner_lo, inner_hi = jnp.clip(lo, -3, 3) / 3 + 0.5, jnp.clip(hi, -3, 3) / 3 + 0.5
        least, most = jnp.minimum(a, b), jnp.maximum(a, b)
        return jnp.where(within, jnp.minimum(least, inner_lo), least), jnp.where(within, jnp.maximum(most, inner_hi), most)

    return Curve(
        lambda x: x * jnp.clip(x / 6 + 0.5, 0.0, 1.0), critical, bends=(-3.0, 3.0), turns=(-1.5,), gated=True,
        derivative=derivative, steepness=steepness,
    )  # fmt: skip


def soft_sign() -> Curve:
    """x / (1 + |x|)."""

    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        at = 1 / jnp.sqrt(jnp.maximum(s, 0)) - 1  # f' = 1 / (1 + |x|)^2
        return (-at if lower else at,)

    def derivative(x: jax.Array) -> jax.Array:
        return 1 / jnp.square(1 + jnp.abs(x))

    return Curve(jax.nn.soft_sign, critical, bends=(0.0,), least=-1.0, most=1.0, derivative=derivative)


def at_least(t: float) -> Curve:
    """max(x, t), for t so large that `t + relu(x - t)` would say nothing of x."""

    def derivative(x: jax.Array) -> jax.Array:
        return jnp.where(x > t, 1, 0).astype(x.dtype)

    def steepness(lo: jax.Array, hi: jax.Array) -> Ends:
        return jnp.where(lo >= t, 1, 0).astype(lo.dtype), derivative(hi)

    return Curve(
        lambda x: jnp.maximum(x, jnp.asarray(t, x.dtype)), lambda s, *_: (jnp.full_like(s, t),), convex=True, bends=(t,), anchor=t, least=t,
        derivative=derivative, steepness=steepness,
    )  # fmt: skip


PIECEWISE = {"at_least": at_least, "elu": elu, "hard_silu": hard_silu, "soft_sign": soft_sign}
