"""Affine operations are exact: their bounds are the arithmetic of absolute values, |W|, to the last digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxsec
from jaxsec.bound import bound
from jaxsec.bound._graph import UnsupportedPrimitive, trace

from . import oracle

RNG = np.random.default_rng(0)
X = (3, 4)  # one input of this shape throughout, so that little is compiled
CENTRE, RADIUS = RNG.normal(size=X), RNG.random(X) * 0.5
RADIUS[0, 0] = 0.0
W, V, K = RNG.normal(size=(4, 5)), RNG.normal(size=(6, 3)), RNG.normal(size=X)
FILTER = RNG.normal(size=(3, 3, 1, 2))
MASK = RNG.random(X) < 0.5


def image(x):
    return x.reshape(1, 3, 4, 1)


def conv(x, w, strides=(1, 1), padding="SAME", **how):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **how)


def grouped(x):
    two = jnp.concatenate([image(x), image(2 * x)], -1)
    return conv(two, RNG_GROUPS, feature_group_count=2)


RNG_GROUPS = np.random.default_rng(3).normal(size=(2, 2, 1, 4))
AFFINE = {
    "add": lambda x: x + K, "sub": lambda x: K - x, "neg": lambda x: -x, "mul": lambda x: x * K, "div": lambda x: x / (K + 5),
    "dot": lambda x: x @ W, "dot_left": lambda x: V @ x, "einsum": lambda x: jnp.einsum("ij,kj->ik", x, K),
    "batched_dot": lambda x: jnp.einsum("bi,bij->bj", x, RNG_BATCH), "outer": lambda x: jnp.tensordot(x, W, 0),
    "conv": lambda x: conv(image(x), FILTER), "conv_valid": lambda x: conv(image(x), FILTER, padding="VALID"),
    "conv_strided": lambda x: conv(image(x), FILTER, (2, 2)), "conv_dilated": lambda x: conv(image(x), FILTER, rhs_dilation=(1, 2)),
    "conv_transposed": lambda x: conv(image(x), FILTER, padding=[(2, 2), (1, 2)], lhs_dilation=(2, 2)), "conv_grouped": grouped,
    "conv_weights": lambda x: conv(RNG_IMAGE, x[:, :2].reshape(3, 1, 1, 2)),
    "conv_1d": lambda x: lax.conv_general_dilated( x.reshape(1, 3, 4), FILTER[:, :, 0].transpose(2, 1, 0)[:, :, :2], (1,), [(1, 0)]),
    "transpose_conv": lambda x: lax.conv_transpose(image(x), FILTER, (2, 2), "SAME"), "reshape": lambda x: x.reshape(2, 6),
    "transpose": lambda x: x.T, "squeeze": lambda x: x[None].squeeze(0), "expand": lambda x: x[..., None],
    "broadcast": lambda x: jnp.broadcast_to(x[:, None], (3, 2, 4)), "rev": lambda x: x[::-1, ::-2], "slice": lambda x: x[1:, 1:4:2],
    "sum": lambda x: x.sum(), "sum_axis": lambda x: x.sum(0), "mean": lambda x: x.mean(1, keepdims=True),
    "cumsum": lambda x: jnp.cumsum(x, 1), "reverse_cumsum": lambda x: lax.cumsum(x, axis=0, reverse=True), "trace": jnp.trace,
    "diff": lambda x: jnp.diff(x, axis=1), "avg_pool": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 2), "VALID") / 4,
    "padded_pool": lambda x: lax.reduce_window(x, 0.0, lax.add, (3, 2), (1, 1), "SAME"),
    "concatenate": lambda x: jnp.concatenate([x, K, 2 * x]), "stack": lambda x: jnp.stack([x, K]),
    "pad": lambda x: jnp.pad(x, 1, constant_values=3.0), "pad_negative": lambda x: lax.pad(x, 1.5, [(-1, 2, 0), (1, 1, 2)]),
    "pad_edge": lambda x: jnp.pad(x, 1, mode="edge"), "pad_with_itself": lambda x: lax.pad(K, x[0, 0], [(1, 0, 0), (0, 0, 0)]),
    "tile": lambda x: jnp.tile(x, (2, 1)), "roll": lambda x: jnp.roll(x, 1, 1), "repeat": lambda x: jnp.repeat(x, 2, 0),
    "split": lambda x: jnp.split(x, 2, 1)[1], "triu": jnp.triu, "flip": jnp.flipud,
    "gather": lambda x: x[np.array([2, 0]), np.array([1, 3])], "take": lambda x: jnp.take(x, np.array([3, -1, 0]), axis=1),
    "take_fill": lambda x: jnp.take(x, np.array([0, 7]), axis=1, mode="fill", fill_value=2.5),
    "gather_beyond": lambda x: x[:, np.array([0, 1, 9])], "gather_promised": lambda x: x.at[np.array([9, 1])].get(mode="promise_in_bounds"),
    "take_clip": lambda x: x.at[5].get(mode="clip"),
    "take_along": lambda x: jnp.take_along_axis(x, np.array([[1, 0], [2, 2], [3, 0]]), 1),
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (1, 2), (2, 2)),
    "dynamic_update": lambda x: lax.dynamic_update_slice(x, K[:2, :2], (0, 1)),
    "update_of_known": lambda x: lax.dynamic_update_slice(K, x[:1], (1, 0)),
    "update_both": lambda x: lax.dynamic_update_slice(x, x[:1] * 3, (1, 0)), "set": lambda x: x.at[1].set(K[0]),
    "set_known": lambda x: jnp.asarray(K).at[:, 1].set(x[:, 0]), "scatter_add": lambda x: x.at[np.array([0, 0, 2])].add(x),
    "set_clipped": lambda x: x.at[np.array([1, 9])].set(3 * x[:2], mode="clip"),
    "set_dropped": lambda x: x.at[np.array([9, 9])].set(3 * x[:2], mode="drop"),
    "set_promised": lambda x: jnp.asarray(K).at[np.array([1, 9])].set(x[:2], mode="promise_in_bounds"),
    "add_clipped": lambda x: jnp.asarray(K).at[np.array([7, 9])].add(x[:2], mode="clip"),
    "add_promised": lambda x: jnp.asarray(K).at[np.array([7, 1])].add(x[:2], mode="promise_in_bounds"),
    "scatter_add_known": lambda x: x.at[0].add(K[0]), "scatter_distinct": lambda x: x.at[np.array([2, 0])].set(x[:2]),
    "subtract_at": lambda x: x.at[1].add(-2 * x[0]), "where_known": lambda x: jnp.where(MASK, x, K),
    "where_one_case": lambda x: jnp.where(np.ones(X, bool), x, K), "where_both": lambda x: jnp.where(MASK, x, -x),
    "select_n": lambda x: lax.select_n(np.arange(12).reshape(X) % 3, x, K, 2 * x), "twice": lambda x: x + x, "nothing": lambda x: x - x,
    "stop_gradient": lambda x: lax.stop_gradient(x), "copy": lambda x: jnp.array(x, copy=True),
    "convert": lambda x: x.astype(jnp.float64), "to_scalar": lambda x: x[1, 2], "from_scalar": lambda x: x[0, 1] * K + 1,
    "size_0": lambda x: x[:0] * 2, "sum_size_0": lambda x: x[:0].sum(0) + 1, "size_1": lambda x: x[:1, :1] @ W[:1],
    "vmapped": lambda x: jax.vmap(lambda r: r @ W + r.sum())(x), "constant": lambda x: K @ W,
    "barrier": lambda x: lax.optimization_barrier((x, K))[0], "chain": lambda x: ((x @ W).T - 1) * 2,
    "moveaxis": lambda x: jnp.moveaxis(x[None], 0, 2),
    "batch_norm": lambda x: (x - K.mean(0)) * lax.rsqrt(K.var(0) + 1e-5) * W[:, 0] + W[:, 1], "integer_zero": lambda x: x + 0,
}  # fmt: skip
RNG_BATCH = np.random.default_rng(4).normal(size=(3, 4, 2))
RNG_IMAGE = np.random.default_rng(5).normal(size=(1, 4, 4, 1))


def exact(fns):
    """Centre and radius of every output, by the Jacobian: what one step along each coordinate adds."""
    steps = np.concatenate([np.zeros((1, 12)), np.eye(12)]).reshape(13, *X)
    for y in oracle.values(oracle.joined(fns), [CENTRE + steps])[1]:
        yield y[0], np.abs(y[1:] - y[0]).T @ RADIUS.ravel()


def test_bounds_are_exact():
    found = oracle.bounds(AFFINE, (CENTRE - RADIUS, CENTRE + RADIUS), run=oracle.compiled(AFFINE))
    for name, b, (middle, spread) in zip(AFFINE, found, exact(AFFINE), strict=True):
        several = name in ("chain", "conv_grouped", "subtract_at", "update_both", "vmapped")  # of more than one step: intervals forget
        for label, lo, hi in (("interval", b.lo, b.hi), ("crown", *b.crown)):
            if several and label == "interval":
                assert (lo <= middle - spread + 1e-9).all() and (hi >= middle + spread - 1e-9).all(), name
            else:
                np.testing.assert_allclose(lo, middle - spread, rtol=1e-9, atol=1e-9, err_msg=f"{name} {label}")
                np.testing.assert_allclose(hi, middle + spread, rtol=1e-9, atol=1e-9, err_msg=f"{name} {label}")


def test_in_float32_to_1e_5():
    fns = {k: AFFINE[k] for k in ("dot", "conv", "avg_pool", "scatter_add", "vmapped")}
    x = jax.ShapeDtypeStruct(X, jnp.float32)
    from jaxsec.bound._forward_pass import intervals

    for (name, fn), (middle, spread) in zip(fns.items(), exact(fns), strict=True):
        graph = trace(lambda v, fn=fn: fn(v).astype(jnp.float32), x)
        box = [(jnp.asarray(CENTRE - RADIUS, jnp.float32), jnp.asarray(CENTRE + RADIUS, jnp.float32))]
        lo, hi = intervals(graph, box)[graph.outputs[0].index]
        assert lo.dtype == jnp.float32
        if name != "vmapped":
            np.testing.assert_allclose(np.ravel(lo), middle - spread, rtol=1e-5, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(np.ravel(hi), middle + spread, rtol=1e-5, atol=1e-5, err_msg=name)


def test_two_inputs():
    (b,) = oracle.bounds(lambda x, y: x @ y * 0 + x[:, :2] - 3 * y[:3], (CENTRE, CENTRE + RADIUS), (W[:, :2], W[:, :2] + 1))
    np.testing.assert_allclose(b.crown[0].reshape(3, 2), CENTRE[:, :2] - 3 * (W[:3, :2] + 1), atol=1e-9)


def test_nodes_stay_few():
    """Layout is one node, and what is recognised leaves no chains behind."""
    x = jax.ShapeDtypeStruct(X, jnp.float32)
    for fn, most in ((lambda v: v.T, 2), (lambda v: jnp.concatenate([v, v]), 2), (lambda v: v + 0.0, 1), (lambda v: v * 1.0, 1)):
        assert len(trace(fn, x).nodes) <= most


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x.at[jnp.argmax(x[0], keepdims=True)].get(mode="clip", wrap_negative_indices=False), "indices that depend on the input"),
        (lambda x: x[jnp.argmax(x[0])], "an index"),
        (lambda x: x.at[np.array([1, 1])].set(x[:2]), "may repeat"),
        (lambda x: x.at[np.array([8, 9])].set(x[:2], mode="clip"), "may repeat"),  # both at the last
        (lambda x: x.at[np.array([8, 9])].set(x[:2], mode="clip", unique_indices=True), "may repeat"),
        (lambda x: x.at[0].apply(lambda v: v * v), "at.*apply"),
        (lambda x: x.astype(jnp.bfloat16), "rounds"),
        (lambda x: x.astype(jnp.float16) @ np.ones((4, 2), np.float16), "rounds"),
        (lambda x: jnp.argmax(x, 1) + 1, "Integers wrap around"),
        (lambda x: (x > 0).astype(jnp.int32).sum(), "Integers wrap around"),
        (lambda x: lax.reduce_precision(x, 8, 7), "rounds"),
        (lambda x: jnp.argmax(x, 1) & 1, "bits"),
        (lambda x: jnp.argsort(x, axis=1), "sort of several arrays"),
        (lambda x: jnp.argmax(x, 1) // 2, "integer"),
    ],
)
def test_refused(fn, message):
    with pytest.raises(UnsupportedPrimitive, match=message):
        trace(fn, jax.ShapeDtypeStruct(X, jnp.float32))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_inputs_of_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="only float32 and float64"):
        trace(lambda x: x, jax.ShapeDtypeStruct(X, dtype))


@pytest.mark.parametrize("method", [jaxsec.IBP(), jaxsec.CROWN()], ids=lambda m: m.name)
def test_a_sum_that_overflows_on_its_way_says_nothing(method) -> None:
    """3e38 + 3e38 - 3e38 is 3e38 in exact arithmetic and in one order of summation, infinite in another."""
    w = jnp.asarray([[3e38], [3e38], [-3e38]], jnp.float32)
    found = bound(lambda x: x @ w, (jnp.ones((1, 3)), jnp.ones((1, 3))), method=method)
    assert float(found.lo[0, 0]) <= 3e38 <= float(found.hi[0, 0])
