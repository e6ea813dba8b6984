"""Distillation against float64 NumPy, its adversaries step by step, and what distilling at a temperature hides from an attack."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

import jaxsec
from jaxsec.core import row_keys
from jaxsec.train import net_of
from jaxsec.train._distill import ARD, RSLAD, DefensiveDistillation
from jaxsec.train._temperature import TemperatureTraining, at_temperature

KEY = jax.random.key(5)
X = jax.random.uniform(jax.random.key(1), (6, 5))
Y = jnp.array([0, 1, 2, 2, 1, 0])
SOFT = jax.nn.softmax(jax.random.normal(jax.random.key(2), (6, 3)))
W, V = jax.random.normal(jax.random.key(3), (2, 5, 3))
LINF = jaxsec.LInf(eps=0.2, lo=-9.0, hi=9.0)
KEYS = row_keys(KEY, jnp.arange(6, dtype=jnp.uint32))


def linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params


NET, TEACHER = net_of(linear, W), jaxsec.bind(linear, V)
ONE = {"threat": LINF, "steps": 1, "step_size": 1.0, "start": "clean"}
ARD_ONE, RSLAD_ONE = ARD(teacher=TEACHER, **ONE, alpha=0.7, temperature=4.0), RSLAD(teacher=TEACHER, **ONE, alpha=0.7)


@jax.jit
def value(recipe: Any, y: jax.Array) -> tuple[jax.Array, Any, Any]:
    """(loss, metrics, what the adversary made)"""
    return *recipe.loss(NET, X, y, KEY), recipe.prepare(NET, X, y, KEYS)


def wide(a: Any) -> np.ndarray:
    return np.asarray(a, np.float64)


def share(y: jax.Array) -> np.ndarray:
    return wide(y) if y.ndim == 2 else np.eye(3)[np.asarray(y)]


def ce(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    return -np.sum(p * log_softmax(z, axis=1), 1)


def kl(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    p = softmax(of, axis=1)
    return np.sum(p * (np.log(p) - log_softmax(to, axis=1)), 1)


@pytest.mark.parametrize("y", [Y, SOFT], ids=["classes", "distributions"])
def test_teacher_and_student_of_defensive_distillation(y: jax.Array) -> None:
    z, t = wide(X) @ wide(W), wide(X) @ wide(V)
    for temperature in (1.0, 5.0):
        teacher = value(TemperatureTraining(temperature=temperature), y)[0]
        assert float(teacher) == pytest.approx(ce(z / temperature, share(y)).mean(), rel=1e-5)
        student = value(DefensiveDistillation(teacher=TEACHER, temperature=temperature), y)[0]
        assert float(student) == pytest.approx(ce(z / temperature, softmax(t / temperature, axis=1)).mean(), rel=1e-5)


@pytest.mark.parametrize("y", [Y, SOFT], ids=["classes", "distributions"])
def test_ard(y: jax.Array) -> None:
    x, w, v = wide(X), wide(W), wide(V)
    slope = (softmax(x @ w, axis=1) - share(y)) @ w.T
    worst = x + 0.2 * np.sign(slope)
    loss, _, prepared = value(ARD_ONE, y)
    np.testing.assert_allclose(np.asarray(prepared["worst"]), worst, atol=1e-5)
    expected = 0.3 * ce(x @ w, share(y)) + 0.7 * 16 * kl(x @ v / 4, worst @ w / 4)
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(value(ARD_ONE.replace(alpha=0.0), y)[0]) == pytest.approx(ce(x @ w, share(y)).mean(), rel=1e-5)


def test_rslad() -> None:
    x, w, v = wide(X), wide(W), wide(V)
    slope = (softmax(x @ w, axis=1) - softmax(x @ v, axis=1)) @ w.T
    worst = x + 0.2 * np.sign(slope)
    loss, metrics, prepared = value(RSLAD_ONE, Y)
    np.testing.assert_allclose(np.asarray(prepared["worst"]), worst, atol=1e-5)
    expected = 0.3 * kl(x @ v, x @ w) + 0.7 * kl(x @ v, worst @ w)
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(metrics["adversarial_accuracy"]) == pytest.approx(np.mean((worst @ w).argmax(1) == np.asarray(Y)))
    at_rest = RSLAD_ONE.replace(threat=LINF.replace(eps=0.0))
    assert float(value(at_rest, Y)[0]) == pytest.approx(kl(x @ v, x @ w).mean(), rel=1e-5)


@pytest.mark.parametrize("recipe", [DefensiveDistillation(teacher=TEACHER), ARD_ONE, RSLAD_ONE], ids=lambda r: r.name)
def test_the_teacher_is_fixed_and_traced(recipe: Any) -> None:
    traces = 0

    @jax.jit
    def both(recipe: Any) -> Any:
        nonlocal traces
        traces += 1

        def total(w: Any, v: Any) -> Any:
            return recipe.replace(teacher=TEACHER.replace(params=v)).gradient(NET.replace(params=w), X, Y, KEYS, ())

        return total(W, recipe.teacher.params), jax.grad(lambda v: total(W, v).loss)(recipe.teacher.params)

    recipe.check(NET, X)
    found, teachers = both(recipe)
    assert not np.asarray(teachers).any() and np.asarray(found.gradient).any()
    other = recipe.replace(teacher=jaxsec.bind(linear, V + 1.0 * jnp.eye(5, 3)))
    if hasattr(recipe, "threat"):
        other = other.replace(threat=LINF.replace(eps=0.3), alpha=0.4)
    assert float(both(other)[0].loss) != float(found.loss) and traces == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="teacher of 2 classes for a net of 3"):
        DefensiveDistillation(teacher=jaxsec.bind(linear, V[:, :2])).check(NET, X)
    with pytest.raises(ValueError, match=r"alpha=1.5; it must be from 0 to 1"):
        ARD_ONE.replace(alpha=1.5).check(NET, X)
    with pytest.raises(ValueError, match="statistics='none'"):
        RSLAD_ONE.replace(statistics="none").check(NET, X)
    with pytest.raises(ValueError, match="temperature=0"):
        TemperatureTraining(temperature=0.0).check(NET, X)


def test_a_temperature_divides_the_logits_of_any_model() -> None:
    model = at_temperature(jaxsec.core.tuned(TEACHER), 4.0)
    np.testing.assert_allclose(np.asarray(jax.jit(model)(X)), np.asarray(X @ V) / 4, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(model) == jax.tree.structure(at_temperature(TEACHER, 7.0)), "another temperature would retrace"


def mlp(params: Any, x: jax.Array) -> jax.Array:
    return jnp.maximum(x @ params["a"] + params["b"][None], 0) @ params["c"]


def test_distillation_hides_the_gradient_and_the_adaptive_attack_finds_it() -> None:
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = jnp.asarray(data.data[:600] / 16, jnp.float32), jnp.asarray(data.target[:600])
    keys = row_keys(KEY, jnp.arange(600, dtype=jnp.uint32))
    rule = optax.adam(0.02)

    def start(key: jax.Array) -> dict[str, jax.Array]:
        a, c = jax.random.split(key)
        return {"a": jax.random.normal(a, (64, 32)) / 8, "b": jnp.zeros(32), "c": jax.random.normal(c, (32, 10)) / 6}

    @jax.jit
    def trained(recipe: Any, key: jax.Array) -> Any:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            found = recipe.gradient(net_of(mlp, params), x, y, keys, ())
            updates, state = rule.update(found.gradient, state)
            return (optax.apply_updates(params, updates), state), None

        params = start(key)
        return jax.lax.scan(step, (params, rule.init(params)), length=400)[0][0]

    hot = 40.0
    teacher = jaxsec.bind(mlp, trained(TemperatureTraining(temperature=hot), jax.random.key(1)))
    student = jaxsec.bind(mlp, trained(DefensiveDistillation(teacher=teacher, temperature=hot), jax.random.key(2)))
    threat, method = jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0), jaxsec.PGD(steps=10, random_start=False)

    def broken(model: Any) -> float:
        found = jaxsec.attack(model, x[:200], y[:200], threat=threat, method=method, key=KEY)
        again = jnp.argmax(student(found.x), 1) != y[:200]
        assert float(jnp.mean(again == found.success)) > 0.99, "inputs that fool the divided logits fool the net"
        return float(found.success.mean())

    clean = float(jnp.mean(jnp.argmax(student(x[:200]), 1) == y[:200]))
    naive, adaptive = broken(student), broken(at_temperature(student, hot))
    assert clean > 0.95
    assert adaptive > naive + 0.25, (naive, adaptive)
