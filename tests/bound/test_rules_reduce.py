"""Maxima, products, orders, windows, comparisons and choices, and products of two bounded values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsec.bound._graph import UnsupportedPrimitive, trace

from . import oracle

RNG = np.random.default_rng(0)
X = (3, 3)
CENTRE = RNG.normal(size=X)
RADIUS = RNG.random(X) * 0.8
RADIUS[0] = 0.0  # a row of points
RADIUS[2, 1] = 3.0
W, M = RNG.normal(size=(3, 3)), RNG.random(X) < 0.5


def pool(x, window, strides, padding, dilation=(1, 1), init=-np.inf, op=lax.max):
    return lax.reduce_window(x, np.asarray(init, x.dtype), op, window, strides, padding, window_dilation=dilation)


RULES = {
    "max": lambda x: x.max(), "max_axis": lambda x: x.max(1), "min_axis": lambda x: x.min(0, keepdims=True),
    "max_no_axis": lambda x: jnp.max(x, ()), "prod": lambda x: jnp.prod(x, 0), "prod_all": lambda x: jnp.prod(x[1]),
    "max_pool": lambda x: pool(x, (2, 2), (1, 2), "VALID"), "padded_pool": lambda x: pool(x, (2, 3), (1, 1), "SAME"),
    "strided_padded": lambda x: pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "dilated_pool": lambda x: pool(x, (2, 2), (1, 1), "VALID", (1, 2)),
    "dilated_padded": lambda x: pool(x, (2, 2), (1, 1), ((1, 1), (2, 2)), (2, 2)),
    "min_pool": lambda x: pool(x, (2, 2), (1, 1), "SAME", init=np.inf, op=lax.min),
    "negative_padding": lambda x: pool(x, (2, 2), (1, 1), ((-1, 0), (0, 1))), "cumsum": lambda x: jnp.cumsum(x, 1),
    "cumprod": lambda x: jnp.cumprod(x, 1), "cummax": lambda x: lax.cummax(x, axis=1),
    "cummin_reverse": lambda x: lax.cummin(x, axis=0, reverse=True), "cumprod_reverse": lambda x: lax.cumprod(x, axis=1, reverse=True),
    "sort": lambda x: jnp.sort(x, 1), "sort_down": lambda x: jnp.sort(x, 0, descending=True), "median": lambda x: jnp.median(x, axis=1),
    "top_k": lambda x: lax.top_k(x, 2)[0], "argmax": lambda x: jnp.argmax(x, 1).astype(x.dtype),
    "argmin": lambda x: jnp.argmin(x, 0) * 1.0, "top_k_places": lambda x: lax.top_k(x, 2)[1].astype(x.dtype),
    "one_hot": lambda x: jax.nn.one_hot(jnp.argmax(x, 1), 3, dtype=x.dtype), "max_of_two": lambda x: jnp.maximum(x, x[::-1]),
    "min_of_two": lambda x: jnp.minimum(2 * x, 1 - x), "max_itself": lambda x: jnp.maximum(x, x), "greater": lambda x: (x > 0.3) * 1.0,
    "less_equal": lambda x: jnp.where(x <= x[::-1], 1.0, -1.0), "equal": lambda x: (x == CENTRE).astype(x.dtype),
    "not_equal": lambda x: (x != 0) * x.dtype.type(1), "itself": lambda x: (x >= x) * 1.0 + (x < x),
    "to_bool": lambda x: x.astype(bool) * 1.0, "and": lambda x: ((x > 0) & (x < 1)) * 1.0, "or_not": lambda x: ((x > 1) | ~(x > 0)) * 1.0,
    "xor": lambda x: ((x > 0) ^ (x > 1)) * 1.0, "and_known": lambda x: ((x > 0) & M) * 1.0, "any": lambda x: jnp.any(x > 1, 1) * 1.0,
    "all": lambda x: jnp.all(x > -1, 0) * 1.0, "max_bool": lambda x: jnp.max(x > 0, 1) * 1.0,
    "is_finite": lambda x: jnp.isfinite(x) * 1.0, "is_nan": lambda x: jnp.where(jnp.isnan(x), 7.0, x),
    "where": lambda x: jnp.where(x > x.mean(), x, -x), "where_three": lambda x: lax.select_n((x > 0).astype(np.int32), x, 2 * x, x),
    "where_scalar": lambda x: jnp.where(x[0, 0] > 0, x, 3.0), "where_of_points": lambda x: jnp.where(x > 0.1, jnp.floor(x), x),
    "mux": lambda x: jnp.select([x > 1, x > 0], [x, x * x], 0.5), "to_int_and_back": lambda x: x.astype(np.int32).astype(x.dtype),
    "small_int": lambda x: (300 * x).astype(np.int8).astype(x.dtype), "max_int": lambda x: jnp.max(x.astype(np.int32), 0).astype(x.dtype),
    "product": lambda x: x * x[::-1], "product_broadcast": lambda x: x * x[:1], "quotient": lambda x: x / (4.5 + x[::-1]),
    "square_by_self": lambda x: x * x, "matmul": lambda x: x @ x.T, "matmul_two": lambda x: (x @ W) @ x,
    "gram": lambda x: jnp.einsum("bi,bj->bij", x, x), "energy": lambda x: jnp.vdot(x[0], x[1]), "norm": jnp.linalg.norm,
    "norm_squared": lambda x: jnp.dot(x[1], x[1]), "batch_energy": lambda x: jnp.einsum("bi,bi->b", x, x),
    "polynomial": lambda x: 1 + x * (2 - x * (1 + x)),
    "conv_by_itself": lambda x: lax.conv_general_dilated(x[None, None], x[None, None, :2, :2], (1, 1), "SAME"),
    "power_of_two_values": lambda x: 2.0 ** (x * x[::-1]), "variance": lambda x: jnp.var(x, 1), "std": lambda x: jnp.std(x, 0),
    "fast_variance": lambda x: (x**2).mean(1) - x.mean(1) ** 2, "cosine": lambda x: x[0] @ x[1] / 5,
    "distance": lambda x: jnp.abs(x[:, None] - x[None]).sum(-1), "hypot": lambda x: jnp.hypot(x, 1.0),
    "bool_beside_known": lambda x: jnp.concatenate([x > 0, M]).astype(x.dtype),
    "bool_padded": lambda x: jnp.where(jnp.pad(x > 0, 1, constant_values=True), 1.0, -1.0),
    "bool_written": lambda x: ((x > 0).at[:, 0].set(True).at[0].set(M[0]) * 1.0) @ W, "bool_rolled": lambda x: jnp.roll(x > 0, 1, 1).astype(x.dtype) @ W,
    "max_minus_min": lambda x: jnp.ptp(x, 1), "glu": lambda x: jax.nn.glu(x[:, :2], 1),
}  # fmt: skip


# of independent elements, and monotone or products: their intervals are exact
EXACT = "max_axis min_axis prod padded_pool cummax cummin_reverse cumprod sort top_k strided_padded".split()


@pytest.mark.parametrize("half", [0, 1])
def test_contained(half):
    fns, box = dict(list(RULES.items())[half::2]), (CENTRE - RADIUS, CENTRE + RADIUS)
    found = dict(zip(fns, oracle.check(fns, box, run=oracle.compiled(fns)), strict=True))
    names = [name for name in fns if name in EXACT]
    share = np.stack(np.meshgrid(*[[0.0, 1.0]] * 9, indexing="ij"), -1).reshape(-1, *X)
    _, corners = oracle.values(oracle.joined({k: fns[k] for k in names}), [box[0] + share * (box[1] - box[0])])
    for name, y in zip(names, corners, strict=True):
        np.testing.assert_allclose(found[name].lo, y.min(0), atol=1e-9, err_msg=name)
        np.testing.assert_allclose(found[name].hi, y.max(0), atol=1e-9, err_msg=name)


def test_argmax_knows_who_can_win():
    lo, hi = np.array([0.0, 1.0, 2.0, -1.0, 0.0]), np.array([0.5, 2.5, 3.0, 0.0, 0.2])
    b, c = oracle.bounds(lambda x: (jnp.argmax(x) * 1.0, jnp.argmin(x) * 1.0), (lo, hi))
    assert (b.lo, b.hi) == (1.0, 2.0) and (c.lo, c.hi) == (0.0, 4.0)


def test_products_of_two_inputs():
    """Elementwise, matrix and convolution products over every combination of signs."""
    a = np.array([[-2.0, -1.0, 0.5], [-1.0, 1.0, 0.3], [1.0, 0.0, -3.0]])
    r = np.array([[0.5, 1.0, 1.5], [3.0, 0.0, 0.3], [0.0, 2.0, 3.0]])
    fns = {
        "times": lambda x, y: x * y, "over": lambda x, y: x / (4 + y), "matmul": lambda x, y: x @ y.T,
        "batched": lambda x, y: jnp.einsum("bi,bj->bij", x, y), "min": jnp.minimum, "max": jnp.maximum,
        "conv": lambda x, y: lax.conv_general_dilated(x[None, None], y[None, None, :2, :2], (1, 1), "SAME"),
        "three": lambda x, y: x * y * (x + y), "affine_of": lambda x, y: (x - 2 * y) * (x + y), "logaddexp": jnp.logaddexp,
        "where": lambda x, y: jnp.where(x > y, x, y * 2), "swap": lambda x, y: x @ W @ y,
    }  # fmt: skip
    found = oracle.check(fns, (a - r, a + r), (a[::-1] - r[:, ::-1], a[::-1] + r[:, ::-1]))
    lo = np.minimum.reduce([p * q for p in (a - r, a + r) for q in (a[::-1] - r[:, ::-1], a[::-1] + r[:, ::-1])])
    np.testing.assert_allclose(found[0].lo.reshape(X), lo, atol=1e-12)


def test_windows_wholly_in_padding_are_refused():
    with pytest.raises(UnsupportedPrimitive, match="in the padding altogether"):
        trace(lambda x: pool(x, (1, 2), (1, 1), ((1, 0), (0, 0))), jax.ShapeDtypeStruct(X, jnp.float32))
    with pytest.raises(UnsupportedPrimitive, match="base dilation"):
        trace(
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID", base_dilation=(2, 1)),
            jax.ShapeDtypeStruct(X, jnp.float32),
        )
    with pytest.raises(UnsupportedPrimitive, match="over no elements"):
        trace(lambda x: lax.reduce_max(x[:0], (0,)), jax.ShapeDtypeStruct(X, jnp.float32))


@pytest.mark.parametrize("fn", [lambda x: x**x, lambda x: x ** (x > 0).sum(), lambda x: (-2.0) ** x, lambda x: jnp.mod(x, x[::-1])])
def test_refused(fn):
    with pytest.raises(UnsupportedPrimitive):
        trace(fn, jax.ShapeDtypeStruct(X, jnp.float32))
