"""Losses and order statistics against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsec.core import losses
from jaxsec.core._select import concave_root, fill_knapsack, kth_largest

R = np.random.default_rng(0)
Z = R.normal(size=(50, 6)).astype(np.float32)
Y = R.integers(0, 6, size=50)
T = (Y + R.integers(1, 6, size=50)) % 6


def test_losses_by_their_definitions():
    z, rows = Z.astype(np.float64), np.arange(50)
    zy = z[rows, Y]
    others = np.where(np.arange(6)[None] == Y[:, None], -np.inf, z).max(axis=1)
    top = -np.sort(-z, axis=1)
    np.testing.assert_allclose(losses.cross_entropy(Z, Y), np.log(np.exp(z).sum(axis=1)) - zy, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses.margin(Z, Y), others - zy, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses.dlr(Z, Y), (others - zy) / (top[:, 0] - top[:, 2]), rtol=1e-4, atol=1e-6)
    wanted = (z[rows, T] - zy) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]))
    np.testing.assert_allclose(losses.dlr_targeted(Z, Y, T), wanted, rtol=1e-4, atol=1e-6)


def test_dlr_is_scale_and_shift_free_and_refuses_two_classes():
    np.testing.assert_allclose(losses.dlr(3 * Z + 7, Y), losses.dlr(Z, Y), rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="at least 3"):
        losses.dlr(Z[:, :2], Y % 2)


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
def test_targeted_dlr_has_a_slope_wherever_the_target_ranks(classes):
    """The loss between the first and the third of the untargeted ratio is -1 whatever the input: no gradient, and no attack."""
    z = jnp.asarray(np.sort(R.normal(size=(classes, classes)).astype(np.float32), axis=1)[:, ::-1])
    t = jnp.arange(1, classes)
    toward = jax.grad(lambda z: jnp.sum(losses.targeted("dlr", z, t)))(z[1:])
    between = jax.grad(lambda z: jnp.sum(losses.dlr_targeted(z, jnp.zeros_like(t), t)))(z[1:])
    for slope in (np.asarray(toward), np.asarray(between)):
        assert np.all(slope[np.arange(classes - 1), t] > 0.05), "rises with the target"
    if classes > 3:
        top = -np.sort(-np.asarray(z[1:], np.float64), axis=1)
        wanted = (top[np.arange(classes - 1), t] - top[:, 0]) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]))
        np.testing.assert_allclose(losses.targeted("dlr", z[1:], t), wanted, rtol=1e-4)


@given(st.integers(1, 9), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_kth_largest_with_ties(k, seed):
    a = np.random.default_rng(seed).integers(0, 5, size=(3, 9)).astype(np.float32)
    np.testing.assert_array_equal(kth_largest(jnp.asarray(a), jnp.full(3, k)), -np.sort(-a, axis=1)[:, k - 1])


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_concave_root_and_knapsack(seed):
    r = np.random.default_rng(seed)
    slope, cap = r.uniform(size=(4, 30)).astype(np.float32), r.uniform(size=(4, 30)).astype(np.float32)
    level = (cap.sum(axis=1) * np.array([0.1, 0.5, 0.95, 1.2])).astype(np.float32)
    t = np.asarray(concave_root(jnp.asarray(slope), jnp.asarray(cap), jnp.asarray(level)))
    assert np.isinf(t[3]) and np.isfinite(t[:3]).all()
    reached = np.minimum(t[:3, None] * slope[:3].astype(np.float64), cap[:3]).sum(axis=1)
    np.testing.assert_allclose(reached, level[:3], rtol=1e-4)
    amount = np.asarray(fill_knapsack(jnp.asarray(slope), jnp.asarray(cap), jnp.asarray(level)))
    np.testing.assert_allclose(amount.sum(axis=1), np.minimum(level, cap.sum(axis=1)), rtol=1e-4)
    order = np.argsort(-slope, axis=1)
    for i in range(4):  # a better-paid item is never left out while a worse one is taken
        full = amount[i][order[i]] >= cap[i][order[i]] * (1 - 1e-5)
        assert not np.any(~full[:-1] & (amount[i][order[i]][1:] > 1e-6))
