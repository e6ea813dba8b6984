"""Order statistics of rows without a sort: XLA's CPU sort is an order of magnitude slower than a few passes of counting."""

import jax
import jax.numpy as jnp
from jax import lax

from ._manual import marked_like


def kth_largest(a: jax.Array, k: jax.Array) -> jax.Array:
    """The k-th largest value of each row of non-negative numbers, exactly.

    Guarantee: `sum(a >= result, 1) >= k`, and no larger value of `a` has that property.
    Args: a: [B, D] float32, no NaN, entries >= 0. k: [B] int32, 1 <= k <= D (clipped).
    Cost: 31 passes of compare-and-count over `a`: bisection on the bit pattern, whose order is that of non-negative floats.
    """
    bits = lax.bitcast_convert_type(a.astype(jnp.float32), jnp.int32)
    k = jnp.clip(k, 1, a.shape[1])

    def body(i: jax.Array, found: jax.Array) -> jax.Array:
        trial = found | (jnp.int32(1) << (30 - i))
        enough = jnp.sum(bits >= trial[:, None], axis=1, dtype=jnp.int32) >= k
        return jnp.where(enough, trial, found)

    return lax.bitcast_convert_type(lax.fori_loop(0, 31, body, marked_like(jnp.zeros(a.shape[0], jnp.int32), a)), jnp.float32)


def threshold(score: jax.Array, weight: jax.Array, budget: jax.Array) -> jax.Array:
    """Largest `t` of each row with `sum(weight[score >= t]) >= budget`: where a fractional knapsack is full; 0 if it never is.

    Args: score, weight: [B, D] float32 >= 0. budget: [B]. Cost: 31 passes, as `kth_largest`.
    """
    bits = lax.bitcast_convert_type(score.astype(jnp.float32), jnp.int32)

    def body(i: jax.Array, found: jax.Array) -> jax.Array:
        trial = found | (jnp.int32(1) << (30 - i))
        full = jnp.sum(jnp.where(bits >= trial[:, None], weight, 0.0), axis=1) >= budget
        return jnp.where(full, trial, found)

    return lax.bitcast_convert_type(
        lax.fori_loop(0, 31, body, marked_like(jnp.zeros(score.shape[0], jnp.int32), (score, weight, budget))), jnp.float32
    )


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
