"""Order statistics of rows without a sort: XLA's CPU sort is an order of magnitude slower than a few passes of counting."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._manual import marked_like


def highest(a: jax.Array, enough: Callable[[jax.Array], jax.Array], like: Any) -> jax.Array:
    """[B] the highest level of each row of non-negative numbers at which the elements that reach it are enough; 0 where none is.

    Args: a: [B, D] floating >= 0, no NaN. enough: from a mask [B, D], the elements at or above a level, to [B] bool; it may turn
      from True to False once as levels rise. like: arrays whose sharding under `shard_map` the result has.
    Returns: [B] in float32, or in a's dtype if that is wider.
    Cost: one pass over `a` per bit but the sign's (31 for float32): bisection on the bit pattern, whose order is that of the numbers.
    """
    dtype = jnp.promote_types(a.dtype, jnp.float32)
    integer, top = (jnp.int64, 62) if dtype == jnp.float64 else (jnp.int32, 30)
    bits = lax.bitcast_convert_type(a.astype(dtype), integer)

    def body(i: jax.Array, found: jax.Array) -> jax.Array:
        trial = found | (jnp.ones((), integer) << (top - i).astype(integer))
        return jnp.where(enough(bits >= trial[:, None]), trial, found)

    none = marked_like(jnp.zeros(a.shape[0], integer), like)
    return lax.bitcast_convert_type(lax.fori_loop(jnp.int32(0), jnp.int32(top + 1), body, none), dtype)


def kth_largest(a: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th largest value of each row of non-negative numbers, exactly.

    Guarantee: `sum(a >= result, 1) >= k`, and no larger value of `a` has that property.
    Args: a: [B, D] floating, no NaN, entries >= 0. k: [B] int32, 1 <= k <= D (clipped).
    Cost: 31 passes of compare-and-count over `a`, 63 for float64.
    """
    k = jnp.clip(k, 1, a.shape[1])
    return highest(a, lambda above: jnp.sum(above, axis=1, dtype=jnp.int32) >= k, a)


def threshold(score: jax.Array, weight: jax.Array, budget: jax.Array) -> jax.Array:
    """Largest `t` of each row with `sum(weight[score >= t]) >= budget`: where a fractional knapsack is full; 0 if it never is.

    Args: score, weight: [B, D] floating >= 0. budget: [B]. Cost: 31 passes, as `kth_largest`.
    """

    def full(above: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(above, weight, 0.0), axis=1) >= budget

    return highest(score, full, (score, weight, budget))


def fill_knapsack(score: jax.Array, room: jax.Array, budget: jax.Array, worth: jax.Array | None = None) -> jax.Array:
    """Fractional knapsack: [B, D] amounts in [0, room], best scores first, with `sum(amount * worth) = min(budget, all)`.

    `worth` is what one unit of amount takes of the budget (default 1). Equal scores at the edge share it in proportion.
    """
    weight = room if worth is None else room * worth
    edge = threshold(score, weight, budget)[:, None]
    above, at = score > edge, score == edge
    left = jnp.maximum(budget - jnp.sum(jnp.where(above, weight, 0.0), axis=1), 0.0)
    tied = jnp.sum(jnp.where(at, weight, 0.0), axis=1)
    share = jnp.clip(left / jnp.where(tied > 0, tied, 1.0), 0.0, 1.0)[:, None]
    return jnp.where(above, room, jnp.where(at, share * room, 0.0))


def two_sums(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Row sums of two arrays in one pass: on the CPU two separate reductions read and recompute everything twice."""
    zero = jnp.zeros((), a.dtype)
    first, second = lax.reduce((a, b), (zero, zero), lambda s, t: (s[0] + t[0], s[1] + t[1]), (1,))
    return first, second


def concave_root(slope: jax.Array, cap: jax.Array, level: jax.Array, *, passes: int = 60) -> jax.Array:
    """The `t >= 0` of each row with `sum_i min(t * slope_i, cap_i) = level`; inf where even all caps do not reach `level`.

    Newton's method from t = 0. The function is concave and piecewise linear, so every tangent lies above it: the iterates
    rise to the root from below and stop at it exactly, once the set of capped terms no longer changes (3 to 6 passes in practice).

    Args: slope, cap: [B, D] >= 0. level: [B] >= 0. Cost: passes of compare-and-sum over [B, D]; no sort.
    """
    reachable = jnp.sum(jnp.where(slope > 0, cap, 0.0), axis=1) > level

    def more(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        i, _, moving = carry
        return (i < passes) & jnp.any(moving)

    def newton(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        i, t, _ = carry
        free = slope * t[:, None] < cap
        rate, held = two_sums(jnp.where(free, slope, 0.0), jnp.where(free | (slope == 0), 0.0, cap))
        new = jnp.where(rate > 0, (level - held) / jnp.where(rate > 0, rate, 1.0), t)
        new = jnp.maximum(new, t)  # rounding must not send it back
        return i + 1, new, reachable & (new > t * (1 + 1e-7))

    _, t, _ = lax.while_loop(more, newton, marked_like((jnp.int32(0), jnp.zeros_like(level), reachable), (slope, cap, level)))
    return jnp.where(reachable, t, jnp.inf)
