"""Operations of one element: over intervals on every side of their kinks, bends and poles, alone and between affine maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxsec
from jaxsec.bound import ForwardLinear, bound

from . import oracle

# below, across and above 0, narrow and wide, of one point, and across the bends of most curves
LO = np.array([-6.0, -2.5, -1.0, -0.3, 0.0, 0.2, 1.0, 0.7, -4.0, -0.5, -3.0, 0.5])
HI = np.array([-4.0, -0.5, 1.0, 0.4, 0.0, 0.9, 5.0, 0.7, 3.0, 2.5, -1.0, 0.5001])
ANYWHERE = {
    "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1, "tanh": jnp.tanh, "logistic": jax.nn.sigmoid, "erf": lax.erf, "erfc": lax.erfc,
    "sin": jnp.sin, "cos": jnp.cos, "sinh": jnp.sinh, "cosh": jnp.cosh, "arcsinh": jnp.arcsinh, "arctan": jnp.arctan, "cbrt": jnp.cbrt,
    "square": jnp.square, "cube": lambda x: x**3, "fourth": lambda x: x**4, "zeroth": lambda x: lax.pow(x, jnp.zeros_like(x)),
    "abs": jnp.abs, "neg": jnp.negative, "sign": jnp.sign, "floor": jnp.floor, "ceil": jnp.ceil, "round": jnp.round, "trunc": jnp.trunc,
    "mod": lambda x: jnp.mod(x, 0.7), "fmod": lambda x: jnp.fmod(x, 1.5), "floor_divide": lambda x: x // 0.8,
    "affine": lambda x: 3.0 - x / 4.0, "clip": lambda x: jnp.clip(x, -0.7, 1.3), "clamp": lambda x: lax.clamp(-0.5, x, 2.0),
    "max": lambda x: jnp.maximum(x, 0.25), "min": lambda x: jnp.minimum(0.25, x), "min0": lambda x: jnp.minimum(x, 0.0),
    "two_to_the": lambda x: 2.0**x, "self_product": lambda x: x * x, "nan_to_num": jnp.nan_to_num,
    "heaviside": lambda x: jnp.heaviside(x, 0.5), "isfinite": lambda x: jnp.where(jnp.isfinite(x), x, 0.0),
    "copysign_by_where": lambda x: jnp.where(x > 0, 1.0, -1.0) * x, "powers": lambda x: x ** np.arange(12.0) / 100,
    "twice": lambda x: jnp.exp(-x) + jnp.exp(-x) * x,
}  # fmt: skip
ACTIVATIONS = {
    "relu": jax.nn.relu, "relu6": jax.nn.relu6, "leaky_relu": jax.nn.leaky_relu, "elu": jax.nn.elu,
    "elu_1.7": lambda x: jax.nn.elu(x, 1.7), "elu_0.3": lambda x: jax.nn.elu(x, 0.3), "celu": jax.nn.celu,
    "celu_2": lambda x: jax.nn.celu(x, 2.0), "selu": jax.nn.selu, "hard_tanh": jax.nn.hard_tanh, "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu, "softplus": jax.nn.softplus, "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False), "silu": jax.nn.silu, "log_sigmoid": jax.nn.log_sigmoid, "mish": jax.nn.mish,
    "soft_sign": jax.nn.soft_sign, "squareplus": jax.nn.squareplus, "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid, "logaddexp": lambda x: jnp.logaddexp(0.5, x),
    "prelu": lambda x: jnp.where(x >= 0, x, 0.2 * x), "thresholded": lambda x: jnp.where(x > 1.0, x, 0.0),
    "user_elu": lambda x: jnp.where(x > 0, x, 0.6 * (jnp.exp(x) - 1)), "user_sigmoid": lambda x: 1 / (1 + jnp.exp(-x)),
    "user_softplus": lambda x: jnp.log(1 + jnp.exp(x)), "log1p_exp": lambda x: jnp.log1p(jnp.exp(x)),
    "onnx_hard_swish": lambda x: x * jnp.clip(x / 6 + 0.5, 0.0, 1.0), "onnx_swish": lambda x: x * jax.nn.sigmoid(1.3 * x),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x), "torch_gelu": lambda x: x * 0.5 * (1.0 + lax.erf(x / np.sqrt(2.0))),
    "other_gelu": lambda x: (0.5 * (lax.erf(x * 0.7071067811865476) + 1)) * x, "tanh_silu": lambda x: x * (0.5 + 0.5 * jnp.tanh(x / 2)),
    "user_mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "tanh_gelu_by_products": lambda x: 0.5 * x * (1 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))),
    "unequal_erf": lambda x: x * (0.3 + 0.5 * lax.erf(x)), "unequal_tanh": lambda x: x * (1 + 0.5 * jnp.tanh(x)),
    "raised_gate": lambda x: x * (jax.nn.sigmoid(x) + 0.25), "falling_erf": lambda x: x * (1 - lax.erf(x)) * 2,
    "other_cubic": lambda x: 0.5 * x * (1 + jnp.tanh(0.8 * (x + 0.1 * x**3))),
    "other_clip": lambda x: x * jnp.clip(x / 6 + 0.4, 0.0, 1.0), "shifted_gate": lambda x: (x + 1) * jax.nn.sigmoid(x),
    "almost_elu": lambda x: jnp.where(x > 0, x, 0.6 * jnp.exp(x) - 0.5), "kinked_at_1": lambda x: jnp.where(x < 1.0, 2.0 * x, x + 1.0),
    "hard_shrink": lambda x: jnp.where(jnp.abs(x) > 0.5, x, 0.0),
    "soft_shrink": lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.5, 0.0),
    "nested": lambda x: jnp.where(x > 1, 1, jnp.where(x < -1, -1, x)),
}  # fmt: skip
# of more than one curve, or with a jump; and what looks like a known function and is none
NOT_ONE = "hard_shrink soft_shrink squareplus sparse_plus thresholded unequal_erf unequal_tanh raised_gate other_cubic other_clip shifted_gate almost_elu".split()
POSITIVE = {
    "log": jnp.log, "log1p": jnp.log1p, "sqrt": jnp.sqrt, "rsqrt": lax.rsqrt, "reciprocal": lambda x: 1 / x,
    "power_1.5": lambda x: x**1.5, "power_-0.7": lambda x: x**-0.7, "power_-3": lambda x: x**-3,
    "by_sqrt": lambda x: 2.0 / jnp.sqrt(x + 1), "self_root": lambda x: x**0.5,
}  # fmt: skip
WITHIN_ONE = {"arcsin": jnp.arcsin, "arccos": jnp.arccos, "arctanh": jnp.arctanh, "erf_inv": lax.erf_inv}
ALONE = {**ANYWHERE, **ACTIVATIONS}

A = np.random.default_rng(0).normal(size=(3, 12))
B = np.random.default_rng(1).normal(size=(12, 2))


def test_alone_on_every_kind_of_interval():
    oracle.check(ALONE, (LO, HI))


@pytest.mark.parametrize("width", [0.05, 1.0])
def test_between_affine_maps(width):
    fns = {name: lambda x, fn=fn: fn(x @ A + LO / 2) @ B for name, fn in ALONE.items()}
    c = np.array([0.3, -0.2, 0.5])
    oracle.check(fns, (c - width, c + width), ascent=width < 1)


def test_on_positive_numbers():
    lo = np.array([1e-3, 0.1, 0.5, 0.7, 1.0, 2.0, 0.0])
    hi = np.array([1e-2, 3.0, 0.5, 0.9, 1.5, 50.0, 1.0])
    found = oracle.check(POSITIVE, (lo, hi))
    for name, b in zip(POSITIVE, found, strict=True):
        assert np.isfinite(b.crown[0][:6]).all() and np.isfinite(b.crown[1][:6]).all(), name


def test_on_their_domain_and_beyond():
    lo, hi = np.array([-1.0, -0.5, 0.2, 0.9, -2.0]), np.array([1.0, 0.5, 0.2, 1.1, -1.5])
    for name, b in zip(WITHIN_ONE, oracle.check(WITHIN_ONE, (lo, hi)), strict=True):
        assert (b.hi[3:] == np.inf).all() and (b.lo[3:] == -np.inf).all(), name
    (b,) = oracle.check(jnp.arccosh, (np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.5, 0.7])))
    assert np.isfinite(b.lo[:2]).all() and np.isinf(b.hi[2])


def test_poles_and_what_is_undefined_have_no_finite_bound():
    """Across a pole, or outside of the domain, nothing is certified: infinities, never nan and never a number."""
    fns = {
        "reciprocal": lambda x: 1 / x, "power_-2": lambda x: x**-2, "log": jnp.log, "rsqrt": lax.rsqrt, "sqrt": jnp.sqrt,
        "power_0.5": lambda x: x**0.5, "tan": jnp.tan, "log1p": jnp.log1p,
    }  # fmt: skip
    lo, hi = np.array([-2.0, -3.0]), np.array([2.0, -1.5])
    whole = {"reciprocal": 1, "power_-2": 1}
    for name, b in zip(fns, oracle.bounds(fns, (lo, hi)), strict=True):
        bad = slice(0, whole.get(name, 2))
        for v in (b.lo, b.hi, *b.crown):
            assert not np.isnan(v).any(), name
        assert (b.hi[bad] == np.inf).all() and (b.crown[1][bad] == np.inf).all(), name
        if name != "power_-2":
            assert (b.lo[bad] == -np.inf).all() and (b.crown[0][bad] == -np.inf).all(), name

    def used(x):  # and what is made of it stays sound
        y = 1 / x
        return y @ B[:2], jnp.tanh(y), jnp.exp(y), jax.nn.relu(y), y * y, y - y[::-1], y * 0.0 + x, jnp.max(y), jnp.where(y > 3, x, 0.0)

    oracle.check(used, (lo, hi))


def test_division_by_a_known_zero_and_infinite_constants():
    x = (np.array([-1.0, 0.5, 0.0]), np.array([1.0, 2.0, 0.0]))
    (b,) = oracle.bounds(lambda v: v / np.zeros(3), x)
    assert not np.isnan(b.lo).any() and not np.isnan(b.crown[0]).any() and b.hi[0] == np.inf
    ends = np.array([-np.inf, 0.25, np.inf])
    oracle.check(lambda v: (jnp.maximum(v, ends), jnp.minimum(v, ends), jnp.clip(v, -np.inf, np.inf), jnp.clip(v, -1e38, 1e38)), x)


def test_known_functions_are_one_curve():
    """Their bounds are those of the curve: on an interval on which its terms pull apart, the range is the function's own."""
    lo, hi = np.array([-1.5]), np.array([1.0])
    for name, b in zip(ACTIVATIONS, oracle.bounds(ACTIVATIONS, (lo, hi)), strict=True):
        if name in NOT_ONE:
            continue
        y = oracle.values(ACTIVATIONS[name], [np.linspace(lo, hi, 4001)])[1][0]
        assert b.lo[0] >= y.min() - 1e-6 and b.hi[0] <= y.max() + 1e-6, f"{name}: [{b.lo}, {b.hi}] against [{y.min()}, {y.max()}]"


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("method", [jaxsec.IBP(), jaxsec.CROWN(), ForwardLinear()], ids=lambda m: m.name)
def test_a_step_that_is_cast_from_a_comparison(method, sound) -> None:
    box = jnp.asarray([-1.0, 0.2]), jnp.asarray([1.0, 0.3])
    found = bound(lambda x: x + (x > 0.1).astype(x.dtype), box, method=method, sound=sound)
    np.testing.assert_allclose(found.lo, [-1, 1.2], atol=1e-4)
    np.testing.assert_allclose(found.hi, [2, 1.3], atol=1e-4)
    if sound:
        assert (found.lo <= jnp.asarray([-1, 1.2])).all() and (found.hi >= jnp.asarray([2, 1.3])).all()
