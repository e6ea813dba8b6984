"""`fit`: what it learns, that nothing depends on how it was run, and how it survives kills and numbers that are not finite."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_kit import LINF, blobs, mlp, trees_equal, weights

import jaxsec
from jaxsec import train
from jaxsec.train._step import train_step

X, Y = blobs(96)
RECIPE = train.PGDAT(threat=LINF, steps=3)
KEY = jax.random.key(0)


def run(recipe=RECIPE, data=(X, Y), key=KEY, **options):
    settings = {"epochs": 4, "batch_size": 16, "variables": weights(scale=0.3), "optimizer": ADAM} | options
    return train.fit(mlp, data, recipe=recipe, key=key, **settings)


ADAM = optax.adam(0.1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything on, never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(out=out, **FULL)


FULL = {"average": 0.9, "validation": 0.25, "augment": train.Chain(()), "epochs": 5, "save_every": 3}


def test_it_learns_robustly_and_says_what_it_did(whole):
    out, fit = whole
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(fit.history) == len(rows) == 5 and fit.stopped == "done" and fit.rollbacks == 0
    assert {"loss", "adversarial_accuracy", "gradient_norm", "eps", "validation_clean", "validation_robust"} <= set(rows[-1])
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert fit.history[fit.best_epoch]["validation_robust"] == max(row["validation_robust"] for row in rows) > 0.8
    found = jaxsec.attack(fit.model, X, Y, threat=LINF, method=jaxsec.PGD(steps=5), key=KEY)
    assert 1 - np.asarray(found.success).mean() > 0.8


def test_the_same_call_gives_the_same_bits_and_another_key_others():
    a, b, c = run(), run(), run(key=jax.random.key(1))
    assert trees_equal(a.net.params, b.net.params)
    assert not trees_equal(a.net.params, c.net.params)


def test_a_second_seed_another_eps_and_schedule_trace_nothing():
    run(epochs=1)
    before = train_step._cache_size()
    run(epochs=1, key=jax.random.key(5), variables=weights(3))
    run(epochs=1, recipe=RECIPE.replace(threat=jaxsec.LInf(eps=np.float32(0.05), lo=0.0, hi=1.0)))
    assert train_step._cache_size() == before


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [2, 7, 11])
def test_killed_anywhere_it_goes_on_exactly(whole, tmp_path, monkeypatch, after):
    calls = []

    def step(*args):
        calls.append(1)
        if len(calls) > after:
            raise Killed
        return train_step(*args)

    monkeypatch.setattr(train._loop, "train_step", step)
    with pytest.raises(Killed):
        run(out=tmp_path, **FULL)
    monkeypatch.setattr(train._loop, "train_step", lambda *args: (calls.append(1), train_step(*args))[1])
    calls.clear()
    fit = run(out=tmp_path, **FULL)
    assert 20 - after <= len(calls) <= 20 - after + 3  # at most save_every updates are done again; 4 a epoch, 5 epochs
    assert trees_equal(fit.net.params, whole[1].net.params)

    def told(history):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in history]

    assert told(fit.history) == told(whole[1].history)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert told(lines) == told(fit.history)


def test_a_finished_run_is_returned_and_another_is_refused(whole):
    out, fit = whole
    calls = train_step._cache_size()
    again = run(out=out, **FULL)
    assert trees_equal(again.net.params, fit.net.params) and train_step._cache_size() == calls
    for changed, said in (
        ({"recipe": RECIPE.replace(threat=jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0))}, "recipe's threat"),
        ({"key": jax.random.key(9)}, "key"),
        ({"data": (X + 0.001 * (X < 0.5), Y)}, "data"),
    ):
        with pytest.raises(ValueError, match=said):
            run(out=out, **{**FULL, **changed})


def test_parts_of_a_batch_add_up_to_the_batch():
    a, b = run(epochs=2), run(epochs=2, accumulate=4)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, atol=2e-4), a.net.params, b.net.params)
    with pytest.raises(ValueError, match="accumulate is 5"):
        run(accumulate=5)
    with pytest.raises(ValueError, match="carries a perturbation"):
        run(recipe=train.FreeAT(threat=LINF), accumulate=2)


def test_the_average_is_one():
    seen = []
    sgd = optax.sgd(0.1)

    def remember(state, *rest):
        new = train_step(state, *rest)
        seen.append((jax.tree.map(np.asarray, new[0].params), jax.tree.map(np.asarray, new[0].average[0])))
        return new

    train._loop.train_step = remember
    try:
        run(average=0.8, epochs=2, optimizer=sgd)
    finally:
        train._loop.train_step = train_step
    expected = weights(scale=0.3)
    for i, (params, average) in enumerate(seen):
        d = min(0.8, (1 + i) / (10 + i))
        expected = jax.tree.map(lambda e, p, d=d: e + (1 - d) * (p - e), expected, params)
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-5), average, expected)


def test_a_step_that_is_not_finite_is_taken_back():
    bad = X.copy()
    ticking = optax.chain(optax.scale_by_schedule(lambda step: jnp.where(step == 9, jnp.nan, -0.1)))
    with pytest.warns(RuntimeWarning, match="goes back to update 8, 2 updates are lost|goes back to update 8"):
        # the schedule's own count goes back as well, so it strikes again until the rollbacks are used up
        with pytest.raises(FloatingPointError, match="smaller learning rate"):
            run(data=(bad, Y), optimizer=ticking, save_every=4, max_rollbacks=2, epochs=6)


def test_after_a_rollback_training_goes_on_with_half_the_step(monkeypatch):
    struck = []

    def step(state, *rest):
        new, metrics = train_step(state, *rest)
        if int(new.step) == 10 and not struck:
            struck.append(1)
            return new.replace(bad=jnp.asarray(True)), {**metrics, "loss": jnp.float32(jnp.nan)}
        return new, metrics

    monkeypatch.setattr(train._loop, "train_step", step)
    with pytest.warns(RuntimeWarning, match="goes back to update 8"):
        fit = run(save_every=4, epochs=4)
    assert fit.rollbacks == 1 and fit.history[-1]["step"] == 24 and all(np.isfinite(row["loss"]) for row in fit.history)


def test_patience_and_the_best_weights():
    fit = run(epochs=30, validation=(X[:24], Y[:24]), patience=2, optimizer=optax.sgd(0.0))
    assert fit.stopped == "patience" and fit.best_epoch == 0 and len(fit.history) == 3


def test_catastrophic_overfitting_is_seen(monkeypatch):
    scores = iter([0.8, 0.7, 0.1])
    monkeypatch.setattr(
        train._validate.Validation, "__call__", lambda self, model: {"validation_clean": 1.0, "validation_robust": next(scores)}
    )
    with pytest.warns(RuntimeWarning, match="catastrophic overfitting in epoch 2"):
        fit = run(recipe=train.FastAT(threat=LINF), validation=(X[:24], Y[:24]), epochs=6)
    assert fit.stopped == "catastrophic overfitting" and fit.best_epoch == 0


def test_free_at_replays_each_batch():
    fit = run(recipe=train.FreeAT(threat=LINF, repeat=3), epochs=2)
    assert fit.history[-1]["step"] == 36


def test_other_sources_of_batches():
    batches = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 96, 16)]
    a = run(data=batches)
    b = run(data=lambda epoch: iter(batches), steps_per_epoch=6)
    c = run(data=[{"image": x, "label": y} for x, y in batches])
    assert trees_equal(a.net.params, b.net.params) and trees_equal(a.net.params, c.net.params)
    with pytest.raises(ValueError, match="ended after 6 of steps_per_epoch=7"):
        run(data=lambda epoch: iter(batches), steps_per_epoch=7)


def test_grain_datasets_train():
    grain = pytest.importorskip("grain")
    rows = grain.MapDataset.range(96).shuffle(seed=1).map(lambda i: (X[i], Y[i])).batch(16)
    fit = run(data=rows)
    assert fit.history[-1]["step"] == 24 and fit.history[-1]["loss"] < fit.history[0]["loss"]
    assert trees_equal(fit.net.params, run(data=rows).net.params)


def test_bytes_count_in_255ths():
    whole = np.round(X * 255).astype(np.uint8)
    a, b = run(data=(whole, Y), epochs=1), run(data=(whole.astype(np.float32) * np.float32(1 / 255), Y), epochs=1)
    assert trees_equal(a.net.params, b.net.params)


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboardX")
    run(out=tmp_path, tensorboard=True, epochs=1)
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"recipe": train.PGDAT}, TypeError, "the class PGDAT"),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"batch_size": 200}, ValueError, "batch_size is 200"),
        ({"average": 1.0}, ValueError, "average is 1.0"),
        ({"validation": 1.5}, ValueError, "validation is 1.5"),
        ({"data": (X, Y + 1)}, ValueError, "labels go from 1 to 3"),
        ({"data": (X, Y[:5])}, ValueError, "shape"),
        ({"data": (X.astype(int), Y)}, TypeError, "dtype int"),
        ({"data": 3}, TypeError, "data is int"),
        ({"data": lambda e: iter(())}, ValueError, "steps_per_epoch"),
        ({"optimizer": 0.1}, TypeError, "optimizer is float"),
        ({"recipe": train.PGDAT(threat=jaxsec.LInf(eps=-1.0))}, ValueError, "-1"),
        ({"data": (X + 2, Y)}, ValueError, "box|range"),
        ({"tensorboard": True}, ValueError, "pass out="),
    ],
)
def test_mistakes_are_named(options, error, said):
    with pytest.raises(error, match=said):
        run(**options)


def test_no_warning_of_its_own():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(epochs=1)
