"""sin, cos and tan: critical points repeat, and far from 0 nobody knows exactly where."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ._unary_curve import Curve, Ends

_TURN = 2 * math.pi
# 2 pi and pi in two parts, of which the first has so few bits that its multiples are exact (Cody and Waite 1980)
_TURN_PARTS = (6.28125, _TURN - 6.28125)
_HALF_PARTS = (3.140625, math.pi - 3.140625)


def _multiple(k: jax.Array, parts: tuple[float, float], offset: jax.Array | float) -> jax.Array:
    return k * parts[0] + (k * parts[1] + offset)


def _error(x: jax.Array, ulps: float) -> jax.Array:
    return ulps * float(jnp.finfo(x.dtype).eps) * (1 + jnp.abs(x))


def _wave(value: Callable[[jax.Array], jax.Array], rate: Callable[[jax.Array], jax.Array], phase: float) -> Curve:
    """sin(x + phase) and its derivative."""

    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        # f' = cos(x + phase) = s, and f is convex where it is negative. From one of these points to the next f(x) - s x
        # changes by the same amount, so the first and the last in the interval are enough.
        at = jnp.arccos(jnp.clip(s, -1, 1))
        at = (-at if lower else at) - phase
        first, last = jnp.ceil((lo - at) / _TURN), jnp.floor((hi - at) / _TURN)
        return _multiple(first, _TURN_PARTS, at), _multiple(last, _TURN_PARTS, at)

    def meets(lo: jax.Array, hi: jax.Array, at: float) -> jax.Array:
        """Whether at + 2 pi k is in [lo, hi] for some k; yes if rounding cannot tell."""
        first, last = (lo - at - _error(lo, 4)) / _TURN, (hi - at + _error(hi, 4)) / _TURN
        return ~(jnp.floor(last) < jnp.ceil(first))

    def between(lo: jax.Array, hi: jax.Array, a: jax.Array, b: jax.Array, shift: float) -> Ends:
        """Range of sin(x + shift), which is a at lo and b at hi."""
        low = jnp.where(meets(lo, hi, -math.pi / 2 - shift), -1, jnp.where(a <= b, a, b))
        return low, jnp.where(meets(lo, hi, math.pi / 2 - shift), 1, jnp.where(a <= b, b, a))

    def reach(lo: jax.Array, hi: jax.Array) -> Ends:
        return between(lo, hi, value(lo), value(hi), phase)

    def steepness(lo: jax.Array, hi: jax.Array) -> Ends:
        return between(lo, hi, rate(lo), rate(hi), phase + math.pi / 2)

    def blur(x: jax.Array) -> jax.Array:
        # half of |f''| times the square of the error; GPUs are allowed 1e-6 for arccos, 8 eps; 2 if nothing is known
        bent = jnp.minimum(x, 1) if phase == 0 else 1
        return jnp.minimum(0.5 * bent * jnp.square(_error(x, 16)), 2)

    return Curve(value, critical, reach=reach, steepness=steepness, derivative=rate, blur=blur, least=-1.0, most=1.0)


def sin() -> Curve:
    return _wave(jnp.sin, jnp.cos, 0.0)


def cos() -> Curve:
    return _wave(jnp.cos, lambda x: -jnp.sin(x), math.pi / 2)


def tan() -> Curve:
    """On one branch, which is what the interval has to be inside of."""

    def branch(lo: jax.Array, hi: jax.Array) -> jax.Array:
        return jnp.round((0.5 * lo + 0.5 * hi) / math.pi)

    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        at = jnp.arctan(jnp.sqrt(jnp.maximum(s - 1, 0)))  # f' = 1 + tan^2
        return (_multiple(branch(lo, hi), _HALF_PARTS, at if lower else -at),)

    def defined(lo: jax.Array, hi: jax.Array) -> jax.Array:
        k = branch(lo, hi)
        return (_multiple(-k, _HALF_PARTS, lo) > _error(lo, 4) - math.pi / 2) & (
            _multiple(-k, _HALF_PARTS, hi) < math.pi / 2 - _error(hi, 4)
        )

    def steepness(lo: jax.Array, hi: jax.Array) -> Ends:
        a, b = 1 + jnp.square(jnp.tan(lo)), 1 + jnp.square(jnp.tan(hi))
        centre = _multiple(branch(lo, hi), _HALF_PARTS, 0.0)
        return jnp.where((lo <= centre) & (centre <= hi), 1.0, jnp.minimum(a, b)), jnp.maximum(a, b)

    return Curve(jnp.tan, critical, defined=defined, steepness=steepness)


WAVES = {"sin": sin, "cos": cos, "tan": tan}
