"""How far the value that hardware computes may be from the function: what a sound bound has to leave room for.

One evaluation errs by at most `eps * (relative * |f(x)| + absolute * unit)`, with eps that of the dtype and unit 1, or |x| (at most
16) for functions `x * gate(x)`. The figures are the larger of two: what XLA's exhaustive float32 tests allow, and four times what we
measured. Allowed, on CPU and GPU alike: 20 eps relative unless a function has its own figure (sin and cos 2, tan 4, sqrt and rsqrt
2, cbrt 16, erfc 50); xla/tests/exhaustive/exhaustive_unary_test_functions.cc, whose versions of 2024 have figures for TPUs.
Measured: XLA:CPU of jaxlib 0.10.2 against float64 at 3e7 arguments each, log-uniform and uniform: exp 0.8, expm1 3.2, log 1.1,
log1p 1.8, rsqrt 1.4, cbrt 0.8, logistic 1.3, tanh 2.5, erf 2.9, sin, cos and pow 0.6, tan 0.8, asinh 2, atan 0.7, softplus 2.1,
silu 1.5, mish 3.4 eps; above the usual allowance exp2 35, sinh and cosh 13, erfc 34; gelu 1.1 and gelu_tanh 1.7 eps of |x| (their
small left tails have no relative accuracy at all).
A bound computed on one kind of device covers runs on that kind; between CPU and GPU it covers both.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# (relative, absolute) in eps, for CPU and GPU; whatever is not named is allowed 20 eps
_COMMON = (20.0, 0.0)
_ERRORS = {
    "exp2": (150.0, 0.0),
    "sqrt": (3.0, 0.0),
    "rsqrt": (6.0, 0.0),
    "reciprocal": (3.0, 0.0),
    "square": (3.0, 0.0),
    "at_least": (1.0, 0.0),
    "sin": (4.0, 0.0),
    "cos": (4.0, 0.0),
    "sinh": (52.0, 0.0),
    "cosh": (52.0, 0.0),
    "erfc": (140.0, 0.0),
    "gelu": (20.0, 5.0),
    "gelu_tanh": (20.0, 7.0),
    "hard_silu": (8.0, 4.0),  # exact but for three roundings, of which two are of a gate near 0 or 1
}
# 2e-4 is 1678 eps of float32 and 5e-4 is 4195: TPUs before v6 have fast and coarse logarithms and hyperbolic tangents
_TPU_ERRORS = {
    "exp": (75.0, 0.0),
    "expm1": (100.0, 84.0),
    "log": (20.0, 1678.0),
    "log1p": (20.0, 1678.0),
    "reciprocal": (136.0, 0.0),
    "logistic": (20.0, 200.0),
    "asinh": (20.0, 1678.0),
    "sinh": (100.0, 84.0),
    "cosh": (100.0, 0.0),
    "tanh": (20.0, 4195.0),
    "softplus": (100.0, 1700.0),
    "log_sigmoid": (100.0, 1700.0),
    "silu": (240.0, 240.0),
    "gelu": (120.0, 120.0),
    "gelu_tanh": (4300.0, 4300.0),
    "mish": (6000.0, 6000.0),
    "hard_silu": (140.0, 100.0),  # a division by 6
    "soft_sign": (140.0, 0.0),
}
# Arguments of exponentials in float64 are eight times those of float32, and so are the roundings of the argument.
_WIDER = 8.0


def errors(name: str, parameter: float | None, dtype: jax.typing.DTypeLike) -> tuple[jax.Array, jax.Array]:
    """(relative, absolute) error of computing the function twice, once for the bound and once in the model; scalars of the dtype."""
    if name == "integer_pow":
        # |n| - 1 products, each rounding once and handing its error on; a negative power divides at the end
        common = tpu = (2.0 * abs(parameter or 0) + 2.0, 0.0)
    elif name == "elu":
        common, (relative, absolute) = _COMMON, _TPU_ERRORS["expm1"]
        tpu = relative, absolute * max(1.0, parameter or 0)
    else:
        common = _ERRORS.get(name, _COMMON)
        tpu = _TPU_ERRORS.get(name, common)
    unit = 2 * float(jnp.finfo(dtype).eps) * (_WIDER if dtype == jnp.float64 else 1.0)

    def scaled(figures: tuple[float, float]) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(unit * figures[0], dtype), jnp.asarray(unit * figures[1], dtype)

    if tpu == common:
        return scaled(common)
    # chosen at lowering: the machine that traces is not always the one that runs
    return lax.platform_dependent(tpu=functools.partial(scaled, tpu), default=functools.partial(scaled, common))
