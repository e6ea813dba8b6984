"""S-shaped functions: one bend at 0, slopes that fall from there to 0, so each slope has one critical point on either side."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ._unary_curve import Curve


def _sigmoid(
    value: Callable[[jax.Array], jax.Array], inverse: Callable[[jax.Array], jax.Array], least: float, most: float, rising: bool = True
) -> Curve:
    """`inverse`: |slope| -> the positive argument that has it. Convex below 0 if rising, above 0 if falling."""

    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        at = inverse(jnp.maximum(s if rising else -s, 0))
        return (-at if lower == rising else at,)

    return Curve(value, critical, bends=(0.0,), rising=rising, least=least, most=most)


def _below(s: jax.Array, top: float) -> jax.Array:
    """`top - s`, 0 where s is above the steepest slope."""
    return jnp.maximum(top - s, 0)


def tanh() -> Curve:
    # f' = 1 / cosh(x)^2, so sinh(x)^2 = (1 - s) / s; 1 - s is exact where it cancels
    return _sigmoid(jnp.tanh, lambda s: jnp.arcsinh(jnp.sqrt(_below(s, 1) / s)), -1.0, 1.0)


def logistic() -> Curve:
    # (1 + tanh(x / 2)) / 2
    return _sigmoid(lax.logistic, lambda s: 2 * jnp.arcsinh(jnp.sqrt(_below(4 * s, 1) / (4 * s))), 0.0, 1.0)


def atan() -> Curve:
    return _sigmoid(jnp.arctan, lambda s: jnp.sqrt(_below(s, 1) / s), -math.inf, math.inf)


def _gaussian(s: jax.Array) -> jax.Array:
    """The x >= 0 at which 2 / sqrt(pi) exp(-x^2) is s."""
    return jnp.sqrt(jnp.maximum(-jnp.log(s * (math.sqrt(math.pi) / 2)), 0))


def erf() -> Curve:
    return _sigmoid(lax.erf, _gaussian, -math.inf, math.inf)


def erfc() -> Curve:
    return _sigmoid(lax.erfc, _gaussian, 0.0, math.inf, rising=False)


SIGMOIDS = {"tanh": tanh, "logistic": logistic, "atan": atan, "erf": erf, "erfc": erfc}
