"""`bind`: every kind of net, equal nets share programs, what cannot work is refused with a remedy."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxsec

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)


class Net(nn.Module):
    width: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(self.width)(x))
        return nn.Dense(2)(x)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.layer(x))


def linear(params, x):
    return x @ params


def test_linen_nnx_equinox_and_functions_agree_with_themselves():
    variables = Net().init(jax.random.key(0), X)
    np.testing.assert_allclose(jaxsec.bind(Net(), variables)(X), Net().apply(variables, X), rtol=1e-6)
    net = NNXNet(nnx.Rngs(0))
    np.testing.assert_allclose(jaxsec.bind(net)(X), net(X), rtol=1e-6)
    layer = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    np.testing.assert_allclose(jaxsec.bind(layer, per_row=True)(X), jax.vmap(layer)(X), rtol=1e-6)
    w = jnp.ones((4, 2))
    np.testing.assert_allclose(jaxsec.bind(linear, w)(X), X @ w, rtol=1e-6)
    np.testing.assert_allclose(jaxsec.bind(linear, w, per_row=True)(X), X @ w, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda s: jaxsec.bind(Net(), Net().init(jax.random.key(s), X)),
        lambda s: jaxsec.bind(NNXNet(nnx.Rngs(s))),
        lambda s: jaxsec.bind(eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(s)), per_row=True),
        lambda s: jaxsec.bind(linear, jnp.full((4, 2), float(s))),
    ],
)
def test_rebuilt_nets_do_not_retrace_and_parameters_are_differentiable(make):
    traces = []

    @jax.jit
    def run(model, x):
        traces.append(1)
        return model(x).sum()

    run(make(0), X)
    run(make(1), X)
    assert len(traces) == 1
    gradient = jax.grad(lambda m: m(X).sum(), allow_int=True)(make(1))
    leaves = [g for g in jax.tree.leaves(gradient.params) if hasattr(g, "dtype") and jnp.issubdtype(g.dtype, jnp.floating)]
    assert any(float(jnp.abs(g).max()) > 0 for g in leaves)


W = jnp.ones((4, 2))


def make_closure():
    w = jnp.ones((4, 2))
    return lambda params, x: x @ w


class Opaque:
    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((make_closure(), {}), "closes over"),
        ((functools.partial(linear, W),), "closes over"),
        ((linear,), "without variables"),
        ((Net(),), "without variables"),
        ((NNXNet(nnx.Rngs(0)), {}), "takes none"),
        ((Opaque(),), "no pytree"),
        ((3,), "allowed"),
        ((nn.Sequential([nn.Dense(2)]), {}), "tuples in place of lists"),
    ],
)
def test_what_cannot_work_is_refused(arguments, words):
    with pytest.raises(TypeError, match=words):
        jaxsec.bind(*arguments)


def test_preprocessing_wraps_and_reports_the_outer_shape():
    model = jaxsec.bind(linear, W, info=jaxsec.ModelInfo(input_shape=(4,)))
    np.testing.assert_allclose(model.preprocessed(mean=1.0, std=2.0)(X), ((X - 1) / 2) @ W, rtol=1e-6)
    with pytest.raises(ValueError, match="std"):
        model.preprocessed(std=0.0)

    def flat(params, x):
        return x.reshape(x.shape[0], -1) @ params

    chw = jaxsec.bind(flat, jnp.arange(24.0).reshape(12, 2), info=jaxsec.ModelInfo(input_shape=(3, 2, 2)))
    hwc = chw.preprocessed(transpose=(2, 0, 1))
    assert hwc.info.input_shape == (2, 2, 3)
    x = jnp.arange(12.0).reshape(1, 2, 2, 3)
    np.testing.assert_allclose(hwc(x), chw(x.transpose(0, 3, 1, 2)), rtol=1e-6)
