"""Exact Euclidean projections onto ball-and-box, by one-dimensional root searches instead of sorts. Rows are flat: [B, D]."""

import jax
import jax.numpy as jnp
from jax import lax

from ..core._select import concave_root


def room(x0: jax.Array, direction: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
    """How far each coordinate can go from `x0` in the sign of `direction` before it meets the box; 0 outside the box."""
    return jnp.maximum(jnp.where(direction > 0, hi - x0, x0 - lo), 0.0)


def l2(x0: jax.Array, x: jax.Array, eps: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
    """Projection onto `{z : |z - x0|_2 <= eps, lo <= z <= hi}`, `x0` inside the box.

    The multiplier turns the problem into `z(s) = clip(x0 + s (x - x0))` with the largest `s <= 1` inside the ball, and
    `|z(s) - x0|^2 = sum_i min(s^2 d_i^2, room_i^2)` is concave and piecewise linear in `s^2`.
    """
    d = x - x0
    gap = jnp.minimum(room(x0, d, lo, hi), jnp.finfo(d.dtype).max ** 0.25)  # its square must stay finite for an infinite box
    s = jnp.sqrt(concave_root(d * d, gap * gap, eps * eps))
    s = jnp.minimum(s, 1.0)[:, None]
    return jnp.clip(x0 + s * d, lo, hi)


def l1(x0: jax.Array, x: jax.Array, eps: jax.Array, lo: jax.Array, hi: jax.Array, *, passes: int = 60) -> jax.Array:
    """Projection onto `{z : |z - x0|_1 <= eps, lo <= z <= hi}`, `x0` inside the box.

    `z_i = x0_i + sign(d_i) clip(|d_i| - m, 0, room_i)` with the smallest multiplier `m >= 0` that fits the ball. The total is
    piecewise linear and falling in `m`; Newton steps inside a bracket end on the right piece, and the feasible end is returned.
    """
    d = x - x0
    size, gap = jnp.abs(d), room(x0, d, lo, hi)

    def total(m: jax.Array) -> tuple[jax.Array, jax.Array]:
        over = size - m[:, None]
        inside = (over > 0) & (over < gap)
        return jnp.sum(jnp.clip(over, 0.0, gap), axis=1), jnp.sum(inside, axis=1).astype(d.dtype)

    zero = jnp.zeros_like(eps)
    at_zero, _ = total(zero)
    outside = at_zero > eps
    slack = 4 * jnp.finfo(d.dtype).eps

    def more(carry: tuple[jax.Array, ...]) -> jax.Array:
        return (carry[0] < passes) & jnp.any(carry[4])

    def search(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        i, low, high, m, _ = carry
        value, rate = total(m)
        fits = value <= eps
        low, high = jnp.where(fits, low, m), jnp.where(fits, m, high)
        newton = m + (value - eps) / jnp.where(rate > 0, rate, 1.0)
        inside = (rate > 0) & (newton > low) & (newton < high)
        moving = outside & ~(fits & (value >= eps * (1 - slack))) & (high - low > slack * high)
        return i + 1, low, high, jnp.where(inside, newton, 0.5 * (low + high)), moving

    top = jnp.max(size, axis=1)
    _, _, high, _, _ = lax.while_loop(more, search, (jnp.int32(0), zero, top, zero, outside))
    m = jnp.where(outside, high, 0.0)[:, None]
    return jnp.clip(x0 + jnp.sign(d) * jnp.clip(size - m, 0.0, gap), lo, hi)
