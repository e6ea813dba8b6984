"""Training for randomized smoothing against float64 NumPy, at the limits, with BatchNorm, and without a second trace."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import norm

import jaxsec
from jaxsec.core import row_keys
from jaxsec.train import Standard, net_of
from jaxsec.train._macer import MACER
from jaxsec.train._pairing import CleanLogitPairing, LogitSqueezing
from jaxsec.train._smoothed import Consistency, GaussianAugmentation, SmoothAdvTraining, noisy_copies

KEY = jax.random.key(5)
X = jax.random.uniform(jax.random.key(1), (6, 2, 3))
Y = jnp.array([0, 1, 2, 2, 1, 0])
SOFT = jax.nn.softmax(jax.random.normal(jax.random.key(2), (6, 3)))
W = jax.random.normal(jax.random.key(3), (6, 3))
L2 = jaxsec.L2(eps=0.5, lo=-9.0, hi=9.0)


def linear(params: Any, x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1) @ params


NET = net_of(linear, W)
KEYS = row_keys(KEY, jnp.arange(6, dtype=jnp.uint32))
noised = jax.jit(noisy_copies, static_argnums=3)


TRACED: list[str] = []


@jax.jit
def run(recipe: Any, y: jax.Array, w: jax.Array, x: jax.Array) -> tuple[jax.Array, Any, jax.Array]:
    TRACED.append(recipe.name)
    net = NET.replace(params=w)
    return *recipe.loss(net, x, y, KEY), recipe.prepare(net, x, y, KEYS[: len(x)])


def value(recipe: Any, y: jax.Array, w: jax.Array = W, x: jax.Array = X) -> tuple[jax.Array, Any]:
    return run(recipe, y, w, x)[:2]


def logits_of(recipe: Any, y: jax.Array = Y, w: Any = W) -> np.ndarray:
    """[B, n, K] float64, at the copies that the recipe makes."""
    copies = np.asarray(run(recipe, y, w, X)[2], np.float64).reshape(6 * recipe.noises, 6)
    return (copies @ np.asarray(w, np.float64)).reshape(6, recipe.noises, 3)


def share(y: jax.Array) -> np.ndarray:
    return np.asarray(y, np.float64) if y.ndim == 2 else np.eye(3)[np.asarray(y)]


def mean_cross_entropy(z: np.ndarray, y: jax.Array) -> float:
    return -np.mean(np.sum(share(y)[:, None] * log_softmax(z, axis=-1), -1))


def test_noise_is_the_rows_own_and_gaussian() -> None:
    x, keys = jnp.zeros((40, 500)) + 0.9, row_keys(KEY, jnp.arange(40, dtype=jnp.uint32))
    z = np.asarray(noised(x, 0.5, keys, 3)).reshape(40, 3, 500) - 0.9
    assert abs(z.mean()) < 0.01 and abs(z.std() - 0.5) < 0.005
    assert (z + 0.9 > 1).any(), "noised rows are clipped"
    assert norm.cdf(z / 0.5).std() == pytest.approx(np.sqrt(1 / 12), rel=0.01)
    assert np.abs(np.corrcoef(z.reshape(120, 500)) - np.eye(120)).max() < 0.25
    alone = np.asarray(noised(x[7:8] + 1, 0.5, keys[7:8], 3)) - 1.9
    np.testing.assert_allclose(alone, z[7], atol=1e-6)


@pytest.mark.parametrize("y", [Y, SOFT], ids=["classes", "distributions"])
def test_gaussian_is_cross_entropy_of_the_noised_rows(y: jax.Array) -> None:
    recipe = GaussianAugmentation(sigma=0.5, noises=4)
    assert float(value(recipe, y)[0]) == pytest.approx(mean_cross_entropy(logits_of(recipe), y), rel=1e-5)
    assert float(value(recipe.replace(sigma=0.0), y)[0]) == pytest.approx(float(value(Standard(), y)[0]), rel=1e-5)


def test_smoothadv_climbs_the_loss_of_the_averaged_softmax() -> None:
    recipe = SmoothAdvTraining(sigma=0.7, noises=4, threat=L2, steps=1, step_size=1.0)
    gaussian = GaussianAugmentation(sigma=0.7, noises=4)
    p, w = softmax(logits_of(gaussian), axis=-1), np.asarray(W, np.float64)
    # the slope of -sum_k y_k log mean_i p_ik for logits x W: each draw counts by its own p_ik, unlike in the mean of cross-entropies
    slopes = w.T[None, None] - (p @ w.T)[:, :, None]  # of log p_ik
    g = -np.einsum("bk,bik,bikd->bd", share(SOFT) / p.sum(1), p, slopes)
    worst = np.asarray(X).reshape(6, 6) + 0.5 * g / np.linalg.norm(g, axis=1, keepdims=True)
    expected = np.asarray(noised(worst.reshape(X.shape).astype(np.float32), 0.7, KEYS, 4))
    np.testing.assert_allclose(np.asarray(run(recipe, SOFT, W, X)[2]), expected, atol=2e-5)
    assert float(value(recipe, SOFT)[0]) == pytest.approx(mean_cross_entropy((expected.reshape(6, 4, 6) @ w), SOFT), rel=1e-4)


def test_smoothadv_without_a_budget_is_gaussian_and_with_one_is_worse() -> None:
    recipe = SmoothAdvTraining(sigma=0.3, noises=4, threat=L2.replace(eps=0.0), steps=1, step_size=1.0)
    plain = float(value(GaussianAugmentation(sigma=0.3, noises=4), Y)[0])
    assert float(value(recipe, Y)[0]) == pytest.approx(plain, rel=1e-6)
    assert float(value(recipe.replace(threat=L2), Y)[0]) > plain + 0.1
    moved = np.asarray(run(recipe.replace(threat=L2, sigma=0.0), Y, W, X)[2])[::4] - np.asarray(X)
    assert np.sqrt((moved**2).sum((1, 2))).max() <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("y", [Y, SOFT], ids=["classes", "distributions"])
def test_consistency(y: jax.Array) -> None:
    recipe = Consistency(sigma=0.5, noises=4, weight=4.0, entropy=0.7)
    z = logits_of(recipe)
    p = softmax(z, axis=-1)
    mean = p.mean(1)
    apart = np.mean(np.sum(mean[:, None] * (np.log(mean)[:, None] - np.log(p)), -1))
    entropy = -np.mean(np.sum(mean * np.log(mean), -1))
    found, metrics = value(recipe, y)
    assert float(found) == pytest.approx(mean_cross_entropy(z, y) + 4 * apart + 0.7 * entropy, rel=1e-5)
    assert float(metrics["smoothed_accuracy"]) == pytest.approx(np.mean(mean.argmax(1) == np.argmax(share(y), 1)))
    plain = recipe.replace(weight=0.0, entropy=0.0)
    assert float(value(plain, y)[0]) == pytest.approx(float(value(GaussianAugmentation(sigma=0.5, noises=4), y)[0]), rel=1e-6)


@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("y", [Y, SOFT], ids=["classes", "distributions"])
def test_macer(y: jax.Array, scale: float) -> None:
    recipe = MACER(sigma=0.5, noises=4, weight=6.0, margin=2.0, temperature=3.0)
    z = logits_of(recipe, w=scale * W)
    plain = -np.mean(np.sum(share(y) * np.log(softmax(z, axis=-1).mean(1)), -1))
    sharp, label = softmax(3 * z, axis=-1).mean(1), np.argmax(share(y), 1)
    others = np.where(np.eye(3, dtype=bool)[label], 0.0, sharp)
    xi = -norm.ppf(others.sum(1)) - norm.ppf(others.max(1))
    right = sharp.argmax(1) == label
    hinge = np.mean(np.where(right, np.maximum(0, 2 - xi), 0.0))
    found, metrics = value(recipe, y, scale * W)
    assert float(found) == pytest.approx(plain + 6 * 0.5 / 2 * hinge, rel=1e-4)
    assert float(metrics["soft_radius"]) == pytest.approx(0.25 * np.mean(np.where(right, np.maximum(xi, 0), 0)), rel=1e-4)
    assert right.any() != (scale < 1 and y.ndim == 2) and not right.all()


@jax.jit
def macer_slope(w: jax.Array, recipe: MACER, key: jax.Array) -> jax.Array:
    return jax.grad(lambda w: recipe.loss(NET.replace(params=w), X, Y, key)[0])(w)


def test_macer_has_gradients_for_sure_and_for_wrong_rows() -> None:
    recipe = MACER(sigma=0.1, noises=4)
    for scale in (1.0, 30.0, 1e3, 1e5):
        assert np.isfinite(np.asarray(macer_slope(scale * W, recipe, KEY))).all(), scale
    # the direction's derivative against central differences, in the float32 that it is computed in
    d, h = np.cos(np.arange(18.0, dtype=np.float32)).reshape(6, 3), 3e-3
    up, down = (float(value(recipe, Y, 0.3 * W + s * h * d)[0]) for s in (1, -1))
    assert np.vdot(np.asarray(macer_slope(0.3 * W, recipe, KEY)), d) == pytest.approx((up - down) / (2 * h), rel=0.02)


def test_macer_widens_the_radius() -> None:
    recipe, w = MACER(sigma=0.5, noises=4, weight=6.0, margin=4.0, temperature=4.0), W
    for key in jax.random.split(KEY, 40):
        w = w - 0.3 * macer_slope(w, recipe, key)
    before, after = (float(value(recipe, Y, v)[1]["soft_radius"]) for v in (W, w))
    assert after > before + 0.05


@pytest.mark.parametrize(
    "recipe", [CleanLogitPairing(sigma=0.5, noises=2, weight=0.3), LogitSqueezing(sigma=0.5, weight=0.3)], ids=lambda r: r.name
)
def test_pairing_and_squeezing_of_noised_rows(recipe: Any) -> None:
    loss, _, copies = run(recipe, Y[:5], W, X[:5])
    z = np.asarray(copies, np.float64).reshape(5, recipe.noises, 6) @ np.asarray(W, np.float64)
    pairs = np.mean(np.sum((z[:2] - z[2:4]) ** 2, -1))  # the last of an odd number has no partner
    term = pairs if isinstance(recipe, CleanLogitPairing) else np.mean(np.sum(z**2, -1))
    plain = mean_cross_entropy(z, Y[:5])
    assert float(loss) == pytest.approx(plain + 0.3 * term, rel=1e-5)
    assert float(value(recipe.replace(weight=0.0), Y[:5], x=X[:5])[0]) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    ("recipe", "other"),
    [
        (GaussianAugmentation(sigma=0.25, noises=4), {"sigma": 0.7}),
        (
            SmoothAdvTraining(sigma=0.25, noises=4, threat=L2, steps=1, step_size=1.0),
            {"sigma": 0.7, "threat": L2.replace(eps=0.1), "step_size": 0.5},
        ),
        (Consistency(sigma=0.25, noises=4), {"sigma": 0.7, "weight": 1.0, "entropy": 0.1}),
        (MACER(sigma=0.25, noises=4), {"sigma": 0.7, "weight": 1.0, "margin": 1.0, "temperature": 2.0}),
    ],
    ids=lambda r: getattr(r, "name", ""),
)
def test_numbers_do_not_retrace(recipe: Any, other: dict[str, Any]) -> None:
    recipe.check(NET, X)
    assert all(isinstance(getattr(recipe, word), str) for word in ("name", "summary", "cost", "source"))
    before, traced = float(value(recipe, Y)[0]), len(TRACED)
    assert float(value(recipe.replace(**other), Y)[0]) != before and len(TRACED) == traced


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x.reshape(len(x), -1))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


def test_statistics_follow_the_noised_rows() -> None:
    net, recipe = net_of(Normed(), x=X, key=KEY), SmoothAdvTraining(sigma=0.25, threat=L2, steps=1)
    found, rows = jax.jit(lambda r: (r.gradient(net, X, Y, KEYS, ()), r.prepare(net, X, Y, KEYS)))(recipe)
    mean = jax.tree.leaves(found.net.state)[0]
    np.testing.assert_allclose(np.asarray(mean), np.asarray(rows).reshape(-1, 6).mean(0) / 2, atol=1e-5)
    assert all(np.asarray(g).any() and np.isfinite(np.asarray(g)).all() for g in jax.tree.leaves(found.gradient))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (GaussianAugmentation(sigma=-0.1), "sigma=-0.1; it must be at least 0"),
        (GaussianAugmentation(sigma=0.1, noises=0), "noises=0; it must be at least 1"),
        (Consistency(sigma=0.1, noises=1), "noises=1; it must be at least 2"),
        (SmoothAdvTraining(sigma=0.1, threat=L2, steps=0), "steps=0"),
        (MACER(sigma=0.1, margin=-1.0), "margin=-1.0"),
        (LogitSqueezing(sigma=0.1, weight=-1.0), "weight=-1.0"),
    ],
)
def test_what_cannot_be_is_refused(recipe: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.check(NET, X)


def test_a_row_alone_has_no_partner() -> None:
    with pytest.raises(ValueError, match="clean-logit-pairing got 1 row at once"):
        CleanLogitPairing(sigma=0.1).objective(NET, X[:1], X[:1], Y[:1], KEYS[:1])
