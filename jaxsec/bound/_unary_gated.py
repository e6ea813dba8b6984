"""x * gate(x): gelu, silu, mish. Two bends, and a derivative whose inverse has no formula: fitted on each of its three pieces.

With s = f'(x), falling from 0 to its least value at the first bend, rising to its greatest at the second and falling to 1, x is a smooth
function of `(u - v) / (u + v)` in the middle, where u and v are the square roots of the distances from least and greatest, and of
`sqrt(log(extreme distance / distance))` from 0 or 1 on the outer pieces: both undo the square root that a bend puts into the inverse,
the second also the exponential tail. Polynomials in these are within 1e-3; one Newton step, never longer than their error, does the rest.
The fits are made from the derivative itself at first use, in float64 on the host, so there are no tables to trust.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._unary_curve import Curve

_MIDDLE_DEGREE, _TAIL_DEGREE = 9, 9
# f' is 0 or 1 to float64 beyond; the clip spares it overflows
_FAR = 200.0
_TAIL = 1e-37  # how small |f'| or |f' - 1| gets in the fits of the outer pieces, the least of float32


class Maths(NamedTuple):
    """The functions that gates are made of, on the host or on the device."""

    exp: Callable[[Any], Any]
    sigmoid: Callable[[Any], Any]
    erfc: Callable[[Any], Any]


_HOST = Maths(np.exp, lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-abs(x))), np.vectorize(math.erfc, otypes=[float]))
_DEVICE = Maths(jnp.exp, lax.logistic, lax.erfc)


class Gate(NamedTuple):
    """A gate S from 0 to 1 at some x."""

    open: Any  # S
    shut: Any  # 1 - S without its cancellation
    first: Any  # S'
    second: Any  # S''


def _gelu(m: Maths, x: Any) -> Gate:
    density = m.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return Gate(0.5 * m.erfc(-x * math.sqrt(0.5)), 0.5 * m.erfc(x * math.sqrt(0.5)), density, -x * density)


def _silu(m: Maths, x: Any) -> Gate:
    up, down = m.sigmoid(x), m.sigmoid(-x)
    return Gate(up, down, up * down, up * down * (down - up))


def _gelu_tanh(m: Maths, x: Any) -> Gate:
    # (1 + tanh(z / 2)) / 2 = sigmoid(z)
    c, d = 2 * math.sqrt(2 / math.pi), 0.044715
    inner = _silu(m, c * (x + d * x * x * x))
    z1, z2 = c * (1 + 3 * d * x * x), c * 6 * d * x
    return Gate(inner.open, inner.shut, inner.first * z1, inner.second * z1 * z1 + inner.first * z2)


def _mish(m: Maths, x: Any) -> Gate:
    # tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2); by 1 / e where e would overflow
    e = m.exp(-abs(x))
    right, left = 1 + 2 * e + 2 * e * e, e * (e + 2) + 2
    up = (x > 0) * ((1 + 2 * e) / right) + (x <= 0) * (e * (e + 2) / left)
    down = (x > 0) * (2 * e * e / right) + (x <= 0) * (2 / left)
    s, t = m.sigmoid(x), m.sigmoid(-x)
    return Gate(up, down, down * (1 + up) * s, down * (1 + up) * s * (t - 2 * up * s))


class Fit(NamedTuple):
    """The inverse of f' on one piece: a polynomial, lowest power first, of a variable scaled to [-1, 1], and how far off it may be."""

    coefficients: tuple[float, ...]
    scale: float  # the variable's range is from 0 (outer pieces) or -1 (the middle) to this
    error: float


class Inverse(NamedTuple):
    """Inverse of f' on its three pieces."""

    bends: tuple[float, float]
    turn: float  # where f is least
    least: float  # f' at the bends
    most: float
    left: Fit
    middle: Fit
    right: Fit


def _bisected(f: Callable[[Any], Any], a: float, b: float) -> float:
    """The root of f, of opposite signs at a and b."""
    negative = f(np.float64(a)) < 0
    for _ in range(80):
        c = 0.5 * (a + b)
        a, b = (c, b) if (f(np.float64(c)) < 0) == negative else (a, c)
    return 0.5 * (a + b)


def _fitted(u: np.ndarray, scale: float, x: np.ndarray, degree: int) -> Fit:
    v = 2 * u / scale - 1 if u.min() >= 0 else u
    p = np.polynomial.Chebyshev.fit(v, x, degree, domain=[-1, 1])
    error = float(np.abs(p(v) - x).max())
    return Fit(tuple(float(c) for c in p.convert(kind=np.polynomial.Polynomial).coef), scale, 1.5 * error)


@functools.cache
def _inverse(gate: Callable[[Maths, Any], Gate]) -> Inverse:
    def rest(x: Any, above: bool) -> Any:
        """f', or f' - 1."""
        g = gate(_HOST, x)
        return x * g.first - g.shut if above else g.open + x * g.first

    def bent(x: Any) -> Any:
        g = gate(_HOST, x)
        return 2 * g.first + x * g.second

    bends = _bisected(bent, -4.0, 0.0), _bisected(bent, 0.0, 4.0)
    least, over = float(rest(np.float64(bends[0]), False)), float(rest(np.float64(bends[1]), True))
    # nodes bunched at the ends of each piece, where the square roots are
    nodes = 0.5 - 0.5 * np.cos(np.pi * (np.arange(801) + 0.5) / 801)
    tails = []
    for bend, extreme, above in ((bends[0], least, False), (bends[1], over, True)):
        end = _bisected(lambda x, above=above: abs(rest(x, above)) - _TAIL, bend, math.copysign(100.0, bend))
        scale = math.sqrt(math.log(abs(extreme) / _TAIL))
        # equal steps of the variable would need the inverse; bunching towards the bend is near enough
        x = bend + (end - bend) * nodes**2
        u = np.sqrt(np.maximum(np.log(abs(extreme) / np.abs(rest(x, above))), 0))
        tails.append(_fitted(u, scale, x, _TAIL_DEGREE))
    x = bends[0] + (bends[1] - bends[0]) * nodes
    u, v = np.sqrt(np.maximum(rest(x, False) - least, 0)), np.sqrt(np.maximum(over - rest(x, True), 0))
    middle = _fitted((u - v) / (u + v), 1.0, x, _MIDDLE_DEGREE)
    turn = _bisected(lambda x: rest(x, False), bends[0], 0.0)
    return Inverse(bends, turn, least, 1 + over, tails[0], middle, tails[1])


def _polynomial(fit: Fit, v: jax.Array) -> jax.Array:
    out = jnp.full_like(v, fit.coefficients[-1])
    for c in fit.coefficients[-2::-1]:
        out = out * v + c
    return out


def _gated(value: Callable[[jax.Array], jax.Array], gate: Callable[[Maths, Any], Gate]) -> Curve:
    def derivative(x: jax.Array) -> jax.Array:
        x = jnp.clip(x, -_FAR, _FAR)
        g = gate(_DEVICE, x)
        return g.open + x * g.first

    def polished(x: jax.Array, s: jax.Array, above: bool, fit: Fit) -> jax.Array:
        """One Newton step towards f' = s, or f' - 1 = s."""
        g = gate(_DEVICE, x)
        residual = (x * g.first - g.shut if above else g.open + x * g.first) - s
        bent = 2 * g.first + x * g.second
        step = residual / jnp.where(bent == 0, 1, bent)
        return x - jnp.clip(step, -fit.error, fit.error)

    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        inverse = _inverse(gate)
        if lower:
            u = jnp.sqrt(jnp.maximum(s - inverse.least, 0))
            v = jnp.sqrt(jnp.maximum(inverse.most - s, 0))
            return (polished(_polynomial(inverse.middle, (u - v) / (u + v)), s, False, inverse.middle),)
        found = []
        for fit, extreme, distance, above in (
            (inverse.left, -inverse.least, -s, False),
            (inverse.right, inverse.most - 1, s - 1, True),
        ):
            u = jnp.sqrt(jnp.maximum(jnp.log(extreme / jnp.maximum(distance, _TAIL)), 0))
            x = _polynomial(fit, 2 * jnp.minimum(u, fit.scale) / fit.scale - 1)
            found.append(polished(x, s - 1 if above else s, above, fit))
        return tuple(found)

    inverse = _inverse(gate)
    return Curve(value, critical, bends=inverse.bends, turns=(inverse.turn,), derivative=derivative, gated=True)


def gelu() -> Curve:
    return _gated(lambda x: jax.nn.gelu(x, approximate=False), _gelu)


def gelu_tanh() -> Curve:
    return _gated(lambda x: jax.nn.gelu(x, approximate=True), _gelu_tanh)


def silu() -> Curve:
    return _gated(jax.nn.silu, _silu)


def mish() -> Curve:
    return _gated(jax.nn.mish, _mish)


GATED = {"gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu, "mish": mish}
