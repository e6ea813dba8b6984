"""Root searches behind the exact L2 and L1 operations: one multiplier per row, no sorts, a few fused passes over the row.

Everything is about magnitudes: a displacement has the sign of a direction, a wanted length per element and a room until the box
blocks it. The searches take a function that computes these from the raw arrays, and call it anew in every pass: fused into the sums
it costs less than writing the magnitudes to memory. Both have an implicit-function derivative (custom_jvp), so projections
can be differentiated although the search itself is a `while_loop`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..core._select import highest
from ._rows import flat

# Newton from the left of a concave piecewise linear function at least quarters (residual x slope) in a pass, so 64 passes are more
# than float32 can tell apart; rows of pictures need 2 to 6.
_L2_PASSES = 64
# From the tenth pass on every other pass bisects: 30 halvings whatever the shape of the function. Not earlier, because Newton needs 3
# to 8 passes on rows of pictures and a midpoint throws its progress away.
_L1_PASSES = 70
_L1_TRUSTING = 10
# Sums this many units in the last place above the bound count as on it, so that projecting twice is projecting once; `contains` allows
# 1e-6, twice as much, for sums in another order.
SLACK = 4.0

Magnitudes = Callable[..., tuple[jax.Array, jax.Array]]


def _total(a: jax.Array) -> jax.Array:
    return jnp.sum(flat(a), axis=1)


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def spread(v: jax.Array, rank: int) -> jax.Array:
    """[B] -> [B, 1, ..., 1]."""
    return v.reshape(v.shape + (1,) * (rank - 1))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _l2_root(squares: Magnitudes, capped: bool, *args: jax.Array) -> jax.Array:
    """The s >= 0 of each row with `sum(minimum(s * p, q)) == 1`, or one at which all elements are at q if no s reaches 1.

    Args:
      squares: computes (p, q), both [B, ...], non-negative and finite, from `args`; compared by identity (static).
      capped: stop at s = 1 where the sum is at most 1 there (static).
      *args: arrays with the batch axis first.
    Returns: [B]; exactly 1 in the rows that the cap stopped.
    Cost: two sums over the row if no element is at its q; then two more per Newton step.
    Source: KKT conditions of the Euclidean projection on ball and box; the sum is concave and piecewise linear in s, which is
      1 / (1 + multiplier)**2, so a Newton step from anywhere lands left of the root, and steps from there rise and end.
    """
    p, _ = squares(*args)
    rank, tolerance = p.ndim, SLACK * float(jnp.finfo(p.dtype).eps)

    def height(s: jax.Array) -> jax.Array:
        p, q = squares(*args)
        return _total(jnp.minimum(spread(s, rank) * p, q))

    def slope(s: jax.Array) -> jax.Array:
        p, q = squares(*args)
        return _total(jnp.where(spread(s, rank) * p < q, p, 0))

    def body(state: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        s, h, live, i = state
        steep = slope(s)
        newton = s - _divide(h - 1, steep)
        # far right of the root the tangent may miss the positive axis: come closer by a large factor instead
        proposed = jnp.where((newton > 0) & (steep > 0), newton, jnp.where(h > 1, s / 16, s))
        going = live & (jnp.abs(proposed - s) > 0.25 * tolerance * s)
        s = jnp.where(going, jnp.minimum(proposed, jnp.finfo(s.dtype).max), s)
        h = jnp.where(going, height(s), h)
        return s, h, going & (jnp.abs(h - 1) > 0.5 * tolerance), i + 1

    one = jnp.ones(p.shape[0], p.dtype)
    first = height(one)
    inside = first <= (1 + tolerance) ** 2 if capped else jnp.abs(first - 1) <= 0.5 * tolerance
    # without elements at their q the sum is a line through 0 and this is the root
    s = jnp.where(inside, one, jnp.where(first > 0, 1 / jnp.where(first > 0, first, 1), one))
    h = height(s)
    start = (s, h, ~inside & (jnp.abs(h - 1) > 0.5 * tolerance), jnp.int32(0))
    return lax.while_loop(lambda state: jnp.any(state[2]) & (state[3] < _L2_PASSES), body, start)[0]


@_l2_root.defjvp
def _l2_jvp(squares: Magnitudes, capped: bool, primals: Any, tangents: Any) -> Any:
    s = _l2_root(squares, capped, *primals)

    def height(*args: jax.Array) -> jax.Array:
        p, q = squares(*args)
        reached = spread(s, p.ndim) * p
        return _total(jnp.where(reached < q, reached, q))

    _, change = jax.jvp(height, primals, tangents)
    p, q = squares(*primals)
    return s, -_divide(change, _total(jnp.where(spread(s, p.ndim) * p < q, p, 0)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _l1_root(lengths: Magnitudes, eps: jax.Array, *args: jax.Array) -> jax.Array:
    """The level >= 0 of each row with `sum(clip(u - level, 0, c)) == eps`; 0 where the sum is at most eps there, or eps is 0.

    Args:
      lengths: computes (u, c), both [B, ...] and non-negative, u finite, from `args`; compared by identity (static).
      eps: [B].
      *args: arrays with the batch axis first.
    Cost: two sums over the row per step; 3 to 8 steps on rows of pictures.
    Source: soft thresholding is the proximal map of the L1 norm; clipping acts coordinate by coordinate after it. The sum falls and
      is piecewise linear but not convex (elements leave the box's bound as others reach zero), hence the bracket: Newton
      inside it, else the chord, and late steps alternate with midpoints.
    """
    u, _ = lengths(*args)
    rank, rounding = u.ndim, 2 * float(jnp.finfo(u.dtype).eps)
    tiny = jnp.finfo(u.dtype).tiny

    def height(level: jax.Array) -> jax.Array:
        u, c = lengths(*args)
        return _total(jnp.clip(u - spread(level, rank), 0, c))

    def count(level: jax.Array) -> jax.Array:
        u, c = lengths(*args)
        above = u - spread(level, rank)
        return _total(((above > 0) & (above <= c)).astype(u.dtype))

    def body(state: Any) -> Any:
        level, g, left, g_left, right, g_right, live, i = state
        over = g > eps
        left, g_left = jnp.where(over, level, left), jnp.where(over, g, g_left)
        right, g_right = jnp.where(over, right, level), jnp.where(over, g_right, g)
        n = count(level)
        newton = level + (g - eps) / jnp.maximum(n, 1)
        chord = left + (right - left) * jnp.clip((g_left - eps) / jnp.maximum(g_left - g_right, tiny), 0, 1)
        trial = jnp.where((n > 0) & (newton > left) & (newton < right), newton, chord)
        trial = jnp.where((i >= _L1_TRUSTING) & (i % 2 == 0), 0.5 * (left + right), trial)
        # a level whose own linear piece contains the root maps to itself
        settled = ((n > 0) & (jnp.abs(newton - level) <= rounding * level)) | (right - left <= rounding * right)
        going = live & ~settled
        level = jnp.where(going, trial, level)  # a finished row must not move while its neighbours search on
        g = jnp.where(going, height(level), g)
        return level, g, left, g_left, right, g_right, going & (jnp.abs(g - eps) > rounding * eps), i + 1

    zero = jnp.zeros_like(eps)
    g = height(zero)
    live = (g > eps * (1 + 2 * rounding)) & (eps > 0)
    infinite = jnp.full_like(eps, jnp.finfo(u.dtype).max)
    start = (zero, g, zero, infinite, jnp.max(flat(u), axis=1, initial=0), zero, live, jnp.int32(0))
    return lax.while_loop(lambda state: jnp.any(state[6]) & (state[7] < _L1_PASSES), body, start)[0]


@_l1_root.defjvp
def _l1_jvp(lengths: Magnitudes, primals: Any, tangents: Any) -> Any:
    level = _l1_root(lengths, *primals)

    def surplus(eps: jax.Array, *args: jax.Array) -> jax.Array:
        u, c = lengths(*args)
        above = u - spread(level, u.ndim)
        return _total(jnp.where(above > c, c, jnp.where(above > 0, above, 0))) - eps

    _, change = jax.jvp(surplus, primals, tangents)
    u, c = lengths(*primals[1:])
    above = u - spread(level, u.ndim)
    n = _total(((above > 0) & (above <= c)).astype(u.dtype))
    return level, jnp.where(level > 0, _divide(change, n), 0)


# jitted, because outside of a trace a `while_loop` over closures would be compiled anew at every call
l2_multiplier = jax.jit(_l2_root, static_argnums=(0, 1))
l1_level = jax.jit(_l1_root, static_argnums=0)


@jax.jit
def greedy(a: jax.Array, c: jax.Array, eps: jax.Array) -> jax.Array:
    """The m in [0, c] with `sum(m) <= eps` of largest `sum(a * m)`: a fractional knapsack without a sort.

    Guarantee: elements with a = 0 get nothing (nor do denormal ones, where XLA takes these for 0);
      those tied at the last price share what is left in proportion to c.
    Args: a, c: [B, D] non-negative, c finite. eps: [B].
    Cost: that of `highest`, for the lowest price that the budget still reaches.
    """
    c = jnp.where(a > 0, c, 0)
    held, budget = lax.stop_gradient(c), lax.stop_gradient(eps)
    price = highest(lax.stop_gradient(a), lambda above: jnp.sum(jnp.where(above, held, 0), axis=1) >= budget, (a, c, eps))[:, None]
    full, last = a > price, a == price
    left = eps - jnp.sum(jnp.where(full, c, 0), axis=1)
    tied = jnp.sum(jnp.where(last, c, 0), axis=1)
    share = jnp.clip(jnp.where(tied > 0, left / jnp.where(tied > 0, tied, 1), 0), 0, 1)
    return jnp.where(full, c, jnp.where(last, share[:, None] * c, 0))
