"""Sound bounds of smooth functions of one variable: the range on an interval, and lines below and above.

The one idea: whatever its slope, a line's best height is known exactly, because the extremum of f(x) - slope x is at an end of the
interval or where f' equals the slope (`_unary_envelope`). So slopes may come from anywhere, a formula or an optimiser, and bounds
stay bounds. What each function adds is a `Curve`: how to invert its derivative, and where it bends.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from ._unary_curve import Curve, Ends
from ._unary_envelope import Segment, best_slope, slope_range, touch
from ._unary_exponentials import EXPONENTIALS
from ._unary_gated import GATED
from ._unary_gradient import elementwise
from ._unary_piecewise import PIECEWISE
from ._unary_powers import POWERS
from ._unary_rounding import errors
from ._unary_sigmoids import SIGMOIDS
from ._unary_waves import WAVES

_CURVES: dict[str, Callable[..., Curve]] = {**EXPONENTIALS, **POWERS, **SIGMOIDS, **WAVES, **GATED, **PIECEWISE}
# What no relative error covers: smaller numbers than the least normal one are flushed to 0 on some hardware.
_FLUSHES = 16


@dataclasses.dataclass(frozen=True)
class Unary:
    """One function with its bounds; equal by name and parameter. All methods act element by element on arrays [lo, hi] of any shape.

    Guarantee: `interval` and lines from `intercepts` contain f on [lo, hi], up to a few roundings of the largest number in the formula;
      with `sound=True` they contain, in exact arithmetic, both f and its value as computed by the kind of device that runs this
      (`_unary_rounding`). Nothing is ever nan; derivatives are finite.
    Edge cases: outside the domain (log or rsqrt reaching 0, sqrt below 0, a pole of tan or of a negative power inside) and where an
      end is nan, the interval is (-inf, inf) and lines are of slope 0 at -inf and inf: nothing is certified. Infinite ends have
      slopes 0 and the interval as intercepts. `lo > hi` counts as swapped.
    """

    name: str
    parameter: float | None = None  # of integer_pow and pow: the exponent
    kink: ClassVar[float | None] = None  # smooth functions have none

    @property
    def curve(self) -> Curve:
        return _curve(self.name, self.parameter)

    def value(self, x: jax.Array) -> jax.Array:
        """f(x) as JAX evaluates it."""
        return self.curve.value(x)

    def interval(self, lo: jax.Array, hi: jax.Array, sound: bool = False) -> Ends:
        """The exact range of f on [lo, hi]."""
        low, high = elementwise(functools.partial(_interval, self, sound), *_aligned(lo, hi))
        return low, high

    def slopes(self, lo: jax.Array, hi: jax.Array) -> Ends:
        """Slopes (lower, upper) of the lines with the smallest area between them and f."""
        lower, upper = elementwise(functools.partial(_slopes, self), *_aligned(lo, hi))
        return lower, upper

    def slope_range(self, lo: jax.Array, hi: jax.Array, side: str) -> Ends:
        """The least and greatest useful slope of the "lower" or "upper" line: of any other, one of these is better all along [lo, hi]."""
        if side not in ("lower", "upper"):
            raise ValueError(f'side is {side!r}; it must be "lower" or "upper".')
        least, most = elementwise(functools.partial(_slope_range, self, side == "lower"), *_aligned(lo, hi))
        return least, most

    def intercepts(self, lo: jax.Array, hi: jax.Array, lower_slope: jax.Array, upper_slope: jax.Array, sound: bool = False) -> Ends:
        """(b_lower, b_upper) with `lower_slope x + b_lower <= f(x) <= upper_slope x + b_upper` on [lo, hi], for any finite slopes.

        Their derivatives are exact where the touching point is unique: minus that point for the slope.
        """
        low, high = elementwise(functools.partial(_intercepts, self, sound), *_aligned(lo, hi, lower_slope, upper_slope))
        return low, high


@functools.cache
def _curve(name: str, parameter: float | None) -> Curve:
    return _CURVES[name]() if parameter is None else _CURVES[name](parameter)


def _aligned(*xs: jax.Array) -> list[jax.Array]:
    """All of one shape and dtype."""
    arrays = [jnp.asarray(x) for x in xs]
    dtype = jnp.result_type(*arrays)
    return [x.astype(dtype) for x in jnp.broadcast_arrays(*arrays)]


def _sorted(u: Unary, lo: jax.Array, hi: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(lo, hi, defined): in order, and whether f is defined all along."""
    lo, hi = jnp.where(lo <= hi, lo, hi), jnp.where(lo <= hi, hi, lo)
    defined = lo <= hi  # nan is not
    return lo, hi, defined & u.curve.defined(lo, hi) if u.curve.defined is not None else defined


def _segment(u: Unary, lo: jax.Array, hi: jax.Array) -> tuple[Segment, jax.Array, jax.Array]:
    """(segment, usable, defined): where it is not usable, because an end is infinite or undefined, the segment is a harmless point."""
    lo, hi, defined = _sorted(u, lo, hi)
    usable = defined & jnp.isfinite(lo) & jnp.isfinite(hi)
    lo, hi = jnp.where(usable, lo, u.curve.anchor), jnp.where(usable, hi, u.curve.anchor)
    return Segment.of(u.curve, lo, hi), usable, defined


def _interval(u: Unary, sound: bool, lo: jax.Array, hi: jax.Array) -> Ends:
    curve = u.curve
    lo, hi, defined = _sorted(u, lo, hi)
    lo, hi = jnp.where(defined, lo, curve.anchor), jnp.where(defined, hi, curve.anchor)
    low, high = curve.range(lo, hi)
    largest = float(jnp.finfo(lo.dtype).max)
    # an overflow says no more than that the value is beyond the largest number
    low, high = jnp.minimum(low, largest), jnp.maximum(high, -largest)
    if u.name in _NEVER_ZERO:  # an underflow no more than that it is below the smallest
        high = jnp.where((high == 0) & (hi > -jnp.inf), float(jnp.finfo(lo.dtype).tiny), high)
    if sound:
        relative, absolute = errors(u.name, u.parameter, lo.dtype)
        absolute = absolute * _unit(curve, lo, hi) + _flush(curve, lo.dtype)
        low = jnp.maximum(low - (relative * jnp.abs(low) + absolute), curve.least)
        high = jnp.minimum(high + (relative * jnp.abs(high) + absolute), curve.most)
    return jnp.where(defined, low, -jnp.inf), jnp.where(defined, high, jnp.inf)


_NEVER_ZERO = ("exp", "exp2", "logistic", "softplus")


def _slopes(u: Unary, lo: jax.Array, hi: jax.Array) -> Ends:
    segment, usable, _ = _segment(u, lo, hi)
    return tuple(jnp.where(usable, best_slope(segment, lower), 0) for lower in (True, False))  # pyright: ignore[reportReturnType]


def _slope_range(u: Unary, lower: bool, lo: jax.Array, hi: jax.Array) -> Ends:
    segment, usable, _ = _segment(u, lo, hi)
    least, most = slope_range(segment, lower)
    return jnp.where(usable, least, 0), jnp.where(usable, most, 0)


def _intercepts(u: Unary, sound: bool, lo: jax.Array, hi: jax.Array, *slopes: jax.Array) -> Ends:
    segment, usable, _ = _segment(u, lo, hi)
    found = []
    for slope, flat, lower in zip(slopes, _interval(u, sound, lo, hi), (True, False), strict=True):
        sign = 1.0 if lower else -1.0
        _, height = touch(segment, slope, lower)
        reach = jnp.maximum(jnp.abs(segment.left.x), jnp.abs(segment.right.x))
        if u.curve.blur is not None:
            height = height - u.curve.blur(reach)
        if sound:
            height = height - _slack(u, segment, slope, sign * height, reach)
        if u.name in _NEVER_ZERO:
            height = jnp.where(slope == 0, jnp.minimum(height, sign * flat), height)
        # an infinite interval can only be bounded by a constant
        otherwise = jnp.where(slope == 0, flat, -sign * jnp.inf)
        # where f overflows it is beyond the largest number, not infinite
        high = sign * flat - jnp.maximum(sign * slope * segment.left.x, sign * slope * segment.right.x)
        height = jnp.where(height == jnp.inf, high, height)
        height = jnp.where(jnp.isnan(height), -jnp.inf, height)
        found.append(jnp.where(usable, sign * height, otherwise))
    return found[0], found[1]


def _slack(u: Unary, s: Segment, slope: jax.Array, height: jax.Array, reach: jax.Array) -> jax.Array:
    """What rounding may take from the height of the line l that touches f from below (above it is the same with signs).

    Let each computed value of f err by a share k of |f|. The height was computed at the touching point, where f = l: it may be too high by
    k |l|. And l must stay below computed values: where f is positive these are at least (1 - k) f, and l is below that by k |l|; where f is
    negative so is l, |f| <= |l|, and a computed value is at least l - k |l|. So 2 k times the greatest |l|, which is at an end, is enough
    however large f is elsewhere. The product slope * x, the difference, the comparison's winner and this subtraction round once
    each, and an inexact critical point costs the square of its error, which is less than one more.
    """
    lo, hi = s.left.x, s.right.x
    relative, absolute = errors(u.name, u.parameter, lo.dtype)
    line = jnp.maximum(jnp.abs(slope * lo + height), jnp.abs(slope * hi + height))
    rounding = float(jnp.finfo(lo.dtype).eps) * 4 * (line + jnp.abs(slope) * reach)
    return relative * line + rounding + absolute * _unit(u.curve, lo, hi) + _flush(u.curve, lo.dtype) * (1 + jnp.abs(slope))


def _unit(curve: Curve, lo: jax.Array, hi: jax.Array) -> jax.Array:
    return jnp.minimum(jnp.maximum(jnp.abs(lo), jnp.abs(hi)), 16.0) if curve.gated else jnp.ones_like(lo)


def _flush(curve: Curve, dtype: jax.typing.DTypeLike) -> float:
    tiny = float(jnp.finfo(dtype).tiny)
    # a gate that is flushed to 0 had been multiplied by x, which is at most 745 then
    return _FLUSHES * tiny * (1024 if curve.gated else 1) + (2 * tiny**curve.flushed if curve.flushed else 0.0)


# by JAX's name of the primitive, or of the function of `jax.nn` ("gelu_tanh" is `gelu(approximate=True)`); the exponent of
# integer_pow and pow is the argument: UNARY["tanh"](), UNARY["pow"](1.5)
UNARY: dict[str, Callable[..., Unary]] = {name: functools.partial(Unary, name) for name in _CURVES}
