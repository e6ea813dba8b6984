"""Supporting lines of a curve on an interval: for any slope the exact height, and the slopes that are worth having.

Everything is about the convex envelope of f on [lo, hi] (lower side; the upper side is the same for -f). A line of slope s that
touches it has the height `min f(x) - s x`, whatever s is, and the minimum is at an end or where f' = s on a convex piece. Of all lines
below f the one with the smallest area between is the one that is highest at the midpoint, so it supports the envelope there: the
tangent at the midpoint if the envelope is f there, else the chord that bridges it. Tangents at midpoints of convex functions, chords
of concave ones and tangents through an end of S-shaped ones (Zhang et al. 2018, "Efficient neural network robustness certification
with general activation functions", table 2 and figure 1) are special cases, except that the tangent through an end is improved on
where the envelope's bridge does not reach the midpoint.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._unary_curve import Curve

# Chords tried for the bridge over the midpoint, and steps to the envelope's slope at an end. They converge like Newton's: with three
# chords S-shapes are within rounding of the optimum on intervals up to 1e5, and waves over several periods within 0.7 % of it.
_CHORDS = 3
_END_STEPS = 3
# At an end the envelope's slope may be infinite (sqrt at 0), and near one that is, almost every t between the slopes would be wasted:
# take the slope this part of the width inside.
_INSET = 2.0**-10


class Point(NamedTuple):
    """A point (x, f(x)) of the curve."""

    x: jax.Array
    f: jax.Array

    def where(self, mask: jax.Array, other: "Point") -> "Point":
        return Point(jnp.where(mask, self.x, other.x), jnp.where(mask, self.f, other.f))


class Segment(NamedTuple):
    """A curve over finite intervals inside its domain."""

    curve: Curve
    left: Point
    right: Point

    @classmethod
    def of(cls, curve: Curve, lo: jax.Array, hi: jax.Array) -> "Segment":
        return cls(curve, Point(lo, curve.value(lo)), Point(hi, curve.value(hi)))


def touch(s: Segment, slope: jax.Array, lower: bool) -> tuple[Point, jax.Array]:
    """Where a line of that slope supports f from below (`lower`) or above, and its height at 0; on the upper side times -1.

    The derivatives are those of the envelope theorem: a touching point inside is a constant.
    """
    sign = 1.0 if lower else -1.0

    def height(p: Point) -> jax.Array:
        at_zero = sign * (p.f - slope * p.x)
        return jnp.where(jnp.isnan(at_zero), -jnp.inf, at_zero)  # inf - inf: nothing is known

    lo, hi = lax.stop_gradient(s.left.x), lax.stop_gradient(s.right.x)
    critical = [lax.stop_gradient(jnp.clip(x, lo, hi)) for x in s.curve.critical(lax.stop_gradient(slope), lo, hi, lower)]
    x, least = s.left.x, height(s.left)
    for p in (s.right, *(Point(x, s.curve.value(x)) for x in critical)):
        other = height(p)
        x, least = jnp.where(other < least, p.x, x), jnp.where(other < least, other, least)
    # not f chosen like x: XLA compares twice, rounds differently when heights are level, and would pair one point's x with another's f
    return Point(x, sign * least + slope * x), least


def _chord(a: Point, b: Point, otherwise: jax.Array) -> jax.Array:
    """The slope from a to b, `otherwise` if they are so close that the quotient would overflow."""
    width = b.x - a.x
    apart = jnp.abs(width) > 4 * float(jnp.finfo(width.dtype).tiny)
    return jnp.where(apart, (b.f - a.f) / jnp.where(apart, width, 1), otherwise)


def _finite(slope: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(slope), slope, 0)


def best_slope(s: Segment, lower: bool) -> jax.Array:
    """The slope of the line with the smallest area between it and f; 0 where that is not finite."""
    curve, middle = s.curve, 0.5 * s.left.x + 0.5 * s.right.x
    tangent = curve.slope(middle)
    steepest = curve.slopes(s.left.x, s.right.x)

    def between(a: Point, b: Point) -> jax.Array:
        # a chord's slope is some f' in between, which also holds off the rounding of narrow intervals
        return jnp.clip(_chord(a, b, tangent), *steepest)

    if curve.convex is not None:
        convex = curve.convex(s.left.x, s.right.x) if callable(curve.convex) else curve.convex
        return _finite(jnp.where(jnp.asarray(convex) == lower, tangent, between(s.left, s.right)))
    # Cutting planes on the interval around the midpoint in which the envelope is not known yet. Where it is a bridge, each step is
    # Newton's for the tangent through the opposite end; where it is f, the tangent at the midpoint wins the comparison.
    sign = 1.0 if lower else -1.0
    a, b = s.left, s.right
    best, highest = jnp.zeros_like(tangent), jnp.full_like(tangent, -jnp.inf)
    for _ in range(_CHORDS):
        slope = between(a, b)
        found, height = touch(s, lax.stop_gradient(slope), lower)
        level = height + sign * slope * middle
        best, highest = jnp.where(level > highest, slope, best), jnp.where(level > highest, level, highest)
        before = found.x <= middle
        a, b = found.where(before, a), b.where(before, found)
    _, height = touch(s, lax.stop_gradient(tangent), lower)
    return _finite(jnp.where(height + sign * tangent * middle > highest, tangent, best))


def slope_range(s: Segment, lower: bool) -> tuple[jax.Array, jax.Array]:
    """The slopes of the envelope at its ends, least first: a line of any other slope is worse than one of these all along."""
    curve, sign = s.curve, 1.0 if lower else -1.0
    inset = _INSET * (0.5 * s.right.x - 0.5 * s.left.x)
    steepest = curve.slopes(s.left.x, s.right.x)
    tangent = curve.slope(0.5 * s.left.x + 0.5 * s.right.x)
    chord = jnp.clip(_chord(s.left, s.right, tangent), *steepest)
    found = []
    # at the left end of a lower envelope it is the least slope of all chords from there; at the right end the greatest
    for end, inside, direction in ((s.left, s.left.x + inset, sign), (s.right, s.right.x - inset, -sign)):
        slope = _lesser(curve.slope(jnp.clip(inside, s.left.x, s.right.x)), chord, direction)
        if curve.convex is None:
            for _ in range(_END_STEPS):  # Newton for the tangent through this end
                other, _ = touch(s, lax.stop_gradient(slope), lower)
                further = jnp.clip(_chord(end, other, slope), *steepest)
                slope = jnp.where(jnp.abs(other.x - end.x) > 2 * inset, _lesser(further, slope, direction), slope)
        found.append(_finite(slope))
    return jnp.minimum(*found), jnp.maximum(*found)


def _lesser(a: jax.Array, b: jax.Array, direction: float) -> jax.Array:
    """The lesser of two slopes, or the greater if the direction is -1; b if a is nan."""
    return jnp.where(direction * a < direction * b, a, b)
