"""Nearest point of a hyperplane inside a box, in the L-infinity, L2 or L1 norm: exact, by a root search in place of a sort."""

import jax
import jax.numpy as jnp

from ..core._select import concave_root, fill_knapsack


def towards_plane(norm: str, x: jax.Array, w: jax.Array, value: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
    """The smallest step `d` (in `norm`) with `value + <w, d> = 0` and `lo <= x + d <= hi`.

    Guarantee: where the box does not reach the plane, `d` goes as far towards it as the box allows.

    Args:
      norm: "linf", "l2" or "l1". x, w: [B, D], x inside the box. value: [B], the affine function at `x`. lo, hi: [B, D].

    Returns:
      [B, D] step.

    Cost: 3 to 6 passes for Linf and L2 (Newton on a concave piecewise-linear function), 31 for L1.
    Source: Croce and Hein 2020 (FAB), section 2.2; the sort of its appendix is replaced by `concave_root`.
    """
    scale = jnp.maximum(jnp.max(jnp.abs(w), axis=1), 1e-30)  # the plane does not change, squares cannot underflow
    w, value = w / scale[:, None], value / scale
    direction = -jnp.sign(value)[:, None] * jnp.sign(w)
    slope, level = jnp.abs(w), jnp.abs(value)
    # an infinite box becomes a large one: products with the slope must stay finite
    room = jnp.clip(jnp.where(direction > 0, hi - x, x - lo), 0.0, 1e9)
    if norm == "linf":
        t = concave_root(slope, slope * room, level)[:, None]
        length = jnp.minimum(t, room)
    elif norm == "l2":
        t = concave_root(slope * slope, slope * room, level)[:, None]
        length = jnp.where(slope > 0, jnp.minimum(jnp.where(slope > 0, t, 0.0) * slope, room), 0.0)
    else:
        length = fill_knapsack(slope, room, level, worth=slope)
    return direction * length
