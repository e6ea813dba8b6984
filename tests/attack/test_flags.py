"""Evaluations that mislead are flagged; honest ones are not."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxsec
from jaxsec import AutoAttack, LInf, Square
from tests.attack.conftest import mlp, weights

KEY = jax.random.key(0)
QUICK = AutoAttack(steps=10, queries=60, targets=2)


def quantised(p, x):
    return mlp(p, jnp.round(x * 5) / 5)


def probabilities(p, x):
    return jax.nn.softmax(mlp(p, x))


def saturated(p, x):
    return 1e5 * mlp(p, x)


def looped(p, x):
    return mlp(p, jax.lax.fori_loop(0, 2, lambda i, v: v * 1.0, x))


def flags(fn, small, **kwargs):
    _, x, y = small
    r = jaxsec.attack(jaxsec.bind(fn, weights(0)), x, y, threat=LInf(eps=0.08, lo=0.0, hi=1.0), method=QUICK, key=KEY, **kwargs)
    return {f.name: f for f in r.flags}


def test_honest_model_has_no_alarm(small):
    found = flags(mlp, small)
    assert not [f for f in found.values() if f.severity == "error"], found
    assert "returned-inputs" in found and found["returned-inputs"].value <= 0.08 * (1 + 1e-6)


def test_quantised_input_is_flagged(small):
    found = flags(quantised, small)
    assert found["zero-gradients"].severity == "warning" and found["zero-gradients"].value == 1.0
    assert found["unbounded-attack-fails"].severity == "error"
    assert "round" in found["flat-operations"].message
    # Square sees no gradient and gets through
    assert found["black-box-beats-white-box"].severity == "error"


def test_probabilities_and_loops_are_flagged(small):
    assert "probabilities" in flags(probabilities, small, checks=False)
    assert "inner-loop" in flags(looped, small, checks=False)


def test_saturated_cross_entropy_is_flagged(small):
    assert flags(saturated, small, checks=False)["zero-gradients"].value > 0.5


def test_chance_accuracy_is_flagged(small):
    model, x, _ = small
    x = np.concatenate([x, x, x])
    y = np.arange(len(x)) % 5
    r = jaxsec.attack(model, x.astype(np.float32), y, threat=LInf(eps=0.01, lo=0.0, hi=1.0), method=Square(steps=3), key=KEY)
    assert "chance-accuracy" in {f.name for f in r.flags}


def test_checks_keep_to_max_rows(small):
    """A caller who bounds the batch bounds every program, the checks' own included."""
    model, x, y = small
    shapes = set()

    def watching(params, v):
        shapes.add(v.shape[0])
        return mlp(params, v)

    r = jaxsec.attack(
        jaxsec.bind(watching, model.params), x, y, threat=LInf(eps=1e-4, lo=0.0, hi=1.0), method=jaxsec.FGSM(), key=KEY,
        max_rows=2, checks=True,
    )  # fmt: skip
    assert max(shapes) <= 2 and "returned-inputs" in {f.name for f in r.flags}
