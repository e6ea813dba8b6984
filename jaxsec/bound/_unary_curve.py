"""The facts about one function of one variable from which its bounds follow."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

Ends = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A function that is smooth inside its domain.

    Attributes:
      value: the function as JAX evaluates it.
      critical: (slope, lo, hi, lower) -> the arguments at which f' is the slope on pieces that are convex (lower) or concave (not lower),
        in any order. Points outside [lo, hi] and any number, but no nan, where there is none do no harm. One that is forgotten does.
      convex: whether f is convex (True) or concave (False) on all of its domain; a function of (lo, hi) where it depends on the
        side of a pole; None where f bends both ways.
      bends: the inflection points.
      turns: the arguments of local extrema.
      rising: False for functions that only fall. (It decides ties, which matter to derivatives.)
      defined: (lo, hi) -> whether f is finite and smooth from lo to hi; None if it is everywhere.
      anchor: an argument at which nothing can go wrong.
      least, most: what no hardware's value is below or above.
      gated: f = x * gate(x), the gate from 0 to 1: errors are in units of |x|.
      flushed: the value at the least normal number, where hardware that takes smaller ones for 0 has an error of that size.
      derivative: f' where JAX's own would be inaccurate.
      reach: (lo, hi) -> range of f, where it does not follow from turns.
      steepness: (lo, hi) -> range of f', where it does not follow from bends.
      blur: |x| -> what the line's height may lack because critical points that far from 0 are inexact; None where roundings cover it.
    """

    value: Callable[[jax.Array], jax.Array]
    critical: Callable[[jax.Array, jax.Array, jax.Array, bool], tuple[jax.Array, ...]]
    convex: bool | Callable[[jax.Array, jax.Array], jax.Array] | None = None
    bends: tuple[float, ...] = ()
    turns: tuple[float, ...] = ()
    rising: bool = True
    defined: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    anchor: float = 0.0
    least: float = -float("inf")
    most: float = float("inf")
    gated: bool = False
    flushed: float = 0.0
    derivative: Callable[[jax.Array], jax.Array] | None = None
    reach: Callable[[jax.Array, jax.Array], Ends] | None = None
    steepness: Callable[[jax.Array, jax.Array], Ends] | None = None
    blur: Callable[[jax.Array], jax.Array] | None = None

    def slope(self, x: jax.Array) -> jax.Array:
        """f'(x)."""
        return self.derivative(x) if self.derivative is not None else jax.jvp(self.value, (x,), (jnp.ones_like(x),))[1]

    def slopes(self, lo: jax.Array, hi: jax.Array) -> Ends:
        """Least and greatest f' from lo to hi; infinite where an end has none."""
        if self.steepness is not None:
            return self.steepness(lo, hi)
        points = [self.slope(x) for x in (lo, hi, *(jnp.clip(bend, lo, hi) for bend in self.bends))]
        least = jnp.where(jnp.isnan(points[0]), -jnp.inf, points[0])
        most = jnp.where(jnp.isnan(points[0]), jnp.inf, points[0])
        for p in points[1:]:
            least = jnp.minimum(least, jnp.where(jnp.isnan(p), -jnp.inf, p))
            most = jnp.maximum(most, jnp.where(jnp.isnan(p), jnp.inf, p))
        return least, most

    def range(self, lo: jax.Array, hi: jax.Array) -> Ends:
        """Least and greatest f from lo to hi, which may be infinite."""
        if self.reach is not None:
            return self.reach(lo, hi)
        at_lo, at_hi = self._at(lo), self._at(hi)
        if not self.rising:
            at_lo, at_hi = at_hi, at_lo
        ordered = at_lo <= at_hi
        low, high = jnp.where(ordered, at_lo, at_hi), jnp.where(ordered, at_hi, at_lo)
        for turn in self.turns:
            inside = (lo < turn) & (turn < hi)
            at = self.value(jnp.asarray(turn, lo.dtype))
            low, high = jnp.where(inside & (at < low), at, low), jnp.where(inside & (at > high), at, high)
        return low, high

    def _at(self, x: jax.Array) -> jax.Array:
        """f(x), at infinity the limit: x * gate(x) multiplies by 0 there, so step back to the greatest number."""
        value = self.value(x)
        largest = float(jnp.finfo(x.dtype).max)
        return jnp.where(jnp.isnan(value), self.value(jnp.clip(x, -largest, largest)), value)
