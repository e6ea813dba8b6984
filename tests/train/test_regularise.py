"""Penalties around a recipe against float64 NumPy, their second-order gradients against finite differences, and what wrapping forwards."""

import os
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import jaxsec
from jaxsec.core import _rewrite, row_keys, static, struct
from jaxsec.train import PGDAT, FastAT, Standard, net_of
from jaxsec.train._pairing import AdversarialLogitPairing
from jaxsec.train._recipe import Recipe
from jaxsec.train._regularise import L1Penalty, L2Penalty, SpectralPenalty
from jaxsec.train._slopes import InputGradientPenalty, JacobianPenalty

KEY = jax.random.key(5)
X = jax.random.uniform(jax.random.key(1), (6, 5))
Y = jnp.array([0, 1, 2, 2, 1, 0])
SOFT = jax.nn.softmax(jax.random.normal(jax.random.key(2), (6, 3)))
PARAMS = {
    "w": jax.random.normal(jax.random.key(3), (5, 3)),
    "b": jnp.array([0.1, -0.2, 0.3]),
    "k": jax.random.normal(jax.random.key(4), (2, 2, 3, 4)),
}
LINF = jaxsec.LInf(eps=0.2, lo=-9.0, hi=9.0)
KEYS = row_keys(KEY, jnp.arange(6, dtype=jnp.uint32))
TRACED: list[str] = []


def affine(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"][None]


NET = net_of(affine, PARAMS)


@jax.jit
def value(recipe: Any, y: jax.Array = Y) -> tuple[jax.Array, Any]:
    TRACED.append(recipe.name)
    return recipe.loss(NET, X, y, KEY)


def wide(a: Any) -> np.ndarray:
    return np.asarray(a, np.float64)


def share(y: jax.Array) -> np.ndarray:
    return wide(y) if y.ndim == 2 else np.eye(3)[np.asarray(y)]


Z = wide(X) @ wide(PARAMS["w"]) + wide(PARAMS["b"])
W, KERNEL = wide(PARAMS["w"]), wide(PARAMS["k"])
LARGEST = [np.linalg.norm(m, 2) for m in (W, KERNEL.reshape(-1, 4))]
LARGEST_FIRST = [np.linalg.norm(m, 2) for m in (W, KERNEL.reshape(2, -1))]
PENALTIES = [
    (L1Penalty(recipe=Standard(), weight=0.3), np.abs(W).sum() + np.abs(KERNEL).sum()),
    (L2Penalty(recipe=Standard(), weight=0.3), ((W**2).sum() + (KERNEL**2).sum()) / 2),
    (SpectralPenalty(recipe=Standard(), weight=0.3, iterations=60), sum(s**2 for s in LARGEST) / 2),
    (SpectralPenalty(recipe=Standard(), weight=0.3, iterations=60, output_axis=0), sum(s**2 for s in LARGEST_FIRST) / 2),
    (InputGradientPenalty(recipe=Standard(), weight=0.3), np.mean(np.sum(((softmax(Z, axis=1) - share(Y)) @ W.T) ** 2, 1))),
    (JacobianPenalty(recipe=Standard(), weight=0.3, projections=None), (W**2).sum() / 2),
]


@pytest.mark.parametrize(("recipe", "expected"), PENALTIES, ids=lambda v: getattr(v, "name", ""))
def test_penalty(recipe: Any, expected: float) -> None:
    recipe.check(NET, X)
    plain = -np.mean(np.sum(share(Y) * log_softmax(Z, axis=1), 1))
    loss, metrics = value(recipe)
    traced = len(TRACED)
    assert float(metrics[recipe.name.replace("-", "_")]) == pytest.approx(expected, rel=1e-4)
    assert float(loss) == pytest.approx(plain + 0.3 * expected, rel=1e-4)
    assert float(value(recipe.replace(weight=0.0))[0]) == pytest.approx(plain, rel=1e-6) and len(TRACED) == traced


def test_input_gradient_of_labels_as_distributions() -> None:
    expected = np.mean(np.sum(((softmax(Z, axis=1) - share(SOFT)) @ W.T) ** 2, 1))
    assert float(value(PENALTIES[4][0], SOFT)[1]["input_gradient"]) == pytest.approx(expected, rel=1e-4)


def test_jacobian_estimate_is_unbiased_and_each_rows_own() -> None:
    recipe = JacobianPenalty(recipe=Standard(), weight=1.0, projections=2)
    x, y = jnp.repeat(X, 200, axis=0), jnp.repeat(Y, 200)
    keys = row_keys(KEY, jnp.arange(1200, dtype=jnp.uint32))
    ask = jax.jit(recipe.penalty)
    assert float(ask(NET, x, y, keys)) == pytest.approx((W**2).sum() / 2, rel=0.03)
    same = float(ask(NET, x, y, jnp.broadcast_to(keys[0], keys.shape)))
    assert abs(same / ((W**2).sum() / 2) - 1) > 0.03, "rows with one key draw one direction"


class Conv(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.softplus(nn.Conv(2, (3, 3), padding="VALID")(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(3)(x.reshape(len(x), -1))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3)(nn.tanh(nn.Dense(4)(x.reshape(len(x), -1))))


IMAGES = jax.random.uniform(jax.random.key(8), (3, 5, 5, 1))


@pytest.mark.parametrize(
    ("module", "recipe", "native"),
    [
        (Dense(), InputGradientPenalty(recipe=Standard(), weight=1.0), False),
        (Dense(), JacobianPenalty(recipe=Standard(), weight=1.0), False),
        (Conv(), InputGradientPenalty(recipe=Standard(), weight=1.0), False),
        (Conv(), InputGradientPenalty(recipe=Standard(), weight=1.0), True),
        (Conv(), JacobianPenalty(recipe=Standard(), weight=1.0), False),
    ],
    ids=["mlp-input-gradient", "mlp-jacobian", "conv-input-gradient", "conv-input-gradient-native", "conv-jacobian"],
)
def test_second_order_gradients(module: Any, recipe: Any, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if native:
        if not jaxsec._native.available():
            assert "JAXSEC_REQUIRE_NATIVE" not in os.environ, "this run must have the native code"
            pytest.skip("no native code")
        monkeypatch.setattr(_rewrite, "on_one_cpu", lambda: True)
    net = net_of(module, x=IMAGES, key=jax.random.key(9))
    keys = KEYS[:3]

    @jax.jit
    def penalty(params: Any) -> tuple[jax.Array, Any]:
        return jax.value_and_grad(lambda p: recipe.penalty(net.replace(params=p), IMAGES, Y[:3], keys))(params)

    leaves, tree = jax.tree.flatten(net.params)
    directions = [np.cos(np.arange(leaf.size) + i).reshape(leaf.shape).astype(np.float32) for i, leaf in enumerate(leaves)]
    for i in range(len(leaves)):  # each parameter by itself, so that none can make up for another
        d = directions[i] / np.linalg.norm(directions[i])

        def at(step: float, i: int = i, d: np.ndarray = d) -> float:
            moved = [np.asarray(leaf) + step * d if j == i else leaf for j, leaf in enumerate(leaves)]
            return float(penalty(jax.tree.unflatten(tree, moved))[0])

        h = 0.02
        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        found = float(np.vdot(np.asarray(jax.tree.leaves(penalty(net.params)[1])[i]), d))
        assert found == pytest.approx(slope, rel=0.01, abs=2e-4)


def test_spectral_gradient_is_sigma_times_the_singular_pair() -> None:
    recipe = PENALTIES[2][0]
    g = jax.jit(jax.grad(lambda p: recipe.penalty(NET.replace(params=p), X, Y, KEYS)))(PARAMS)
    u, s, v = np.linalg.svd(KERNEL.reshape(-1, 4))
    np.testing.assert_allclose(np.asarray(g["k"]).reshape(-1, 4), s[0] * np.outer(u[:, 0], v[0]), atol=2e-3)
    assert not np.asarray(g["b"]).any()
    zero = jax.jit(jax.grad(lambda p: recipe.penalty(NET.replace(params=p), X, Y, KEYS)))(jax.tree.map(jnp.zeros_like, PARAMS))
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(zero))


@struct
class Counting(Recipe):
    """A recipe that shows what is forwarded."""

    name: ClassVar[str] = "counting"

    threat: Any
    progress: Any = 0.0
    times: int = static(default=3)

    @property
    def replays(self) -> int:
        return self.times

    def at(self, progress: Any) -> Any:
        return self.replace(progress=progress)

    def begin(self, net: Any, x: jax.Array) -> Any:
        return {"began": x}

    def prepare(self, net: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> Any:
        return {"prepared": x + 1}

    def objective(self, net: Any, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> Any:
        return jnp.mean(prepared["prepared"]), {"seen": self.progress}, net


def test_everything_else_is_the_inner_recipes() -> None:
    recipe = L1Penalty(weight=0.0, recipe=L2Penalty(weight=0.0, recipe=Counting(threat=LINF)))
    recipe.check(NET, X)
    assert recipe.replays == 3 and recipe.threats == (LINF,) and not recipe.single_step
    assert L1Penalty(weight=0.0, recipe=FastAT(threat=LINF)).single_step
    assert float(recipe.scaled(0.5).threats[0].eps) == pytest.approx(0.1)
    assert recipe.begin(NET, X)["began"] is X
    loss, metrics, net = recipe.at(0.25).objective(NET, recipe.prepare(NET, X, Y, KEYS), X, Y, KEYS)
    assert float(loss) == pytest.approx(float(X.mean()) + 1, rel=1e-6) and net is NET
    assert metrics["seen"] == 0.25 and {"l1", "l2"} <= set(metrics)
    far = LINF.replace(lo=0.9)
    with pytest.raises(ValueError, match="lo"):
        L2Penalty(weight=0.1, recipe=Standard()).replace(recipe=Counting(threat=far)).check(NET, X)


@struct
class OwnGradient(Counting):
    """Moves in the pass that trains, as Free-AT does."""

    def gradient(self, net: Any, x: jax.Array, y: jax.Array, keys: jax.Array, carry: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            L2Penalty(weight=0.1, recipe=L1Penalty(weight=0.1, recipe=OwnGradient(threat=LINF))),
            "whose perturbation moves in the pass",
        ),
        (L2Penalty(weight=-0.1, recipe=Standard()), "weight=-0.1; it must be at least 0"),
        (SpectralPenalty(weight=0.1, recipe=Standard(), iterations=0), "iterations=0"),
        (SpectralPenalty(weight=0.1, recipe=Standard(), output_axis=1), "output_axis=1"),
        (JacobianPenalty(weight=0.1, recipe=Standard(), projections=0), "projections=0"),
        (AdversarialLogitPairing(threat=LINF, weight=-1.0), "weight=-1.0"),
    ],
)
def test_what_cannot_be_is_refused(recipe: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.check(NET, X)


@pytest.mark.parametrize("y", [Y, SOFT], ids=["classes", "distributions"])
def test_adversarial_logit_pairing(y: jax.Array) -> None:
    recipe = AdversarialLogitPairing(threat=LINF, weight=0.4, steps=1, step_size=1.0, start="clean")
    recipe.check(NET, X)
    worst = wide(X) + 0.2 * np.sign((softmax(Z, axis=1) - share(y)) @ W.T)
    z = worst @ W + wide(PARAMS["b"])
    halves = [-np.mean(np.sum(share(y) * log_softmax(v, axis=1), 1)) / 2 for v in (Z, z)]
    loss, metrics = value(recipe, y)
    assert float(metrics["pairing"]) == pytest.approx(np.mean(np.sum((Z - z) ** 2, 1)), rel=1e-4)
    assert float(loss) == pytest.approx(sum(halves) + 0.4 * float(metrics["pairing"]), rel=1e-5)
    traced = len(TRACED)
    at_rest = recipe.replace(weight=0.0, threat=LINF.replace(eps=0.0))
    assert float(value(at_rest, y)[0]) == pytest.approx(2 * halves[0], rel=1e-5) and len(TRACED) == traced


def test_a_penalty_flattens_an_adversarially_trained_net() -> None:
    inner = PGDAT(threat=LINF, steps=1)
    norms = []
    slope = jax.jit(jax.grad(lambda p, r: r.loss(NET.replace(params=p), X, Y, KEY)[0]))
    for weight in (0.0, 1.0):
        params, recipe = PARAMS, JacobianPenalty(recipe=inner, weight=weight)
        for _ in range(30):
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope(params, recipe))
        norms.append(float((params["w"] ** 2).sum()))
    assert norms[1] < 0.7 * norms[0], norms
