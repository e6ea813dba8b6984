"""Projections against float64 oracles, and the properties that make a projection one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsec.threat import L1, L2, LInf, named

from .oracles import norm_of, project_oracle

NORMS = ("linf", "l2", "l1")
SETS = (LInf(eps=0.2, lo=0.0, hi=1.0), L2(eps=0.6, lo=0.0, hi=1.0), L1(eps=1.5, lo=0.0, hi=1.0))
BOXES = ((0.0, 1.0), (-math.inf, math.inf), (0.0, math.inf))


@functools.partial(jax.jit, static_argnums=0)
def project(norm, eps, lo, hi, x0, x):
    threat = named(norm, eps=eps, lo=lo, hi=hi)
    out = threat.project(x0, x)
    return out, threat.contains(x0, out), threat.project(x0, out)


def run(norm, eps, lo, hi, x0, x):
    eps = np.broadcast_to(np.float32(eps), (len(x0),))
    return [np.asarray(v) for v in project(norm, eps, np.float32(lo), np.float32(hi), x0, x)]


def rows(seed, b, d, spread=1.0):
    r = np.random.default_rng(seed)
    x0 = r.random((b, d)) * (r.random((b, d)) < 0.7)  # many elements on the lower bound, as in pictures
    x0[r.random((b, d)) < 0.1] = 1.0
    return x0.astype(np.float32), (x0 + spread * r.normal(size=(b, d))).astype(np.float32)


@pytest.mark.parametrize("lo, hi", BOXES)
@pytest.mark.parametrize("norm", NORMS)
def test_agrees_with_the_oracle(norm, lo, hi):
    x0, x = rows(0, 24, 60)
    eps = np.geomspace(1e-3, 30.0, 24).astype(np.float32)
    out, inside, again = run(norm, eps, lo, hi, x0, x)
    for i in range(24):
        expected = project_oracle(norm, x0[i], x[i], float(eps[i]), lo, hi)
        np.testing.assert_allclose(out[i], expected, rtol=0, atol=3e-7 * max(1.0, np.abs(x[i]).max()), err_msg=f"row {i} eps {eps[i]}")
    assert inside.all()
    np.testing.assert_array_equal(again, out)


@pytest.mark.parametrize("spread", [1e-3, 1e3, 1e7])
@pytest.mark.parametrize("norm", ("l2", "l1"))
def test_far_and_near_points(norm, spread):
    """Newton starts on the wrong side by many orders of magnitude: the search must still end at the root."""
    x0, x = rows(1, 24, 60, spread)
    out, inside, _ = run(norm, 0.7, 0.0, 1.0, x0, x)
    for i in range(24):
        if norm == "l1" and spread == 1e7:
            continue  # the level is known to an ulp of 1e7, which is 1: feasible is all that float32 can give
        expected = project_oracle(norm, x0[i], x[i], 0.7, 0.0, 1.0)
        np.testing.assert_allclose(out[i], expected, rtol=0, atol=2e-4 if norm == "l1" and spread == 1e3 else 1e-6)
    assert inside.all()


def test_geometric_breakpoints():
    """Rooms that shrink geometrically: the case with the most pieces for the L2 search."""
    d = 40
    x0 = np.zeros((1, d), np.float32)
    room = 0.7 ** np.arange(d)
    x = (np.ones((1, d)) * 0.9 ** np.arange(d)[::-1]).astype(np.float32)
    for norm, eps in (("l2", 0.9), ("l2", 1.3), ("l1", 0.5), ("l1", 2.9)):
        threat = named(norm, eps=eps, lo=-1.0, hi=jnp.asarray(room, jnp.float32))
        out = np.asarray(jax.jit(threat.project)(x0, x))[0]
        expected = project_oracle(norm, x0[0], x[0], eps, -1.0, room.astype(np.float32))
        np.testing.assert_allclose(out, expected, atol=3e-7)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), eps=st.floats(1e-4, 10.0), spread=st.floats(0.01, 20.0), box=st.sampled_from(BOXES))
@pytest.mark.parametrize("norm", NORMS)
def test_is_a_projection(norm, seed, eps, spread, box):
    """Feasible, idempotent, non-expansive, and no feasible point is nearer (the obtuse angle criterion)."""
    x0, x = rows(seed, 4, 12, spread)
    y = (x + np.random.default_rng(seed + 1).normal(size=x.shape)).astype(np.float32)
    out, inside, again = run(norm, eps, *box, x0, x)
    other, _, _ = run(norm, eps, *box, x0, y)
    assert inside.all()
    np.testing.assert_array_equal(again, out)
    scale = np.abs(x).max() + 1.0
    x, y, out, other = (v.astype(np.float64) for v in (x, y, out, other))
    assert np.all(np.linalg.norm(out - other, axis=1) <= np.linalg.norm(x - y, axis=1) + 2e-6 * scale)
    # <x - P x, z - P x> <= 0 for every z of the set; `other` is one, x0 another
    for z in (other, x0):
        assert np.all(np.sum((x - out) * (z - out), axis=1) <= 2e-5 * scale**2)


@pytest.mark.parametrize("norm", NORMS)
def test_eps_zero_per_row_and_huge(norm):
    x0, x = rows(3, 4, 50)
    eps = np.array([0.0, 0.1, 1e30, np.inf], np.float32)
    out, inside, again = run(norm, eps, 0.0, 1.0, x0, x)
    np.testing.assert_array_equal(out[0], x0[0])
    np.testing.assert_array_equal(out[2:], np.clip(x[2:], 0, 1))
    assert inside.all() and np.array_equal(again, out)
    alone = run(norm, 0.1, 0.0, 1.0, x0[1:2], x[1:2])[0]
    np.testing.assert_allclose(out[1:2], alone, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_clean_point_stays(norm):
    x0, _ = rows(4, 4, 50)
    for eps in (0.0, 0.3):
        np.testing.assert_array_equal(run(norm, eps, 0.0, 1.0, x0, x0)[0], x0)


@pytest.mark.parametrize("norm", NORMS)
def test_linf_is_strict_and_others_within_an_ulp(norm):
    """In real numbers (float64), rounding to float32 included: nothing beyond eps but the rounding of the norm's own sum."""
    x0, x = rows(5, 50, 300)
    eps = np.float32(8 / 255)
    out = run(norm, eps, 0.0, 1.0, x0, x)[0]
    worst = max(norm_of(norm, out[i].astype(np.float64) - x0[i]) for i in range(50))
    assert worst <= float(eps) * (1.0 if norm == "linf" else 1 + 1e-6)
    assert worst >= float(eps) * (1 - 3e-5)


@pytest.mark.parametrize("shape", [(3, 1), (3, 4, 5, 2), (0, 6)])
@pytest.mark.parametrize("norm", NORMS)
def test_shapes(norm, shape):
    r = np.random.default_rng(0)
    x0 = r.random(shape).astype(np.float32)
    x = x0 + r.normal(size=shape).astype(np.float32)
    out, inside, _ = run(norm, 0.2, 0.0, 1.0, x0, x)
    assert out.shape == shape and inside.shape == shape[:1] and inside.all()
    flat = run(norm, 0.2, 0.0, 1.0, x0.reshape(shape[0], math.prod(shape[1:])), x.reshape(shape[0], math.prod(shape[1:])))[0]
    np.testing.assert_allclose(out.reshape(flat.shape), flat, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_stays_feasible(norm, dtype):
    x0, x = (jnp.asarray(v, dtype) for v in rows(6, 10, 200))
    eps = {"linf": 0.03, "l2": 0.5, "l1": 2.0}[norm]
    threat = named(norm, eps=eps, lo=0.0, hi=1.0)
    out, inside = jax.jit(lambda x0, x: (threat.project(x0, x), threat.contains(x0, threat.project(x0, x))))(x0, x)
    assert out.dtype == dtype and bool(inside.all())
    away = np.asarray(out, np.float64) - np.asarray(x0, np.float64)
    assert max(norm_of(norm, row) for row in away) <= eps * (1 + 1e-6)  # displacements round towards x0


@pytest.mark.parametrize("norm", ("l2", "l1"))
def test_row_does_not_see_its_neighbours(norm):
    x0, x = rows(7, 8, 100)
    x[1] *= 1e4  # a row whose search takes much longer
    whole = run(norm, 0.5, 0.0, 1.0, x0, x)[0]
    pair = run(norm, 0.5, 0.0, 1.0, x0[[0, 7]], x[[0, 7]])[0]
    np.testing.assert_array_equal(whole[[0, 7]], pair)


@pytest.mark.parametrize("norm", NORMS)
def test_nan_stays_in_its_row(norm):
    x0, x = rows(8, 3, 20)
    x[1, 4] = np.nan
    out, inside, _ = run(norm, 0.5, 0.0, 1.0, x0, x)
    assert inside.tolist() == [True, False, True]
    assert np.isnan(out[1]).any() and not np.isnan(out[[0, 2]]).any()


@pytest.mark.parametrize("threat", SETS, ids=lambda t: t.norm)
def test_derivative_is_that_of_the_projection(threat):
    """Forward derivative against central differences, away from kinks; reverse agrees and is finite, at x = x0 too."""
    x0, x = (jnp.asarray(v) for v in rows(9, 3, 15))
    r = np.random.default_rng(1)
    dx, dx0 = (jnp.asarray(r.normal(size=x.shape), jnp.float32) for _ in range(2))

    @jax.jit
    def f(eps, x):
        return threat.replace(eps=eps).project(x0, x)

    eps = jnp.float32(threat.eps)
    _, change = jax.jvp(f, (eps, x), (jnp.float32(1.0), dx))
    h = 1e-4
    slope = (f(eps + h, x + h * dx) - f(eps - h, x - h * dx)) / (2 * h)
    close = np.abs(np.asarray(change - slope)) < 1e-2
    assert close.mean() > 0.9  # an element that crosses a bound within h has no derivative to compare
    weights = dx0
    pulled = jax.grad(lambda x: jnp.sum(weights * f(eps, x)))(x)
    _, pushed = jax.jvp(lambda x: f(eps, x), (x,), (dx,))
    np.testing.assert_allclose(jnp.sum(pulled * dx), jnp.sum(weights * pushed), rtol=1e-4, atol=1e-5)
    assert bool(jnp.isfinite(jax.grad(lambda x: jnp.sum(f(eps, x)))(x0)).all())
    assert bool(jnp.isfinite(jax.grad(lambda e: jnp.sum(f(e, x)))(jnp.float32(0.0))).all())


def test_radial_projection_is_feasible_and_scales():
    x0, x = rows(10, 6, 40)
    threat = L2(eps=0.5, lo=0.0, hi=1.0)
    out = threat.project_radially(jnp.asarray(x0), jnp.asarray(x))
    assert bool(threat.contains(jnp.asarray(x0), out).all())
    v = x - x0
    expected = np.clip(x0 + v * np.minimum(1, 0.5 / np.linalg.norm(v, axis=1, keepdims=True)), 0, 1)
    np.testing.assert_allclose(out, expected, atol=1e-6)
