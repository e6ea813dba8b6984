"""Programs that nobody wrote: random sequences of operations on a pool of values never leave their bounds."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from . import oracle

S = (3, 3)  # the shape of every value
W = np.random.default_rng(0).normal(size=S)
B = np.random.default_rng(1).normal(size=S)
MASK = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 1]], bool)
UNARY = {
    "tanh": jnp.tanh, "exp": lambda x: jnp.exp(jnp.minimum(x, 2)), "relu": jax.nn.relu, "abs": jnp.abs, "sin": jnp.sin,
    "square": lambda x: jnp.square(x) / 2, "sigmoid": jax.nn.sigmoid, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "elu": jax.nn.elu,
    "leaky": jax.nn.leaky_relu, "softplus": jax.nn.softplus, "clip": lambda x: jnp.clip(x, -0.5, 0.8),
    "log1p": lambda x: jnp.log1p(jnp.abs(x)), "sqrt": lambda x: jnp.sqrt(jnp.abs(x) + 0.1), "hard_silu": jax.nn.hard_silu,
    "reciprocal": lambda x: 1 / (1 + x * x), "cube": lambda x: x**3 / 4, "erf": lax.erf, "floor": lambda x: jnp.floor(2 * x) / 2,
    "sign": jnp.sign, "neg": lambda x: 0.5 - x, "softmax": jax.nn.softmax, "softmax_columns": lambda x: jax.nn.softmax(x, 0),
    "log_softmax": lambda x: jax.nn.log_softmax(x) / 2, "masked": lambda x: jax.nn.softmax(jnp.where(MASK, x, -jnp.inf)),
    "layer_norm": lambda x: (x - x.mean(1, keepdims=True)) * lax.rsqrt(x.var(1, keepdims=True) + 1e-2),
    "rms": lambda x: x * lax.rsqrt(jnp.mean(x * x, 0, keepdims=True) + 0.1), "dense": lambda x: x @ W, "dense_left": lambda x: W @ x,
    "bias": lambda x: x + B, "gain": lambda x: x * B, "transpose": lambda x: x.T, "reverse": lambda x: x[::-1],
    "sum": lambda x: jnp.broadcast_to(x.sum(0, keepdims=True), S) / 2, "mean": lambda x: x - x.mean(),
    "max": lambda x: jnp.broadcast_to(x.max(1, keepdims=True), S), "min": lambda x: jnp.broadcast_to(x.min(0), S),
    "cumsum": lambda x: jnp.cumsum(x, 1) / 2, "cummax": lambda x: lax.cummax(x, axis=0), "roll": lambda x: jnp.roll(x, 1, 0),
    "pool": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "SAME"), "sort": lambda x: jnp.sort(x, 0),
    "set": lambda x: x.at[1].set(B[0]), "gather": lambda x: x[np.array([2, 0, 0])],
    "scan": lambda x: lax.scan(lambda c, r: (jnp.tanh(c + r), c * r), x[0], x)[1], "hard_choice": lambda x: jnp.where(x > 0.2, x, 1.0),
    "triu": jnp.triu, "diag": lambda x: jnp.diag(x)[None] + x,
    "conv": lambda x: lax.conv_general_dilated(x[None, None], W[None, None], (1, 1), "SAME")[0, 0],
}  # fmt: skip
BINARY = {
    "add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "max": jnp.maximum, "min": jnp.minimum, "matmul": lambda x, y: x @ y / 2,
    "div": lambda x, y: x / (1.5 + jnp.square(y)), "choose": lambda x, y: jnp.where(x > y, x, y / 2),
    "mask": lambda x, y: jnp.where(MASK, x, y), "concatenate": lambda x, y: jnp.concatenate([x[:1], y[1:]]),
    "gate": lambda x, y: x * jax.nn.sigmoid(y), "logaddexp": jnp.logaddexp, "attention": lambda x, y: jax.nn.softmax(x @ y.T) @ y,
    "broadcast": lambda x, y: x * y[:1] + y[:, :1], "update": lambda x, y: lax.dynamic_update_slice(x, y[:2, :2], (1, 0)),
}  # fmt: skip


@st.composite
def programs(draw):
    """(steps, seed, width): each step an operation and the places of its operands among the last four values."""
    steps = []
    for _ in range(draw(st.integers(2, 7))):
        if draw(st.booleans()):
            steps.append((draw(st.sampled_from(list(UNARY))), draw(st.integers(1, 3))))
        else:
            steps.append((draw(st.sampled_from(list(BINARY))), draw(st.integers(1, 3)), draw(st.integers(1, 4))))
    return steps, draw(st.integers(0, 3)), draw(st.sampled_from([0.0, 0.03, 0.3, 1.0]))


def build(steps):
    def fn(x):
        pool = [x, x @ W + B]
        for name, *places in steps:
            operands = [pool[-min(p, len(pool))] for p in places]
            pool.append((UNARY if len(places) == 1 else BINARY)[name](*operands))
        return pool[-1]

    return fn


@settings(max_examples=60 if oracle.FULL else 30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_stay_within_their_bounds(program):
    steps, seed, width = program
    centre = np.random.default_rng(seed).normal(size=S) / 2
    box, fn = (centre - width, centre + width), build(steps)
    with jax.numpy_rank_promotion("allow"):
        xs = oracle.points([box], 510, seed)
        _, (y,) = oracle.values(fn, xs, jit=False)
        (b,) = oracle.bounds(fn, box, forward=True)
    # what explodes rounds: the check is relative to the largest number that can be met
    oracle.contains(b, xs[0].reshape(len(y), -1), y, str(steps), 1e-9 * max(1, min(1e4, np.nanmax(np.abs([b.lo, b.hi])))))
