"""Evaluations that mislead are flagged; honest ones are not."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxsec
from jaxsec import AutoAttack, LInf, Square
from jaxsec.attack import _masking
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


def test_one_step_is_not_told_to_take_more(small):
    model, x, y = small
    r = jaxsec.attack(model, x, y, threat=LInf(eps=0.02, lo=0.0, hi=1.0), method=jaxsec.FGSM(), key=KEY)
    assert "incomplete-optimisation" not in {f.name for f in r.flags} and not np.asarray(r.rising).any()


def test_more_steps_help_only_where_chance_does_not_explain_it(monkeypatch):
    """19 rows, 7 broken by few steps: two more say nothing, six more do, and so do six of sixty-four."""
    for rows, many, flagged in ((19, 9, False), (19, 11, False), (19, 13, True), (64, 13, True)):
        hits = {_masking.SHORT: np.arange(rows) < 7, _masking.LONG: np.arange(rows) < many}
        monkeypatch.setattr(_masking, "_attack", lambda run, rows, method, hits=hits: hits[method.steps])
        assert bool(_masking._more_steps(None, np.arange(rows))) == flagged, (rows, many)


def test_reference_mode_counts_no_zero_gradient_where_a_row_is_wrong_already(small):
    """It goes on after a success, where the untargeted DLR of a label ranked third is 1 whatever the input."""
    _, x, y = small
    r = jaxsec.attack(
        jaxsec.bind(mlp, weights(0)), x, y, threat=LInf(eps=0.5, lo=0.0, hi=1.0), method=jaxsec.APGD(steps=20, loss="dlr", reference=True),
        key=KEY, progress=False,
    )  # fmt: skip
    assert np.asarray(r.success).all() and not np.asarray(r.zero_gradients).any()
