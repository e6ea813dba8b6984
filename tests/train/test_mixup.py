"""Mixup's mixtures, partners and shares, and smoothed labels, around recipes with and without an adversary."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import beta, kstest

import jaxsec
from jaxsec.core import row_keys
from jaxsec.train import PGDAT, Standard, net_of
from jaxsec.train._mixup import LabelSmoothing, Mixup, mixing_share

KEY = jax.random.key(5)
X = jax.random.uniform(jax.random.key(1), (6, 2, 3))
Y = jnp.array([0, 1, 2, 2, 1, 0])
SOFT = jax.nn.softmax(jax.random.normal(jax.random.key(2), (6, 3)))
W = jax.random.normal(jax.random.key(3), (6, 3))
LINF = jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0)
KEYS = row_keys(KEY, jnp.arange(6, dtype=jnp.uint32))
TRACED: list[str] = []


def linear(params: Any, x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1) @ params


NET = net_of(linear, W)


@jax.jit
def run(recipe: Any, y: jax.Array) -> tuple[jax.Array, Any]:
    """(loss, what the recipe prepares)"""
    TRACED.append(recipe.name)
    prepared = recipe.prepare(NET, X, y, KEYS)
    return recipe.objective(NET, prepared, X, y, KEYS)[0], tuple(prepared.values()) if isinstance(recipe, Mixup) else prepared


def share(y: jax.Array) -> np.ndarray:
    return np.asarray(y, np.float64) if y.ndim == 2 else np.eye(3)[np.asarray(y)]


def mean_cross_entropy(x: Any, p: Any) -> float:
    z = np.asarray(x, np.float64).reshape(6, 6) @ np.asarray(W, np.float64)
    return -np.mean(np.sum(np.asarray(p, np.float64) * log_softmax(z, axis=1), 1))


def parts(rows: np.ndarray, labels: np.ndarray, y: np.ndarray) -> tuple[list[int], list[float]]:
    """Partner and share of every row, found from the mixtures alone."""
    x = np.asarray(X, np.float64).reshape(6, 6)
    partners, shares = [], []
    for i in range(6):
        best = (float(np.abs(x[i] - rows[i]).max()), i, 1.0)
        for j in {*range(6)} - {i} if best[0] > 1e-6 else ():
            d = x[i] - x[j]
            s = float((rows[i] - x[j]) @ d / (d @ d))
            best = min(best, (float(np.abs(s * x[i] + (1 - s) * x[j] - rows[i]).max()), j, s))
        assert best[0] < 1e-6
        partners.append(best[1])
        shares.append(best[2])
        np.testing.assert_allclose(labels[i], best[2] * y[i] + (1 - best[2]) * y[best[1]], atol=1e-5)
    return partners, shares


@pytest.mark.parametrize("y", [Y, SOFT], ids=["classes", "distributions"])
@pytest.mark.parametrize("per", ["row", "batch"])
def test_rows_and_labels_are_mixed_alike(y: jax.Array, per: str) -> None:
    recipe = Mixup(recipe=Standard(), alpha=1.0, share=per)
    recipe.check(NET, X)
    loss, (rows, labels, _) = run(recipe, y)
    partners, shares = parts(np.asarray(rows, np.float64).reshape(6, 6), np.asarray(labels), share(y))
    assert sorted(partners) == list(range(6)) and partners != list(range(6)), "partners are a permutation"
    apart = [s for i, (j, s) in enumerate(zip(partners, shares, strict=True)) if i != j]
    assert all(0 <= s <= 1 for s in apart) and (np.ptp(apart) < 1e-5) == (per == "batch")
    assert float(loss) == pytest.approx(mean_cross_entropy(rows, labels), rel=1e-5)
    traced = len(TRACED)
    unmixed, (rows, labels, _) = run(recipe.replace(alpha=0.0), y)
    assert len(TRACED) == traced and float(unmixed) == pytest.approx(mean_cross_entropy(X, share(y)), rel=1e-5)
    np.testing.assert_array_equal(np.asarray(rows), np.asarray(X))


def test_rows_lie_between_the_two_that_they_are_mixed_of() -> None:
    """Equal elements stay, whatever share is drawn: 0.3 t + 0.3 (1 - t) rounds to another number."""
    x = jnp.full((4000, 1, 2, 3), 0.3)
    keys = row_keys(KEY, jnp.arange(4000, dtype=jnp.uint32))
    rows = Mixup(recipe=Standard(), alpha=1.0).prepare(NET, x, jnp.zeros(4000, jnp.int32), keys)["rows"]
    assert (rows == x).all()


def test_the_adversary_attacks_the_mixture() -> None:
    recipe = Mixup(recipe=PGDAT(threat=LINF, steps=1, step_size=1.0, start="clean"), alpha=0.5)
    recipe.check(NET, X)
    loss, (rows, labels, worst) = run(recipe, Y)
    z = np.asarray(rows, np.float64).reshape(6, 6) @ np.asarray(W, np.float64)
    p = np.exp(log_softmax(z, axis=1))
    expected = np.clip(np.asarray(rows).reshape(6, 6) + 0.2 * np.sign((p - np.asarray(labels)) @ np.asarray(W).T), 0, 1)
    np.testing.assert_allclose(np.asarray(worst).reshape(6, 6), expected, atol=1e-5)
    assert float(loss) == pytest.approx(mean_cross_entropy(worst, labels), rel=1e-4)
    assert float(recipe.scaled(0.5).threats[0].eps) == pytest.approx(0.1)


def test_shares_follow_beta_and_depend_on_the_rows_key() -> None:
    keys = row_keys(KEY, jnp.arange(2000, dtype=jnp.uint32))
    draw = jax.jit(mixing_share)
    for alpha in (0.2, 1.0, 4.0):
        s = np.asarray(draw(keys, alpha))
        assert kstest(s, beta(alpha, alpha).cdf).pvalue > 1e-3, alpha
    np.testing.assert_array_equal(np.asarray(draw(keys, 0.0)), 1.0)
    np.testing.assert_array_equal(np.asarray(draw(keys[::-1], 4.0))[::-1], s)


def test_label_smoothing_spreads_the_labels_of_the_loss_alone() -> None:
    inner = PGDAT(threat=LINF, steps=1, step_size=1.0, start="clean")
    recipe = LabelSmoothing(recipe=inner, smoothing=0.3)
    recipe.check(NET, X)
    loss, worst = run(recipe, Y)
    plain, same = run(inner, Y)
    np.testing.assert_array_equal(np.asarray(worst), np.asarray(same))
    assert float(loss) == pytest.approx(mean_cross_entropy(worst, 0.7 * share(Y) + 0.1), rel=1e-5)
    traced = len(TRACED)
    assert float(run(recipe.replace(smoothing=0.0), Y)[0]) == pytest.approx(float(plain), rel=1e-6) and len(TRACED) == traced


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Mixup(recipe=Standard(), alpha=-1.0), "alpha=-1.0; it must be at least 0"),
        (Mixup(recipe=Standard(), share="pair"), "share='pair'; allowed: row, batch"),
        (LabelSmoothing(recipe=Standard(), smoothing=1.5), "smoothing=1.5; it must be from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(recipe: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.check(NET, X)
