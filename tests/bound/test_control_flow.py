"""Calls, loops and branches: entered, unrolled and chosen, eagerly and inside a trace where the weights are tracers; and source lines."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsec.bound import _rules_calls
from jaxsec.bound._forward_pass import intervals
from jaxsec.bound._graph import Ref, UnsupportedPrimitive, source_line, trace

from . import oracle

RNG = np.random.default_rng(0)
N = 4
W, B = RNG.normal(size=(N, N)) / 2, RNG.normal(size=N)
BOX = RNG.normal(size=N) - 0.3, None
BOX = (BOX[0], BOX[0] + 0.6)


def layer(w, x):
    return jnp.tanh(w @ x)


@jax.custom_jvp
def smooth(x):
    return jnp.sin(x)


smooth.defjvp(lambda p, t: (smooth(*p), t[0]))


@jax.custom_vjp
def rough(x):
    return jnp.abs(x)


rough.defvjp(lambda x: (rough(x), None), lambda _, g: (g,))

FLOW = {
    "jit": lambda x: jax.jit(layer)(W, x), "nested_jit": lambda x: jax.jit(lambda v: jax.jit(jnp.exp)(v) + 1)(x),
    "remat": lambda x: jax.checkpoint(layer)(W, x), "custom_jvp": smooth, "custom_vjp": rough,
    "vmap": lambda x: jax.vmap(lambda r: layer(W[:2, :2], r))(x.reshape(2, 2)), "partial": lambda x: functools.partial(layer, W)(x),
    "named": lambda x: jax.named_call(jnp.cos)(x), "cond_known": lambda x: lax.cond(True, jnp.sin, jnp.cos, x),
    "cond_of_number": lambda x: lax.cond(jnp.sum(W) > 0, lambda v: v + 1, lambda v: v - 1, x),
    "switch": lambda x: lax.switch(2, [jnp.sin, jnp.cos, jnp.tanh], x),
    "cond_on_input": lambda x: lax.cond(x[0] > BOX[0][0] + 0.2, lambda v: v * 2, lambda v: -v, x),
    "switch_on_input": lambda x: lax.switch(jnp.argmax(x[:3]), [jnp.sin, jnp.cos, lambda v: v * 3], x),
    "cond_decided_by_input": lambda x: lax.cond(x[0] > 100, lambda v: v * 2, lambda v: -v, x),
    "cond_two_outputs": lambda x: sum(lax.cond(x[0] > x[1], lambda v: (v, 2.0 * B), lambda v: (B + 0.0, v), x)),
    "scan": lambda x: lax.scan(lambda c, w: (jnp.tanh(c * w), c + w), x, jnp.stack([B, 2 * B]))[0],
    "scan_outputs": lambda x: lax.scan(lambda c, w: (c * 0.5, c + w), x, jnp.stack([B, 2 * B]))[1],
    "scan_over_input": lambda x: lax.scan(lambda c, r: (c + r * r, c), 0.0 * B[0], x)[1],
    "scan_reverse": lambda x: lax.scan(lambda c, r: (c * r, c + r), 1.0 + 0 * B[0], x, reverse=True)[1],
    "scan_known_outputs": lambda x: lax.scan(lambda c, w: (c + w, 2 * w), x, jnp.stack([B, 2 * B]))[1] + x,
    "scan_no_steps": lambda x: lax.scan(lambda c, w: (c, c), x, jnp.zeros((0, N)))[0],
    "scan_no_rows": lambda x: x + lax.scan(lambda c, w: (c, c), x, jnp.zeros((0, N)))[1].sum(0),
    "map": lambda x: lax.map(lambda r: jnp.sin(r) * r, x),
    "scan_mixed_rows": lambda x: lax.scan(lambda c, i: (c, jnp.where(i == 1, c[0], 2.0)), x, jnp.arange(3))[1],
    "associative_scan": lambda x: lax.associative_scan(jnp.multiply, x),
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, v: jnp.sin(v) + i, x),
    "fori_index": lambda x: lax.fori_loop(0, 3, lambda i, v: v + jnp.asarray(W)[i] * v[i], x),
    "while": lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 0.5 + 1), (0, x))[1],
    "fori_dynamic_update": lambda x: lax.fori_loop(0, N, lambda i, v: v.at[i].set(v[i] * v[(i + 1) % N]), x),
    "no_input": lambda x: x + lax.fori_loop(0, 3, lambda i, v: v * 2, B), "unused": lambda x: (jnp.linalg.qr(x.reshape(2, 2)), x * 2)[1],
    "newton": lambda x: lax.fori_loop(0, 2, lambda i, v: v - (v * v - x - 9) / (2 * v), x * 0 + 3),
}  # fmt: skip


def test_eagerly():
    oracle.check(FLOW, BOX)


def test_inside_a_trace_with_traced_weights():
    """Loop counters stay numbers; the same ranges come out."""
    fns = {
        "fori": lambda w, x: lax.fori_loop(0, 3, lambda i, v: jnp.tanh(w @ v) + w[i], x),
        "while": lambda w, x: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] @ w), (0, x))[1],
        "scan": lambda w, x: lax.scan(lambda v, row: (jnp.tanh(w @ v) * row, None), x, w)[0],
        "scan_of_numbers": lambda w, x: lax.scan(lambda v, i: (w[i] + v, v[i]), x, jnp.arange(N))[1],
        "nested": lambda w, x: lax.fori_loop(0, 2, lambda i, v: lax.fori_loop(0, i + 1, lambda j, u: u @ w + j, v), x),
        "loop_in_jit": lambda w, x: jax.jit(lambda w, n, x: lax.fori_loop(0, n, lambda i, v: v @ w, x))(w, 2, x),
        "count_through_jit": lambda w, x: lax.fori_loop(0, jax.jit(lambda w, n: (w + 1, n + 1))(w, 2)[1], lambda i, v: v @ w, x),
        "cond_on_weights": lambda w, x: lax.cond(w[0, 0] > 0, lambda v: v @ w, lambda v: 3 - v, x),
        "cond_on_weights_one_known": lambda w, x: x + lax.cond(w[0, 0] < 0, lambda v: v @ w, lambda v: w[0], x),
        "constants": lambda w, x: jnp.clip(jnp.minimum(w @ x, 0.0), -1.0, np.float32(0.5)) + jnp.where(np.array([1, 0, 1, 0]) > 0, x, w[0]),
        "elu": lambda w, x: jax.nn.elu(x, w[0, 0] ** 2) + jax.nn.gelu(w @ x) + jnp.where(x > 0, x, w[1] * x),
        "masked_softmax": lambda w, x: jax.nn.softmax(jnp.where(jnp.array([True, True, False, True]), w @ x, -jnp.inf)),
        "gather": lambda w, x: x[jnp.array([3, 0])] * w[:2, 0],
        "traced_mask": lambda w, x: jnp.where(w[0] > 0, x, 0.0),
        "traced_index": lambda w, x: x[jnp.argmax(w[0])] + lax.dynamic_slice(x, (jnp.argmax(w[1]),), (1,)),
    }

    def run(w, box):
        found = []
        for fn in fns.values():
            graph = trace(lambda x, fn=fn: fn(w, x), jax.ShapeDtypeStruct((N,), jnp.float32))
            found.append(intervals(graph, [box])[graph.outputs[0].index])
        return found

    box, w = tuple(jnp.asarray(v, jnp.float32) for v in BOX), jnp.asarray(W, jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        traced = jax.jit(run, compiler_options=oracle.QUICK)(w, box)
        closed = jax.jit(lambda box: run(w, box), compiler_options=oracle.QUICK)(box)  # the same with the weights known
        xs = jnp.asarray(oracle.points([BOX], 200, 1)[0], jnp.float32)
        values = jax.jit(jax.vmap(lambda x: [fn(w, x) for fn in fns.values()]))(xs)
    for name, got, other, y in zip(fns, traced, closed, values, strict=True):
        y = np.asarray(y).reshape(200, -1)
        np.testing.assert_allclose(got, other, rtol=1e-5, atol=1e-6, err_msg=name)
        assert (y >= np.ravel(got[0]) - 1e-5).all() and (y <= np.ravel(got[1]) + 1e-5).all(), name


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: lax.while_loop(lambda v: v[0] < 10, lambda v: v * 2, x), "rounds depends on the input"),
        (lambda x: lax.while_loop(lambda s: s[0] < 9, lambda s: (s[0] + 1, s[1] * 2), (0, x))[1], "more than 5 rounds"),
        (lambda x: lax.scan(lambda c, _: (c * 2, None), x, None, length=9)[0], "more than 5 steps"),
        (lambda x: jnp.linalg.inv(x.reshape(2, 2)), "'(lu|triangular_solve)'"),
        (lambda x: jnp.fft.fft(x).real, "complex numbers"),
        (lambda x: lax.lgamma(x), "'lgamma'"),
        (lambda x: lax.cumlogsumexp(x), "'cumlogsumexp'"),
        (lambda x: jnp.arctan2(x, x + 3), "'atan2'"),
    ],
)
def test_refused_by_name(fn, message, monkeypatch):
    monkeypatch.setattr(_rules_calls, "_MOST_ROUNDS", 5)
    with pytest.raises(UnsupportedPrimitive, match=message):
        trace(fn, jax.ShapeDtypeStruct((N,), jnp.float32))


def _here() -> int:
    return inspect.currentframe().f_back.f_lineno  # pyright: ignore


def test_the_users_line_is_named():
    def plain(x):
        y = x * 2
        return lax.lgamma(y)

    def deep(x):
        return jax.jit(lambda v: lax.scan(lambda c, _: (plain(c), None), v, None, length=1)[0])(x)

    line = inspect.getsourcelines(plain)[1] + 2
    for fn in (plain, jax.jit(plain), deep, jax.vmap(plain), jax.checkpoint(plain)):
        with pytest.raises(UnsupportedPrimitive, match=rf"'lgamma'.*float32\[.*used at .*test_control_flow\.py:{line}\b"):
            trace(fn, jax.ShapeDtypeStruct((N,), jnp.float32))
        with pytest.raises(UnsupportedPrimitive, match=rf"test_control_flow\.py:{line}\b"):  # and inside an outer jit
            jax.jit(lambda w, fn=fn: trace(lambda x: fn(x * w), jax.ShapeDtypeStruct((N,), jnp.float32)) and w)(1.0)


def test_the_users_line_under_a_library():
    import flax.linen as nn

    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Sequential([lax.lgamma, jnp.sin])(x)  # called from Flax's own file

    line = inspect.getsourcelines(Odd.__call__)[1] + 2
    with pytest.raises(UnsupportedPrimitive, match=rf"test_control_flow\.py:{line}\b"):
        trace(lambda x: Odd().apply({}, x), jax.ShapeDtypeStruct((N,), jnp.float32))


def test_nodes_carry_the_line_they_come_from():
    def fn(x):
        return jnp.tanh(x)

    graph = trace(fn, jax.ShapeDtypeStruct((N,), jnp.float32))
    assert graph.nodes[graph.outputs[0].index].source.endswith(f"test_control_flow.py:{inspect.getsourcelines(fn)[1] + 1}")
    assert source_line(jax.make_jaxpr(fn)(jnp.ones(2)).jaxpr.eqns[0]) == graph.nodes[-1].source


def test_what_feeds_no_output_is_not_looked_at():
    def fn(x):
        jax.debug.print("{}", x[0])
        return x * 2

    assert len(trace(fn, jax.ShapeDtypeStruct((N,), jnp.float32)).nodes) == 2


def test_outputs_keep_their_structure():
    graph = trace(lambda x, y: {"a": (x + y["b"], 3.0), "c": y["b"]}, jnp.ones(2), {"b": jnp.ones(2)})
    out = jax.tree.unflatten(graph.out_tree, graph.outputs)
    assert isinstance(out["a"][0], Ref) and not isinstance(out["a"][1], Ref) and out["c"] == Ref(1)
