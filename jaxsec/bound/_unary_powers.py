"""Powers: square, roots, reciprocals and any constant exponent."""

import jax
import jax.numpy as jnp
from jax import lax

from ._unary_curve import Curve


def _root(s: jax.Array, n: float) -> jax.Array:
    """The x >= 0 at which |n| x^(n - 1) = |s|; infinite, or 0, where there is none."""
    quotient = jnp.abs(s / n)
    return jnp.sqrt(quotient) if n == 3 else jnp.power(quotient, 1 / (n - 1))


def _everywhere(s: jax.Array, *_) -> tuple[jax.Array, ...]:
    """Of a straight line every point is critical: the ends will do."""
    return ()


def square() -> Curve:
    return Curve(jnp.square, lambda s, *_: (s / 2,), convex=True, turns=(0.0,), least=0.0)


def _beside_pole(n: int):
    """Whether all of [lo, hi] is on one side of 0, as far away as it takes for x^n not to overflow."""

    def defined(lo: jax.Array, hi: jax.Array) -> jax.Array:
        # computed as 1 / x^|n|, which overflows as soon as x^|n| is flushed to 0
        nearest = float(4 * jnp.finfo(lo.dtype).tiny) ** (1 / -n)
        return (lo >= nearest) | (hi <= -nearest)

    return defined


def integer_pow(n: float) -> Curve:
    """x^n for any integer n."""
    n = int(n)

    def value(x: jax.Array) -> jax.Array:
        return lax.integer_pow(x, n)

    if n in (0, 1):
        return Curve(value, _everywhere, convex=True)
    if n % 2 == 0:

        def even(s: jax.Array, *_) -> tuple[jax.Array, ...]:
            at = _root(s, n)
            return (jnp.where(s / n < 0, -at, at),)

        if n > 0:
            return Curve(value, even, convex=True, turns=(0.0,), least=0.0)
        # falls on the right of the pole, rises on the left; ties need not be decided
        return Curve(value, even, convex=True, defined=_beside_pole(n), anchor=1.0, least=0.0)

    def odd(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        at = _root(s, n)
        return (at if lower else -at,)

    if n > 0:
        return Curve(value, odd, bends=(0.0,))
    return Curve(value, odd, convex=lambda lo, hi: lo > 0, rising=False, defined=_beside_pole(n), anchor=1.0)


def reciprocal() -> Curve:
    """1 / x on either side of 0."""

    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        at = lax.rsqrt(jnp.maximum(-s, 0))
        return (at if lower else -at,)

    return Curve(lambda x: 1 / x, critical, convex=lambda lo, hi: lo > 0, rising=False, defined=_beside_pole(-1), anchor=1.0)


def power(n: float) -> Curve:
    """x^n for any n; x > 0, or x >= 0 if n > 0."""

    def value(x: jax.Array) -> jax.Array:
        return lax.pow(x, jnp.full_like(x, n))

    def critical(s: jax.Array, *_) -> tuple[jax.Array, ...]:
        return (_root(jnp.maximum(s / n, 0) * n, n),)

    def defined(lo: jax.Array, hi: jax.Array) -> jax.Array:
        return lo >= (0.0 if n >= 0 else float(4 * jnp.finfo(lo.dtype).tiny) ** min(1.0, 1 / -n))

    flushed = n if 0 < n < 1 else 0.0
    if n in (0, 1):
        return Curve(value, _everywhere, convex=True, defined=defined, anchor=1.0, least=0.0)
    return Curve(value, critical, convex=n < 0 or n > 1, rising=n > 0, defined=defined, anchor=1.0, least=0.0, flushed=flushed)


def sqrt() -> Curve:
    return Curve(
        jnp.sqrt,
        lambda s, *_: (0.25 / jnp.square(jnp.maximum(s, 0)),),
        convex=False,
        defined=lambda lo, hi: lo >= 0,
        anchor=1.0,
        least=0.0,
        flushed=0.5,
    )


def rsqrt() -> Curve:
    def defined(lo: jax.Array, hi: jax.Array) -> jax.Array:
        return lo >= float(jnp.finfo(lo.dtype).tiny)

    return Curve(
        lax.rsqrt, lambda s, *_: (_root(jnp.minimum(s, 0), -0.5),), convex=True, rising=False, defined=defined, anchor=1.0, least=0.0
    )


def cbrt() -> Curve:
    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        at = _root(jnp.maximum(s, 0), 1 / 3)
        return (-at if lower else at,)

    return Curve(jnp.cbrt, critical, bends=(0.0,), flushed=1 / 3)


POWERS = {
    "square": square,
    "integer_pow": integer_pow,
    "reciprocal": reciprocal,
    "pow": power,
    "sqrt": sqrt,
    "rsqrt": rsqrt,
    "cbrt": cbrt,
}
