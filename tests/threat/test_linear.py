"""`maximise`, `support`, `steepest`, `dual_norm`: linear programs and bisection in float64 as oracles."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.threat import L1, L2, Box, LInf, named

from .oracles import support_oracle

NORMS = ("linf", "l2", "l1")
BOXES = ((0.0, 1.0), (-math.inf, math.inf))


def rows(seed, b, d):
    r = np.random.default_rng(seed)
    x0 = (r.random((b, d)) * (r.random((b, d)) < 0.7)).astype(np.float32)
    w = r.normal(size=(b, d)).astype(np.float32)
    w[:, 0] = 0
    return x0, w


@pytest.mark.parametrize("lo, hi", BOXES)
@pytest.mark.parametrize("norm", NORMS)
def test_maximiser_is_exact(norm, lo, hi):
    x0, w = rows(0, 12, 15)
    eps = np.geomspace(0.01, 20, 12).astype(np.float32)
    threat = named(norm, eps=eps, lo=lo, hi=hi)
    best, value = jax.jit(lambda x0, w: (threat.maximise(x0, w), threat.support(x0, w)))(x0, w)
    inside = threat.contains(x0, best)
    assert bool(inside.all())
    expected = [support_oracle(norm, x0[i], w[i], float(eps[i]), lo, hi) for i in range(12)]
    np.testing.assert_allclose(value, expected, rtol=3e-6, atol=3e-6)
    np.testing.assert_allclose(np.sum(np.asarray(best, np.float64) * w, axis=1), expected, rtol=3e-6, atol=3e-6)
    np.testing.assert_array_equal(best[:, 0], x0[:, 0])  # nothing to gain: not moved


def test_l1_ties_share_and_the_budget_holds():
    threat = L1(eps=1.0, lo=0.0, hi=1.0)
    x0 = jnp.full((1, 4), 0.5)
    np.testing.assert_allclose(threat.maximise(x0, jnp.array([[3.0, 1.0, -1.0, 0.0]])), [[1.0, 0.75, 0.25, 0.5]], atol=1e-6)
    tied = threat.maximise(x0, jnp.ones((1, 4)))
    np.testing.assert_allclose(tied, [[0.75] * 4], atol=1e-6)


@pytest.mark.parametrize("norm", (*NORMS, "box"))
def test_support_of_several_forms_is_that_of_each(norm):
    x0, _ = rows(1, 3, 12)
    w = np.random.default_rng(2).normal(size=(3, 5, 12)).astype(np.float32)
    threat = Box(lower=0.0, upper=1.0) if norm == "box" else named(norm, eps=0.7, lo=0.0, hi=1.0)
    support = jax.jit(threat.support)
    many = support(x0, w)
    assert many.shape == (3, 5)
    for k in range(5):
        np.testing.assert_allclose(many[:, k], support(x0, w[:, k]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_support_gradient_is_the_maximiser(norm):
    x0, w = rows(3, 4, 10)
    threat = named(norm, eps=0.5, lo=0.0, hi=1.0)
    by_form = jax.jit(jax.grad(lambda w: jnp.sum(threat.support(x0, w))))
    pulled = by_form(jnp.asarray(w))
    np.testing.assert_allclose(pulled[:, 1:], threat.maximise(x0, w)[:, 1:], atol=1e-6)  # w = 0 has no unique one
    assert bool(jnp.isfinite(by_form(jnp.zeros_like(w))).all())
    by_eps = jax.jit(jax.value_and_grad(lambda e: jnp.sum(threat.replace(eps=e).support(x0, w))))
    h = np.float32(0.005)
    np.testing.assert_allclose(by_eps(np.float32(0.5))[1], (by_eps(0.5 + h)[0] - by_eps(0.5 - h)[0]) / (2 * h), rtol=2e-2)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("norm", NORMS)
def test_scale_of_the_gradient_does_not_matter(norm, scale):
    x0, w = rows(4, 4, 30)
    threat = named(norm, eps=0.8, lo=0.0, hi=1.0)
    both = jax.jit(lambda w: (threat.maximise(x0, w), threat.steepest(x0, w)))
    for scaled, plain in zip(both(w * np.float32(scale)), both(w), strict=True):
        np.testing.assert_allclose(scaled, plain, atol=2e-6)


@pytest.mark.parametrize("threat", [LInf(eps=1.0), L2(eps=1.0), L1(eps=1.0), Box(lower=-1.0, upper=2.0)], ids=lambda t: t.norm)
def test_steepest_attains_the_dual_norm(threat):
    _, w = rows(5, 4, 30)
    x = jnp.zeros_like(w)
    d = threat.steepest(x, jnp.asarray(w))
    np.testing.assert_allclose(jnp.sum(d * w, axis=1), threat.dual_norm(w), rtol=1e-5)
    if threat.norm != "box":
        np.testing.assert_allclose(threat.distance(x, d), 1.0, rtol=1e-5)
    assert not np.asarray(threat.steepest(x, jnp.zeros_like(w))).any()


def test_l1_steepest_avoids_blocked_elements():
    x = jnp.array([[1.0, 0.5, 0.0]])
    g = jnp.array([[9.0, 1.0, -5.0]])
    threat = L1(eps=1.0, lo=0.0, hi=1.0)
    np.testing.assert_array_equal(threat.steepest(x, g), [[0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(threat.steepest(jnp.ones((1, 3)), jnp.ones((1, 3))), [[0.0, 0.0, 0.0]])


def test_box_operations():
    lower, upper = jnp.array([0.0, -1.0, 2.0]), jnp.array([1.0, 1.0, 2.0])
    box = Box(lower=lower, upper=upper)
    x0, g = jnp.array([[0.2, 0.0, 2.0]]), jnp.array([[0.0, -2.0, 1.0]])
    np.testing.assert_allclose(box.maximise(x0, g), [[0.2, -1.0, 2.0]])
    np.testing.assert_allclose(box.support(x0, g), [4.0])
    np.testing.assert_allclose(box.project(x0, jnp.array([[5.0, -5.0, 0.0]])), [[1.0, -1.0, 2.0]])
    assert box.contains(x0, x0).tolist() == [True]
    assert box.contains(x0, x0.at[0, 0].set(1.0001)).tolist() == [False]
    assert box.contains(x0, x0.at[0, 0].set(1.0001), tolerance=1e-3).tolist() == [True]
    assert box.contains(x0, x0.at[0, 0].set(jnp.nan)).tolist() == [False]
    np.testing.assert_allclose(box.distance(x0, x0 + 0.25), [0.25])
    np.testing.assert_allclose(box.scaled(0.5).upper, [0.75, 0.5, 2.0])
    per_row = Box(lower=jnp.zeros((2, 3)), upper=jnp.array([[1.0, 1, 1], [2, 2, 2]])).scaled(jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(per_row.upper[1], 1.0)
