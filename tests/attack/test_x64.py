"""With `jax_enable_x64` on and rows in float64, as scientists run JAX: every method works, sets are exact, no leaf is narrowed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec import APGD, FAB, PGD, Square
from jaxsec.core._select import kth_largest
from jaxsec.threat import named

from ..threat.oracles import norm_of, project_oracle
from .conftest import CLASSES, SHAPE, mlp

EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.1}  # none is a float32
METHODS = {
    "pgd": PGD(steps=3),
    "apgd": APGD(steps=5),
    "apgd-t": APGD(steps=5, targets=2, large_eps=True),
    "fab": FAB(steps=5),
    "fab-t": FAB(steps=5, targets=2, minimise=False),
    "square": Square(steps=20),
}


@pytest.fixture
def wide():
    """(model, x, y) in float64, while the switch is on."""
    with jax.enable_x64(True):
        r = np.random.default_rng(0)
        d = int(np.prod(SHAPE))
        params = {"a": r.normal(size=(d, 16)) * 0.5, "b": r.normal(size=(16, CLASSES)), "c": r.normal(size=16) * 0.1}
        model = jaxsec.bind(mlp, jax.tree.map(jnp.asarray, params))
        x = r.uniform(0.1, 0.9, size=(8, *SHAPE))
        yield model, x, np.asarray(model(jnp.asarray(x)).argmax(axis=1)).astype(np.int32)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_float64(name, norm, wide):
    model, x, y = wide
    r = jaxsec.attack(model, x, y, threat=named(norm, eps=EPS[norm], lo=0.0, hi=1.0), method=METHODS[name], key=jax.random.key(0))
    assert r.x.dtype == np.float64
    assert np.asarray(r.success).any(), "a budget at which no row falls would show little"
    moved = np.asarray(r.x) - x
    assert all(norm_of(norm, d.ravel()) <= EPS[norm] * (1 + 1e-15) for d in moved), "beyond eps, which float32 would round"
    np.testing.assert_allclose(r.distance, [norm_of(norm, d.ravel()) for d in moved], rtol=1e-12, atol=1e-15)
    answers = np.asarray(model(jnp.asarray(r.x)).argmax(axis=1))
    np.testing.assert_array_equal(answers != y, r.success)


@pytest.mark.parametrize("norm", EPS)
def test_projections_are_exact_to_float64(norm, wide):
    r = np.random.default_rng(1)
    x0 = r.random((6, 40)) * (r.random((6, 40)) < 0.7)
    x = x0 + r.normal(size=x0.shape)
    threat = named(norm, eps=EPS[norm], lo=0.0, hi=1.0)
    out = np.asarray(threat.project(jnp.asarray(x0), jnp.asarray(x)))
    assert out.dtype == np.float64
    for i in range(len(x)):
        np.testing.assert_allclose(out[i], project_oracle(norm, x0[i], x[i], EPS[norm], 0.0, 1.0), rtol=0, atol=1e-12)
    far = np.asarray(threat.maximise(jnp.asarray(x0), jnp.asarray(x)))
    assert all(norm_of(norm, d) <= EPS[norm] * (1 + 1e-15) for d in far - x0)
    assert norm == "linf" or all(norm_of(norm, d) >= EPS[norm] * (1 - 1e-12) for d in far - x0)


def test_order_statistics_tell_neighbouring_float64_apart(wide):
    a = np.array([[1.0, 1.0 + 2e-16, 1.0 + 1e-12, 0.5]])
    found = [float(kth_largest(jnp.asarray(a), jnp.asarray([k]))[0]) for k in (1, 2, 3, 4)]
    assert found == sorted(a[0].tolist(), reverse=True)
