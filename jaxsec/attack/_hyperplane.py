"""Nearest point of a hyperplane inside a box, in the L-infinity, L2 or L1 norm: exact, by a root search in place of a sort; and
FAB's move made of two of them."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from .._native import Move, native_move, on_one_cpu
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


def boundary_move(norm: str, move: Move) -> jax.Array:
    """Past the plane `value + <w, z - x> = 0` from `x`, drawn towards the clean `x0` by a share that the two distances decide.

    Guarantee: inside the box; a row without a plane (`w` zero, `w` or `value` not finite) returns half way to its clean input.

    Args:
      norm: "linf", "l2" or "l1".
      move: alpha_max: largest share of x0's own step. eta: overshoot, above 1 to cross the plane.

    Cost: native (one CPU device, not L1, float32), one pass over the rows; else two `towards_plane` and a few passes.
    Source: Croce and Hein 2020 (FAB), eq. 5 to 8.
    """
    twin = functools.partial(_move, norm)
    if norm == "l1" or {a.dtype for a in move[:6]} != {jnp.dtype("float32")} or not on_one_cpu():
        return twin(move)
    return lax.platform_dependent(move, cpu=functools.partial(native_move, norm), default=twin)


def _move(norm: str, move: Move) -> jax.Array:
    x, x0, w, value, lo, hi, alpha_max, eta = move
    size = jnp.max(jnp.abs(w), axis=1)
    usable = (jnp.isfinite(size) & (size > 0) & jnp.isfinite(value))[:, None]
    # scaled first: the product below must not overflow
    scale = jnp.where(usable, size[:, None], 1.0)
    w, value = jnp.where(usable, w / scale, 0.0), value / scale[:, 0]
    # the same plane seen from both points; two searches, because joining their rows copies more than it saves
    d1 = towards_plane(norm, x, w, value, lo, hi)
    d2 = towards_plane(norm, x0, w, value + jnp.sum(w * (x0 - x), axis=1), lo, hi)
    n1, n2 = (jnp.maximum(_norm(norm, d), 1e-8) for d in (d1, d2))
    alpha = jnp.minimum(n1 / (n1 + n2), alpha_max)[:, None]
    moved = jnp.clip((x + eta * d1) * (1 - alpha) + (x0 + eta * d2) * alpha, lo, hi)
    return jnp.where(usable, moved, x + 0.5 * (x0 - x)).astype(x.dtype)


def _norm(norm: str, d: jax.Array) -> jax.Array:
    if norm == "linf":
        return jnp.max(jnp.abs(d), axis=1)
    return jnp.sum(jnp.abs(d), axis=1) if norm == "l1" else jnp.sqrt(jnp.sum(d * d, axis=1))
