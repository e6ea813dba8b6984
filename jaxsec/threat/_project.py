"""Root searches behind the exact L2 and L1 operations: one multiplier per row, no sorts, a few fused passes over the row.

Everything is about magnitudes: a displacement has the sign of a direction, a wanted length `u` per element and a `room` `c`
until the box blocks it. Both searches return the multiplier with an implicit-function derivative (custom_jvp), so
projections can be differentiated although the search itself is a `while_loop`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Newton from the left on a concave piecewise linear function at least quarters (residual x slope) per pass, so 64 passes
# exceed what float32 can distinguish; rows of pictures need 2 to 6.
_L2_PASSES = 64
# every third pass bisects: 25 halvings whatever the shape of the function; rows of pictures need 3 to 9 passes.
_L1_PASSES = 75


def _two_sums(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    # One variadic reduction reads the rows once; two separate sums cost XLA:CPU 3 to 6 times more. It sums in sequence, to
    # about 2e-5 relative at D = 150k: good enough to search with, so both searches end with a tree-summed Newton step.
    zero = jnp.zeros((), a.dtype)
    total = lax.reduce((a, b), (zero, zero), lambda s, t: (s[0] + t[0], s[1] + t[1]), (1,))
    return total[0], total[1]


def _l2_pieces(p: jax.Array, q: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    free = s[:, None] * p < q
    return _two_sums(jnp.where(free, p, 0), jnp.where(free, 0, q))


@jax.custom_jvp
def l2_multiplier(p: jax.Array, q: jax.Array) -> jax.Array:
    """The s >= 0 of each row with `sum(minimum(s * p, q)) == 1`; where no s reaches 1, one at which every element is at q.

    Args: p, q: [B, D] non-negative, finite.
    Cost: one pass over p and q per Newton step (2 when no element is at its bound), then two.
    Source: KKT conditions of the Euclidean projection on ball and box; the function is concave and piecewise linear in s, the
      squared inverse of (1 + multiplier), so Newton's method from s = 0 is monotone and ends after finitely many steps.
    """

    def body(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        s, _, i = state
        slope, rest = _l2_pieces(p, q, s)
        proposed = jnp.minimum(jnp.where(slope > 0, (1 - rest) / jnp.where(slope > 0, slope, 1), s), jnp.finfo(p.dtype).max)
        rises = proposed > s * (1 + 4 * jnp.finfo(p.dtype).eps)
        return jnp.where(rises, proposed, s), rises, i + 1

    rows = p.shape[0]
    start = (jnp.zeros(rows, p.dtype), jnp.ones(rows, bool), jnp.int32(0))
    s, _, _ = lax.while_loop(lambda state: jnp.any(state[1]) & (state[2] < _L2_PASSES), body, start)
    slope, _ = _l2_pieces(p, q, s)
    excess = jnp.sum(jnp.minimum(s[:, None] * p, q), axis=1) - 1
    return jnp.where(slope > 0, jnp.maximum(s - excess / jnp.where(slope > 0, slope, 1), 0), s)


@l2_multiplier.defjvp
def _l2_jvp(primals: Any, tangents: Any) -> Any:
    (p, q), (dp, dq) = primals, tangents
    s = l2_multiplier(p, q)
    free = s[:, None] * p < q
    slope = jnp.sum(jnp.where(free, p, 0), axis=1)
    moved = jnp.sum(jnp.where(free, s[:, None] * dp, dq), axis=1)
    return s, jnp.where(slope > 0, -moved / jnp.where(slope > 0, slope, 1), 0)


def _l1_pieces(u: jax.Array, c: jax.Array, level: jax.Array) -> tuple[jax.Array, jax.Array]:
    above = u - level[:, None]
    return _two_sums(jnp.clip(above, 0, c), ((above > 0) & (above <= c)).astype(u.dtype))


@jax.custom_jvp
def l1_level(u: jax.Array, c: jax.Array, eps: jax.Array) -> jax.Array:
    """The level >= 0 of each row with `sum(clip(u - level, 0, c)) == eps`, for rows whose sum at level 0 is at least eps.

    Args: u, c: [B, D] non-negative, u finite. eps: [B].
    Cost: one pass per step; 3 to 9 steps on rows of pictures.
    Source: soft thresholding is the proximal map of the L1 norm; clipping commutes with it coordinate by coordinate. The
      function falls and is piecewise linear but not convex (elements leave the box bound as others reach zero), hence the
      bracket: Newton inside it, else the chord, and every third step the midpoint.
    """
    tiny = 2 * jnp.finfo(u.dtype).eps

    def body(state: Any) -> Any:
        level, left, g_left, right, g_right, live, i = state
        g, n = _l1_pieces(u, c, level)
        over = g > eps
        left, g_left = jnp.where(over, level, left), jnp.where(over, g, g_left)
        right, g_right = jnp.where(over, right, level), jnp.where(over, g_right, g)
        newton = level + (g - eps) / jnp.maximum(n, 1)
        chord = left + (right - left) * jnp.clip((g_left - eps) / jnp.maximum(g_left - g_right, jnp.finfo(u.dtype).tiny), 0, 1)
        trial = jnp.where((n > 0) & (newton > left) & (newton < right), newton, chord)
        trial = jnp.where(i % 3 == 2, 0.5 * (left + right), trial)
        # a level whose own piece contains the root maps to itself
        near = (jnp.abs(g - eps) <= tiny * eps) | ((n > 0) & (jnp.abs(newton - level) <= tiny * level))
        going = live & ~near & (right - left > tiny * right)
        keep = lambda new, old: jnp.where(going, new, old)  # noqa: E731  (a finished row must not move with its neighbours)
        return keep(trial, level), left, g_left, right, g_right, going, i + 1

    zero = jnp.zeros_like(eps)
    infinite = jnp.full_like(eps, jnp.finfo(u.dtype).max)
    start = (zero, zero, infinite, jnp.max(u, axis=1, initial=0), zero, jnp.ones(eps.shape, bool), jnp.int32(0))
    level, *_ = lax.while_loop(lambda state: jnp.any(state[-2]) & (state[-1] < _L1_PASSES), body, start)
    _, n = _l1_pieces(u, c, level)
    excess = jnp.sum(jnp.clip(u - level[:, None], 0, c), axis=1) - eps
    return jnp.where(n > 0, jnp.maximum(level + excess / jnp.maximum(n, 1), 0), level)


@l1_level.defjvp
def _l1_jvp(primals: Any, tangents: Any) -> Any:
    (u, c, eps), (du, dc, deps) = primals, tangents
    level = l1_level(u, c, eps)
    above = u - level[:, None]
    free, full = (above > 0) & (above <= c), above > c
    n = jnp.sum(free, axis=1, dtype=u.dtype)
    moved = jnp.sum(jnp.where(free, du, jnp.where(full, dc, 0)), axis=1) - deps
    return level, jnp.where(n > 0, moved / jnp.maximum(n, 1), 0)


def greedy(a: jax.Array, c: jax.Array, eps: jax.Array) -> jax.Array:
    """The m in [0, c] with `sum(m) <= eps` of largest `sum(a * m)`: a fractional knapsack without a sort.

    Guarantee: elements with a = 0 get nothing; elements tied at the last price share what is left in proportion to c.
    Args: a, c: [B, D] non-negative, c finite. eps: [B].
    Cost: one pass per bit of a's dtype (31 for float32): bisection on the bit pattern, whose order is that of non-negative
      floats, for the lowest price that the budget still reaches.
    """
    integer = jnp.int64 if jnp.finfo(a.dtype).bits == 64 else jnp.int32
    top = jnp.finfo(a.dtype).bits - 2
    bits = lax.stop_gradient(lax.bitcast_convert_type(lax.stop_gradient(a), integer))
    c = jnp.where(bits > 0, c, 0)
    held, budget = lax.stop_gradient(c), lax.stop_gradient(eps)

    def body(i: jax.Array, price: jax.Array) -> jax.Array:
        trial = price | (jnp.ones((), integer) << (top - i).astype(integer))
        spent = jnp.sum(jnp.where(bits >= trial[:, None], held, 0), axis=1)
        return jnp.where(spent >= budget, trial, price)

    price = lax.fori_loop(0, top + 1, body, jnp.zeros(a.shape[0], integer))[:, None]
    full, last = bits > price, bits == price
    left = eps - jnp.sum(jnp.where(full, c, 0), axis=1)
    tied = jnp.sum(jnp.where(last, c, 0), axis=1)
    share = jnp.clip(jnp.where(tied > 0, left / jnp.where(tied > 0, tied, 1), 0), 0, 1)
    return jnp.where(full, c, jnp.where(last, share[:, None] * c, 0))
