"""Softmax, normalisations, attention and whole blocks of Flax, NNX and Equinox: contained, and tight because they are recognised."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxsec.bound import _softmax
from jaxsec.bound._graph import trace
from jaxsec.bound._nodes import Curve, Opaque, Product

from . import oracle

RNG = np.random.default_rng(0)
X = (3, 3)  # square, so that axes have the same operations
CENTRE = RNG.normal(size=X)
V, MASK = RNG.normal(size=(3, 3)), np.tril(np.ones((3, 3), bool))
BIAS = np.where([[0, 1, 0], [1, 0, 1], [0, 0, 0]], -1e9, 0.0)


SIGNS = np.array([[1.0], [-1.0]])


def box(width, centre=CENTRE):
    return centre - width, centre + width


SOFTMAX = {
    "softmax": jax.nn.softmax, "softmax_axis": lambda x: jax.nn.softmax(x, axis=0),
    "softmax_axes": lambda x: jax.nn.softmax(x, axis=(0, 1)), "softmax_two": lambda x: jax.nn.softmax(x[:, :2]),
    "softmax_one": lambda x: jax.nn.softmax(x[:, :1]) + x[:, :1], "by_hand": lambda x: jnp.exp(x) / jnp.exp(x).sum(1, keepdims=True),
    "shifted_by_hand": lambda x: jnp.exp(x - x.max(1, keepdims=True)) / jnp.sum(jnp.exp(x - x.max(1, keepdims=True)), 1, keepdims=True),
    "log_softmax": jax.nn.log_softmax, "log_softmax_two": lambda x: jax.nn.log_softmax(x[:, :2]),
    "log_softmax_axis": lambda x: jax.nn.log_softmax(x, axis=0), "logsumexp": lambda x: jax.nn.logsumexp(x, 1),
    "logsumexp_all": jax.nn.logsumexp,
    "cross_entropy": lambda x: -jnp.take_along_axis(jax.nn.log_softmax(x), np.array([[0], [2], [1]]), 1),
    "masked": lambda x: jax.nn.softmax(jnp.where(MASK, x, -jnp.inf)),
    "masked_by_least": lambda x: jax.nn.softmax(jnp.where(MASK, x, jnp.finfo(x.dtype).min)),
    "masked_by_where": lambda x: jax.nn.softmax(x, where=MASK), "masked_by_sum": lambda x: jax.nn.softmax(x + BIAS),
    "average_of_itself": lambda x: jax.nn.softmax(x) @ x.T, "attention": lambda x: jax.nn.softmax(x @ x.T) @ x,
    "sum_of_part": lambda x: jnp.exp(x) / jnp.exp(x[:, :2]).sum(1, keepdims=True),
    "other_sum": lambda x: jnp.exp(x) / jnp.exp(x[::-1]).sum(1, keepdims=True),
    "shift_not_constant": lambda x: jax.nn.softmax(x - x[::-1]), "sum_put_elsewhere": lambda x: jnp.exp(x) / jnp.exp(x).sum(1)[None],
    "sums_in_reverse": lambda x: jnp.exp(x) / jnp.exp(x).sum(1, keepdims=True)[::-1],
    "log_sum_elsewhere": lambda x: x - jnp.log(jnp.exp(x).sum(1))[None],
    "other_shift_back": lambda x: jnp.log(jnp.exp(x - x[:, :1]).sum(1)) + x[::-1, 0],
    "log_of_part": lambda x: x - jnp.log(2 * jnp.exp(x).sum(1, keepdims=True)),
}  # fmt: skip
NORMS = {
    "layer": lambda x: (x - x.mean(1, keepdims=True)) * lax.rsqrt(x.var(1, keepdims=True) + 1e-5),
    "layer_fast": lambda x: (x - x.mean(1, keepdims=True)) * lax.rsqrt(jnp.maximum((x * x).mean(1, keepdims=True) - x.mean(1, keepdims=True) ** 2, 0) + 1e-5),
    "layer_by_division": lambda x: V[0, 0] * (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1e-5) + V[0, 1],
    "rms": lambda x: x * lax.rsqrt(jnp.mean(x * x, 0, keepdims=True) + 1e-6),
    "unit": lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True), "standardize": jax.nn.standardize,
    "all_axes": lambda x: (x - x.mean()) / jnp.sqrt(jnp.square(x - x.mean()).mean() + 1e-3),
    "clamped_norm": lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-3),
    "by_deviation": lambda x: x / (x.std(1, keepdims=True) + 0.1),
    "other_mean": lambda x: (x - x.mean(1, keepdims=True)[::-1]) / jnp.sqrt(x.var(1, keepdims=True) + 1e-2),
    "no_variance": lambda x: lax.rsqrt((x * x).mean(1) - x.mean(0) ** 2 + 9.0),
    "uncentred": lambda x: x / jnp.sqrt(x.var(1, keepdims=True) + 0.1),
    "wrong_group": lambda x: x * lax.rsqrt(jnp.mean(x * x, 0)[::-1][None] + 1e-6), "groups": lambda x: _group(x),
}  # fmt: skip


def _group(x):
    """Groups of a column, statistics laid out again as Flax does."""
    g = x.T.reshape(3, 3)
    mean = jnp.repeat(g.mean(1)[None], 3, 0)
    var = jnp.repeat(jnp.maximum(jnp.square(g).mean(1) - jnp.square(g.mean(1)), 0)[None], 3, 0)
    return (x - mean) * (lax.rsqrt(var + 1e-5) * np.array([[1.0, 2.0, -1.0]]))


@pytest.mark.parametrize("pairs", [2048, 0], ids=["pairs", "shifted"])
def test_softmax(pairs, monkeypatch):
    """Contained; and where logits are free its range is exact: the own logit at one end and all others at the other."""
    monkeypatch.setattr(_softmax, "PAIRS", pairs)
    again = "softmax log_softmax logsumexp masked masked_by_least masked_by_where masked_by_sum attention".split()
    fns = SOFTMAX if pairs else {k: SOFTMAX[k] for k in again}
    run = oracle.compiled(fns)
    oracle.check(fns, box(0.3), ascent=pairs > 0, run=run)
    lo, hi = box(3.0)
    for name, b in zip(fns, oracle.check(fns, (lo, hi), run=run), strict=True):
        assert np.isfinite(b.crown[0]).all() and np.isfinite(b.crown[1]).all(), name
        if name in ("softmax", "softmax_axis", "by_hand", "shifted_by_hand", "masked", "masked_by_least", "masked_by_where"):
            axis = 0 if name == "softmax_axis" else 1
            seen = MASK if name.startswith("masked") else np.ones(X, bool)  # whatever is masked is no other
            e_lo, e_hi = np.exp(lo) * seen, np.exp(hi) * seen
            least = e_lo / (e_lo + e_hi.sum(axis, keepdims=True) - e_hi)
            most = e_hi / (e_hi + e_lo.sum(axis, keepdims=True) - e_lo)
            np.testing.assert_allclose(b.lo.reshape(X), least, rtol=1e-6, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(b.hi.reshape(X), most, rtol=1e-6, atol=1e-12, err_msg=name)


STEPS = {
    "softmax": lambda x: jax.nn.softmax(x + 5 * (x > CENTRE).astype(x.dtype)),
    "log_softmax": lambda x: jax.nn.log_softmax(x + 5 * (x > CENTRE).astype(x.dtype)),
    "by_hand": lambda x: _exps(x) / _exps(x).sum(1, keepdims=True),
    "of_short_integers": lambda x: jax.nn.softmax(x + 5 * (x > CENTRE).astype(jnp.int8).astype(x.dtype)),
    "padding": lambda x: jax.nn.softmax(x @ x.T - 20 * (x[:, 0] > CENTRE[:, 0]).astype(x.dtype)[None]) @ x,
}


def _exps(x):
    return jnp.exp(x + 5 * (x > CENTRE).astype(x.dtype))


def test_truth_values_in_logits_are_no_constant_shift():
    """Elements are told apart by their numbers, which truth values cannot hold: all were taken for one, and left out of softmax."""
    oracle.check(STEPS, box(0.05), run=oracle.compiled(STEPS))
    for name in ("softmax", "by_hand"):
        graph = trace(STEPS[name], jax.ShapeDtypeStruct(X, jnp.float32))
        shifts = [n for n in graph.nodes if isinstance(n, Opaque) and n.dtype == bool]
        assert shifts and all(graph.nodes.index(n) in graph.ancestors(graph.outputs[0].index) for n in shifts), name


def test_softmax_of_two_is_a_logistic_curve():
    """And the second the rest of the first: their difference knows that both move together."""
    b, c = oracle.bounds(lambda x: (jax.nn.softmax(x[:, :2]) @ SIGNS, 2 * jax.nn.sigmoid(x[:, :1] - x[:, 1:2]) - 1), box(0.5))
    np.testing.assert_allclose(b.crown, c.crown, atol=1e-9)


def test_norms():
    """Contained, and never beyond what a norm can give: |z| is at most sqrt(N - 1), centred, or sqrt(N). Products of ranges give hundreds."""
    run = oracle.compiled(NORMS)
    for width in (0.05, 0.4):
        oracle.check(NORMS, box(width), run=run)
    root, whole = {"layer": 2, "layer_fast": 2, "rms": 3, "standardize": 2, "all_axes": 8}, {"unit": 1, "groups": 2 * 2**0.5}
    whole["layer_by_division"] = 2**0.5 * abs(V[0, 0]) + abs(V[0, 1])
    for name, b in zip(NORMS, oracle.check(NORMS, box(3.0), run=run), strict=True):
        limit = root[name] ** 0.5 if name in root else whole.get(name, np.inf)
        assert max(b.hi.max(), -b.lo.min()) <= limit + 1e-3, f"{name}: {b.lo.min()} {b.hi.max()}"


ROWS = (2, 4)


def _linen(module):
    def build():
        x = jnp.zeros(ROWS)
        variables = module.init(jax.random.key(0), x)
        noisy = jax.tree.map(lambda v: v + 0.1 * RNG.normal(size=v.shape).astype(np.float32), variables)
        return lambda v: module.apply(noisy, v)

    return build


def _nnx(make):
    def build():
        graph, state = nnx.split(make(nnx.Rngs(0)))
        return lambda v: nnx.merge(graph, state)(v)

    return build


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, qkv_features=4)(nn.LayerNorm()(x))
        return x + nn.Dense(4)(nn.gelu(nn.Dense(5)(nn.RMSNorm()(x))))


NETS = {
    "linen_group_norm": _linen(nn.GroupNorm(2)), "linen_block": _linen(Block()),
    "nnx_attention": _nnx(lambda r: nnx.MultiHeadAttention(2, 4, decode=False, rngs=r)),
    "eqx_attention": lambda: lambda v: eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))(v, v, v, mask=MASK[:2, :2]),
    "eqx_norms": lambda: lambda v: jax.vmap(eqx.nn.RMSNorm(4))(jax.vmap(eqx.nn.LayerNorm(4))(v)),
    "eqx_mlp": lambda: lambda v: jax.vmap(eqx.nn.MLP(4, 2, 5, 1, activation=jax.nn.elu, key=jax.random.key(1)))(v),
    "eqx_conv": lambda: lambda v: eqx.nn.MaxPool2d(2)(jax.nn.silu(eqx.nn.Conv2d(1, 2, 2, padding=1, key=jax.random.key(1))(v[None]))),
    "jax_attention": lambda: lambda v: jax.nn.dot_product_attention(*[v.reshape(2, 2, 2)[None]] * 3, is_causal=True),
    "linen_lstm": lambda: _lstm(),
}  # fmt: skip


def _lstm():
    net = nn.RNN(nn.OptimizedLSTMCell(3))
    variables = net.init(jax.random.key(0), jnp.zeros(ROWS))
    return lambda v: net.apply(variables, v[None])


@pytest.mark.parametrize("name", NETS)
def test_nets(name):
    fn = NETS[name]()
    found = oracle.check(fn, box(0.1, np.random.default_rng(1).normal(size=ROWS)), run=oracle.compiled(fn), dtype=np.float32)
    for b in found:
        assert np.isfinite(b.crown[0]).all() and np.isfinite(b.crown[1]).all()


def kinds(fn, shape=X):
    graph = trace(fn, jax.ShapeDtypeStruct(shape, jnp.float32))
    products = sum(isinstance(n, Product) for n in graph.nodes)
    return products, [n.unary.name for n in graph.nodes if isinstance(n, Curve)]


def test_what_is_recognised_has_no_products():
    assert kinds(jax.nn.softmax) == (0, ["exp", "exp", "reciprocal"])  # the first exponential is of no use to anyone
    for fn, name in (
        (jax.nn.silu, "silu"), (lambda x: jax.nn.gelu(x, approximate=True), "gelu_tanh"),
        (lambda x: jax.nn.gelu(x, approximate=False), "gelu"), (lambda x: x * 0.5 * (1.0 + lax.erf(x / np.sqrt(2.0))), "gelu"), (jax.nn.mish, "mish"), (jax.nn.hard_silu, "hard_silu"),
    ):  # fmt: skip
        products, curves = kinds(fn)
        assert products == 0 and curves[-1] == name


def test_a_shared_name_is_not_enough():
    """A user's own `logaddexp`, `celu` or `soft_sign` is what its program says."""

    def soft_sign(x):
        return x / (2 + jnp.abs(x))

    def celu(x):
        return jnp.maximum(x, 0) - jnp.expm1(jnp.minimum(x, 0))

    oracle.check({"soft_sign": jax.jit(soft_sign), "celu": jax.jit(celu)}, box(1.0))
