"""Rows in half precision: iterates are finer than the rows, so that small steps add up, and what is returned is inside the set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec import APGD, FAB, FGSM, PGD
from jaxsec.threat import named

EPS = {"linf": 0.008, "l2": 0.06, "l1": 0.4}
METHODS = (FGSM(), PGD(), APGD(steps=20), FAB(steps=20, targets=3))
CASES = [(m, norm, jnp.bfloat16) for m in METHODS for norm in EPS] + [(m, "linf", jnp.float16) for m in METHODS]


def net(p, x):
    return jnp.tanh(x.astype(jnp.float32) @ p["a"]) @ p["b"]


@pytest.fixture(scope="module")
def problem():
    """(model, x [64, 60] that float16 and bfloat16 hold exactly, y)."""
    r = np.random.default_rng(0)
    model = jaxsec.bind(net, {k: jnp.asarray(r.normal(size=s) * 0.5, jnp.float32) for k, s in {"a": (60, 32), "b": (32, 6)}.items()})
    x = np.asarray(jnp.asarray(r.uniform(0.5, 1, (64, 60)), jnp.bfloat16).astype(jnp.float32))
    return model, x, np.asarray(jax.jit(model)(x).argmax(axis=1)).astype(np.int32)


@pytest.mark.parametrize("method, norm, dtype", CASES, ids=[f"{m.name}-{norm}-{jnp.dtype(dtype)}" for m, norm, dtype in CASES])
def test_attacks_are_about_as_strong_as_on_float32(problem, method, norm, dtype):
    """PGD's step of eps / 16 is below half a unit of bfloat16 in [0.5, 1): iterates of that dtype would never leave their start."""
    model, x, y = problem
    run = {"threat": named(norm, eps=EPS[norm], lo=0.0, hi=1.0), "method": method, "key": jax.random.key(0)}
    full = np.asarray(jaxsec.attack(model, x, y, **run, progress=False).success)
    half = jaxsec.attack(model, jnp.asarray(x, dtype), y, **run, progress=False)
    jitted = jax.jit(lambda v: jaxsec.attack(model, v, y, **run))(jnp.asarray(x, dtype))
    for r in (half, jitted):
        assert r.x.dtype == dtype
        status = np.asarray(r.status)
        assert not np.isin(status, [jaxsec.Status.INFEASIBLE, jaxsec.Status.UNVERIFIED]).any()
        moved = np.asarray(r.x, np.float64) - x
        order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
        assert (np.linalg.norm(moved, order, axis=1) <= EPS[norm] * (1 + 2e-6)).all()
        wrong = np.asarray(model(r.x)).argmax(axis=1) != y
        np.testing.assert_array_equal(wrong, r.success)
    assert full.mean() > (0.05 if norm == "l1" and method.name == "fgsm" else 0.1)
    # rounding inwards takes up to a unit of the dtype off every element; of bfloat16 that is half of this eps
    assert np.asarray(half.success).mean() >= (0.5 if dtype == jnp.bfloat16 else 0.9) * full.mean()


@pytest.mark.parametrize("norm", EPS)
def test_a_projection_inside_a_program_is_inside_the_set(norm):
    """XLA may carry on with the number that a half-precision one was rounded from: what is measured must be what is returned."""
    r = np.random.default_rng(1)
    x0 = jnp.asarray(r.uniform(0, 1, (100, 500)), jnp.bfloat16)
    threat = named(norm, eps={"linf": 0.02, "l2": 0.3, "l1": 5.0}[norm], lo=0.0, hi=1.0)

    @functools.partial(jax.jit, static_argnums=0)
    def step(factor, x0, g):
        x = threat.project(x0, x0 + (factor * threat.eps) * threat.steepest(x0, g).astype(x0.dtype))
        return x, threat.contains(x0, x)

    for factor in (0.5, 1.0, 2.0):
        x, inside = step(factor, x0, jnp.asarray(r.normal(size=x0.shape), jnp.bfloat16))
        assert inside.all() and threat.contains(x0, x).all(), factor
