"""Ranges refined by small trees: they hold for every input, and say more than one set of lines does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound._branch_neuron import bound_root
from jaxsec.bound._refine import refinable, refine
from jaxsec.bound._run import unknown
from jaxsec.core import Model

SIZES = (4, 12, 12, 10, 3)
bound_root = jax.jit(bound_root, static_argnums=1, static_argnames=("steps", "open", "sound", "budget"))
refine = jax.jit(refine, static_argnums=1, static_argnames=("layer", "depth", "steps", "sound", "budget"))


def layers(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b[None])
    return x @ params[-1][0] + params[-1][1][None]


@pytest.fixture(scope="module")
def net() -> Model:
    r = np.random.default_rng(2)
    return jaxsec.bind(
        layers,
        [
            (jnp.asarray(r.normal(size=(a, b)) * 1.4 / np.sqrt(a), jnp.float32), jnp.asarray(r.normal(size=b) * 0.2, jnp.float32))
            for a, b in itertools.pairwise(SIZES)
        ],
    )


@pytest.fixture(scope="module")
def preactivations(net: Model) -> list[np.ndarray]:
    """Of all layers at many points, corners among them."""
    found = []
    x = np.random.default_rng(0).uniform(-1, 1, (100_000, SIZES[0])).astype(np.float32)
    x[:4096] = np.sign(x[:4096])
    for w, b in net.params[:-1]:
        z = x @ np.asarray(w) + np.asarray(b)
        found.append(z)
        x = np.maximum(z, 0)
    return found


def test_which_layers(net: Model) -> None:
    assert np.asarray(refinable(net, (4,), jnp.float32)).tolist() == [False, True, True]


@pytest.mark.parametrize(("layer", "sound"), [(2, False), (1, True)])
def test_refined_ranges_hold_and_are_narrower(net: Model, preactivations: list[np.ndarray], layer: int, sound: bool) -> None:
    lo, hi = -np.ones(4, np.float32), np.ones(4, np.float32)
    known = jax.tree.map(lambda v: v[0], unknown(net, (4,), jnp.float32))
    spec, at = np.eye(3, dtype=np.float32)[:1][None], np.zeros((1, 1), np.float32)
    how = {"sound": sound, "budget": 1 << 26}
    known = bound_root(net, (4,), lo, hi, known, spec, at, steps=20, open=64, **how).lanes.known
    known = jax.tree.map(lambda v: v[0], known)
    n = SIZES[layer + 1]
    rows, sign = np.tile(np.arange(n, dtype=np.int32), 2), np.repeat(np.array([1, -1], np.float32), n)
    bounds = np.asarray(refine(net, (4,), lo, hi, known, rows, sign, layer=layer, depth=3, steps=6, **how))
    z = preactivations[layer]
    least, most = z.min(0), z.max(0)
    assert (bounds[:n] <= least + 1e-5).all() and (-bounds[n:] >= most - 1e-5).all()
    low, high = np.maximum(np.asarray(known[layer][0])[0], bounds[:n]), np.minimum(np.asarray(known[layer][1])[0], -bounds[n:])
    before = np.asarray(known[layer][1] - known[layer][0])[0] - (most - least)
    after = high - low - (most - least)
    assert (after >= -1e-5).all()
    assert after.mean() < 0.8 * before.mean(), "the trees win less than a fifth of what the lines leave"
