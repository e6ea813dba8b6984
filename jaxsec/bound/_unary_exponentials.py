"""exp and log and what is made of one of them: they bend one way, except sinh and asinh."""

import math

import jax
import jax.numpy as jnp

from ._unary_curve import Curve

_LN2 = math.log(2.0)


def _positive(s: jax.Array) -> jax.Array:
    return jnp.maximum(s, 0)


def exp() -> Curve:
    return Curve(jnp.exp, lambda s, *_: (jnp.log(_positive(s)),), convex=True, least=0.0)


def exp2() -> Curve:
    return Curve(jnp.exp2, lambda s, *_: (jnp.log(_positive(s) / _LN2) / _LN2,), convex=True, least=0.0)


def expm1() -> Curve:
    return Curve(jnp.expm1, lambda s, *_: (jnp.log(_positive(s)),), convex=True)


def _normal(lo: jax.Array, hi: jax.Array) -> jax.Array:
    # not `lo > 0`: hardware that flushes subnormal numbers computes log(0) for them
    return lo >= float(jnp.finfo(lo.dtype).tiny)


def log() -> Curve:
    return Curve(jnp.log, lambda s, *_: (1 / _positive(s),), convex=False, defined=_normal, anchor=1.0)


def log1p() -> Curve:
    def critical(s: jax.Array, *_) -> tuple[jax.Array, ...]:
        return ((1 - s) / _positive(s),)  # 1 / s - 1 without its cancellation

    return Curve(jnp.log1p, critical, convex=False, defined=lambda lo, hi: lo > -1)


def _logit(s: jax.Array) -> jax.Array:
    s = jnp.clip(s, 0, 1)
    return jnp.log(s / (1 - s))


def softplus() -> Curve:
    return Curve(jax.nn.softplus, lambda s, *_: (_logit(s),), convex=True, least=0.0)


def log_sigmoid() -> Curve:
    return Curve(jax.nn.log_sigmoid, lambda s, *_: (-_logit(s),), convex=False, most=0.0)


def cosh() -> Curve:
    return Curve(jnp.cosh, lambda s, *_: (jnp.arcsinh(s),), convex=True, turns=(0.0,), least=1.0)


def sinh() -> Curve:
    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        # arccosh(s) = arcsinh(sqrt(s^2 - 1)), in factors: no overflow, and exact near s = 1
        at = jnp.arcsinh(jnp.sqrt(_positive(s - 1)) * jnp.sqrt(_positive(s + 1)))
        return (at if lower else -at,)

    return Curve(jnp.sinh, critical, bends=(0.0,))


def asinh() -> Curve:
    def critical(s: jax.Array, lo: jax.Array, hi: jax.Array, lower: bool) -> tuple[jax.Array, ...]:
        s = _positive(s)
        at = jnp.sqrt(_positive(1 - s) * (1 + s)) / s
        return (-at if lower else at,)

    return Curve(jnp.arcsinh, critical, bends=(0.0,))


EXPONENTIALS = {
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "softplus": softplus,
    "log_sigmoid": log_sigmoid,
    "cosh": cosh,
    "sinh": sinh,
    "asinh": asinh,
}
