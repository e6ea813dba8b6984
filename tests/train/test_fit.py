"""`fit`: what it learns, that nothing depends on how it was run, and how it survives kills and numbers that are not finite."""

import json
import pathlib
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_kit import LINF, blobs, mlp, trees_equal, weights

import jaxsec
from jaxsec import train
from jaxsec.core import static, struct
from jaxsec.train._identity import _said as told
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
        ({"variables": weights(4, scale=0.3)}, "net"),
        ({"optimizer": optax.adam(0.05)}, "optimizer"),
        ({"average": 0.8}, "average"),
        ({"validate_every": 2}, "validate_every"),
        ({"patience": 4}, "patience"),
    ):
        with pytest.raises(ValueError, match=said):
            run(out=out, **{**FULL, **changed})


def test_a_checkpoint_that_was_changed_does_not_count(tmp_path, caplog):
    whole, folder = run(out=tmp_path), tmp_path / "checkpoints"
    newest, older = sorted(folder.iterdir(), key=lambda p: -int(p.name))
    stored = max((newest / "state").rglob("d/*"), key=lambda p: p.stat().st_size)
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with (
        caplog.at_level("INFO", logger="jaxsec.train"),
        pytest.warns(RuntimeWarning, match=f"{newest.name} is damaged .*from update {older.name}"),
    ):
        again = run(out=tmp_path)
    assert trees_equal(again.net.params, whole.net.params) and "going on: 3 epochs done" in caplog.text
    assert (tmp_path / "checkpoints.damaged" / newest.name / "state").is_dir()  # nothing is deleted
    before = {p.name for p in folder.iterdir()}
    (newest / ".DS_Store").write_text("what others add is no damage")
    (newest / "seal.json").unlink()  # as after a kill between the checkpoint and its seal
    assert run(out=tmp_path).best_epoch == whole.best_epoch and {p.name for p in folder.iterdir()} == before
    next((newest / "record").iterdir()).write_text("{")
    with pytest.raises(ValueError, match=f"{newest.name} cannot be read .*resume=False"):  # no seal says that it is not another version's
        run(out=tmp_path)
    for name in (newest, older):
        (name / "seal.json").write_text("{")
    with pytest.raises(ValueError, match=rf"every checkpoint in .* is damaged \({newest.name}: .*; {older.name}: .*resume=False"):
        run(out=tmp_path)
    assert {p.name for p in folder.iterdir()} == before


def test_damage_is_moved_only_in_a_run_that_goes_on_and_nothing_is_deleted(tmp_path):
    run(out=tmp_path)
    folder, aside = tmp_path / "checkpoints", tmp_path / "checkpoints.damaged"
    newest, older = sorted((p.name for p in folder.iterdir()), key=int, reverse=True)
    for again in range(2):
        (folder / newest / "seal.json").unlink()
        (folder / newest / "seal.json").mkdir()  # whatever it is, it is not the seal
        with pytest.raises(ValueError, match="differs in key"):
            run(out=tmp_path, key=jax.random.key(9))
        assert (folder / newest).is_dir() and len(list(aside.glob("*"))) == again
        with pytest.warns(RuntimeWarning, match=f"{newest} is damaged .*from update {older}"):
            run(out=tmp_path)
    assert sorted(p.name for p in aside.iterdir()) == [newest, f"{newest}.2"]
    (folder / newest / "seal.json").unlink()
    shutil.rmtree(folder / newest / "record")
    with pytest.raises(ValueError, match=f"{newest} cannot be read .*resume=False"):
        run(out=tmp_path)


def test_nets_and_boxes_that_differ_in_order_only_are_others(tmp_path):
    teacher, other = (jaxsec.bind(mlp, jax.tree.map(lambda v, s=s: v[::s], weights(3))) for s in (1, -1))
    kept = {"epochs": 1, "out": tmp_path}
    run(train.ARD(teacher=teacher, threat=LINF, steps=1), **kept)
    with pytest.raises(ValueError, match="recipe's teacher"):
        run(train.ARD(teacher=other, threat=LINF, steps=1), **kept)
    with pytest.raises(ValueError, match="differs in net"):
        train.fit(
            lambda_free, (X, Y), recipe=train.ARD(teacher=teacher, threat=LINF, steps=1), key=KEY, batch_size=16,
            variables=weights(scale=0.3), optimizer=ADAM, **kept,
        )  # fmt: skip


def test_tables_and_closures_that_differ_are_other_runs(tmp_path):
    """Arrays that functions close over are in no program's text."""

    def table(rate):
        rates = jnp.full(4, rate)
        return optax.sgd(lambda count: rates[jnp.minimum(count, 3)])

    def brighter(by):
        return lambda keys, x: jnp.clip(x + jnp.full(x.shape[1:], by)[None], 0, 1)

    plain = {"recipe": train.Standard(), "epochs": 1}
    run(out=tmp_path / "a", optimizer=table(0.1), **plain)
    run(out=tmp_path / "a", optimizer=table(0.1), **plain)
    with pytest.raises(ValueError, match="differs in optimizer"):
        run(out=tmp_path / "a", optimizer=table(9.0), **plain)
    run(out=tmp_path / "b", augment=brighter(0.0), **plain)
    run(out=tmp_path / "b", augment=brighter(0.0), **plain)
    with pytest.raises(ValueError, match="differs in augment"):
        run(out=tmp_path / "b", augment=brighter(0.5), **plain)


def test_a_mask_of_infinities_stays_and_the_net_learns():
    def attention(params, x):
        where = jax.nn.softmax(x @ params["q"] + jax.lax.stop_gradient(params["mask"])[None])
        return (where * x) @ params["w"]

    mask = jnp.where(jnp.arange(X.shape[1]) == 0, -jnp.inf, 0.0)
    params = {"q": jnp.eye(X.shape[1]), "mask": mask, "w": 0.1 * jnp.ones((X.shape[1], 3))}
    fit = train.fit(
        attention, (X, Y), variables=params, recipe=train.Standard(), key=KEY, batch_size=16, epochs=3, optimizer=optax.adam(0.1),
        average=0.9,
    )  # fmt: skip
    assert fit.rollbacks == 0 and np.array_equal(fit.net.params["mask"], mask)
    assert np.isfinite(fit.net.params["w"]).all() and fit.history[-1]["loss"] < fit.history[0]["loss"]


def test_a_class_that_the_net_excludes_costs_nothing():
    def excluding(params, x):
        z = x @ params
        return jnp.concatenate([z, jnp.full((len(x), 1), -jnp.inf)], axis=1)

    fit = train.fit(excluding, (X, Y), variables=jnp.zeros((X.shape[1], 3)), recipe=train.Standard(), key=KEY, batch_size=16, epochs=1)
    assert fit.rollbacks == 0 and np.isfinite(fit.history[-1]["loss"])


def lambda_free(params, x):
    return jax.nn.relu(x @ params["a"]) @ params["b"] + params["c"][None]


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import jax, jaxsec
from jaxsec import train
from train_kit import LINF, blobs, mlp, weights

def noise(keys, x):
    return x

recipe = train.ARD(teacher=jaxsec.bind(mlp, weights(3)), threat=LINF, steps=1)
train.fit(mlp, blobs(32), recipe=recipe, key=jax.random.key(0), variables=weights(), batch_size=16, epochs=1, out={out!r},
          augment=train.Chain((noise,)), progress=False)
"""


def test_a_new_process_finds_the_run_again(tmp_path):
    """Functions among the arguments have other addresses there."""
    script = SCRIPT.format(tests=str(pathlib.Path(__file__).parent), out=str(tmp_path))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


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


@pytest.mark.parametrize("where", ["params", "optimizer"])
def test_weights_and_moments_that_are_not_finite_count_as_well(where):
    """A loss and a gradient may be finite while the update is not; nothing of it is kept."""

    def broken(updates, state, params=None):
        strike = jnp.where(state == 9, jnp.nan, 0.0)
        sent = jax.tree.map(lambda u: -0.1 * u + (strike if where == "params" else 0.0), updates)
        return sent, state + 1 + (strike if where == "optimizer" else 0.0)

    rule = optax.GradientTransformation(lambda params: jnp.zeros(()), broken)
    with pytest.warns(RuntimeWarning, match="goes back to update 8"), pytest.raises(FloatingPointError, match="after 2 rollbacks"):
        run(optimizer=rule, save_every=4, max_rollbacks=2)


def test_after_a_rollback_training_goes_on_with_half_the_step(monkeypatch):
    struck, before = [], []

    def step(state, *rest):
        new, metrics = train_step(state, *rest)
        if int(state.step) == 8:
            before.append((state, new))
        if int(new.step) == 10 and not struck:
            struck.append(1)
            return new.replace(bad=jnp.asarray(True)), {**metrics, "loss": jnp.float32(jnp.nan)}
        return new, metrics

    monkeypatch.setattr(train._loop, "train_step", step)
    with pytest.warns(RuntimeWarning, match="goes back to update 8"):
        fit = run(save_every=4, epochs=4, recipe=train.Standard(), optimizer=optax.sgd(0.1), augment=shaken)
    (old, first), (again, second) = before
    assert trees_equal(old.params, again.params) and (int(second.attempt), float(second.scale)) == (1, 0.5)
    # other draws, and half the step: what the same batch does to the weights is no longer the same, and about half as long
    changes = [jax.tree.map(jnp.subtract, new.params, old.params) for new in (first, second)]
    moved = [jnp.concatenate([v.ravel() for v in jax.tree.leaves(change)]) for change in changes]
    half = float(jnp.linalg.norm(moved[1]) / jnp.linalg.norm(moved[0]))
    assert 0.4 < half < 0.6 and not np.allclose(moved[1], 0.5 * moved[0], rtol=1e-3)
    assert fit.rollbacks == 1 and fit.history[-1]["step"] == 24 and all(np.isfinite(row["loss"]) for row in fit.history)


def shaken(keys, x):
    return jnp.clip(x + 0.05 * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys), 0, 1)


def test_a_batch_that_is_replayed_is_the_same_batch_also_after_a_kill(tmp_path, monkeypatch):
    free = {"recipe": train.FreeAT(threat=LINF, repeat=3), "augment": shaken, "epochs": 2, "save_every": 4}
    seen = []

    def step(state, recipe, x, y, key, *rest):
        new, metrics = train_step(state, recipe, x, y, key, *rest)
        seen.append(np.asarray(x))
        if len(seen) == 7:
            raise Killed
        return new, metrics

    monkeypatch.setattr(train._loop, "train_step", step)
    with pytest.raises(Killed):
        run(out=tmp_path, **free)
    fit = run(out=tmp_path, **free)
    monkeypatch.setattr(train._loop, "train_step", train_step)
    assert trees_equal(fit.net.params, run(**free).net.params)
    order = [0, 0, 0, 1, 1, 1, 2, *[1, 1, 2, 2, 2, 3]]  # killed in update 6, gone on from the checkpoint at 4, in the middle of batch 1
    assert all(np.array_equal(seen[i], seen[order.index(b)]) for i, b in enumerate(order))
    augmented = [np.asarray(_augmented(step, free["recipe"].replays)) for step in range(6)]
    assert all(np.array_equal(augmented[0], augmented[i]) for i in (1, 2)) and not np.array_equal(augmented[0], augmented[3])


def _augmented(step, replays):
    """The rows that a step sees: what it augments with depends on the batch's number, not on the update's."""
    state = train._step.first_state(train.net_of(mlp, weights()), setting(), train.Standard(), jnp.asarray(X[:4]))
    recipe = _Watched(repeat=replays)
    _, metrics = train_step(state.replace(step=jnp.int32(step)), recipe, X[:4], Y[:4], KEY, jnp.float32(9), jnp.float32(0), setting())
    return metrics["first"]


def setting():
    return train._step.Setting(program=train.net_of(mlp, weights()).program, optimizer=ADAM, augment=shaken)


@struct
class _Watched(train.Standard):
    repeat: int = static(default=1)

    @property
    def replays(self):
        return self.repeat

    def objective(self, net, prepared, x, y, keys):
        loss, metrics, net = train.Standard.objective(self, net, prepared, x, y, keys)
        return loss, {**metrics, "first": jnp.sum(x[0])}, net


def test_only_one_step_adversaries_end_in_a_catastrophe(monkeypatch):
    scores = iter([0.8, 0.1, 0.1])
    told = {"validation_clean": 1.0}
    monkeypatch.setattr(train._validate.Validation, "__call__", lambda self, model: {**told, "validation_robust": next(scores)})
    assert run(validation=(X[:24], Y[:24]), epochs=3).stopped == "done"


def test_rows_held_out_leave_the_others_on_their_mesh(devices):
    mesh = jax.sharding.Mesh(np.asarray(devices), ("batch",))
    placed = [jax.device_put(a, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))) for a in (X, Y)]
    fit = run(data=tuple(placed), validation=0.2, epochs=1)
    assert all(len(v.sharding.device_set) == 8 for v in jax.tree.leaves(fit.net.params))


def test_meshes_that_rows_do_not_fill_are_named(devices):
    mesh = jax.sharding.Mesh(np.asarray(devices), ("batch",))
    placed = [jax.device_put(a, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))) for a in (X, Y)]
    with pytest.raises(ValueError, match="batch_size is 12 and the rows lie in 8 shards; take a multiple of 8"):
        run(data=tuple(placed), batch_size=12)
    with pytest.raises(ValueError, match=r"validation is 0.2 of 8 rows on 8 devices"):
        run(data=tuple(v[:8] for v in placed), validation=0.2, batch_size=8)


def test_random_nets_and_sets_that_pgd_does_not_take_are_validated():
    def noisy(params, x, key):
        return mlp(params, x + 0.01 * jax.random.normal(key, x.shape))

    net = train.net_of(jaxsec.bind(noisy, weights(scale=0.3), stochastic=True))
    fit = train.fit(net, (X, Y), recipe=RECIPE, key=KEY, epochs=3, batch_size=16, optimizer=ADAM, validation=0.25)
    assert fit.history[-1]["validation_clean"] >= fit.history[-1]["validation_robust"] > 0.5
    few = train.IBPTraining(threat=jaxsec.threat.L0(eps=1, lo=0.0, hi=1.0))
    last = run(few, epochs=1, validation=0.25).history[-1]
    assert "validation_certified" in last and "validation_robust" not in last
    with pytest.raises(ValueError, match="pgd does not support the threat 'l0'"):
        run(few, epochs=1, validation=0.25, validation_attack=jaxsec.PGD(steps=2))


def test_what_is_wrapped_around_a_deep_teacher_is_told_apart():
    """The text of such a recipe is long, and the class of the threat stands at its end."""
    teacher = jaxsec.bind(lambda p, x: x @ p["layer 0"]["kernel"], {f"layer {i}": {"kernel": jnp.eye(3)} for i in range(100)})
    by_linf, by_l2 = (
        train.Curriculum(recipe=train.ARD(teacher=teacher, threat=norm(eps=0.5, lo=0.0, hi=1.0))) for norm in (jaxsec.LInf, jaxsec.L2)
    )
    assert told(by_linf) != told(by_l2) and told(by_linf) == told(by_linf.replace())


def test_weak_types_compile_nothing_more():
    strong = {**weights(), "vector": jnp.ones(3), "scale": jnp.ones(())}
    weak = {**strong, "vector": jnp.zeros(3) + jnp.asarray(1.0), "scale": jnp.asarray(1.0)}
    assert weak["scale"].weak_type and not strong["scale"].weak_type
    before = train_step._cache_size()
    run(epochs=1, variables=weak)
    assert train_step._cache_size() == before + 1, "the steps after the first"
    run(epochs=1, variables=strong)
    assert train_step._cache_size() == before + 1


def test_patience_and_the_best_weights():
    fit = run(epochs=30, validation=(X[:24], Y[:24]), patience=2, optimizer=optax.sgd(0.0))
    assert fit.stopped == "patience" and fit.best_epoch == 0 and len(fit.history) == 3


def scored(monkeypatch, *values):
    scores = iter(values)
    monkeypatch.setattr(
        train._validate.Validation, "__call__", lambda self, model: {"validation_clean": 1.0, "validation_robust": next(scores)}
    )
    return run(recipe=train.FastAT(threat=LINF), validation=(X[:24], Y[:24]), epochs=len(values))


def test_catastrophic_overfitting_is_seen(monkeypatch):
    with pytest.warns(RuntimeWarning, match="catastrophic overfitting after 3 epochs"):
        fit = scored(monkeypatch, 0.8, 0.7, 0.1, 0.1)
    assert fit.stopped == "catastrophic overfitting" and fit.best_epoch == 0


def test_a_net_that_has_hardly_begun_does_not_overfit(monkeypatch):
    fit = scored(monkeypatch, 0.13, 0.06, 0.5, 0.4)
    assert fit.stopped == "done" and fit.best_epoch == 2


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
        ({"recipe": train.PGDAT(threat="linf")}, TypeError, r"pgd-at got threat='linf'; a threat such as jaxsec.LInf"),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"epochs": 1.5}, TypeError, "epochs is 1.5"),
        ({"batch_size": 32.5}, TypeError, "batch_size is 32.5"),
        ({"max_rollbacks": -1}, ValueError, "max_rollbacks is -1"),
        ({"validation": "tenth"}, TypeError, "validation is str"),
        ({"validation": (X, Y, Y)}, ValueError, "validation has 3 parts"),
        ({"optimizer": optax.adam}, TypeError, r"optax.adam\(1e-3\)"),
        ({"batch_size": 200}, ValueError, "batch_size is 200"),
        ({"average": 1.0}, ValueError, "average is 1.0"),
        ({"validation": 1.5}, ValueError, "validation is 1.5"),
        ({"data": (X, Y + 1)}, ValueError, "labels from 1 to 3"),
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


def test_validation_rows_may_be_named():
    a, b = (run(epochs=1, validation=rows).history for rows in ((X[:24], Y[:24]), {"x": X[:24], "y": Y[:24]}))
    assert a[0]["validation_robust"] == b[0]["validation_robust"]


def test_rows_without_an_answer_are_not_robust():
    """A model that says NaN is attacked by nobody, and certified <= robust <= clean holds all the same."""
    from jaxsec.train._rows import Rows
    from jaxsec.train._validate import validation_of

    def half(params, x):
        return jnp.where(x[:, :1] > 0.5, jnp.nan, x @ params)

    judge = validation_of((X[:32], Y[:32]), RECIPE, None, KEY, Rows(3, RECIPE.threats), X.shape[1:])
    assert judge is not None
    found = judge(train.net_of(half, jnp.ones((X.shape[1], 3))))
    assert found["validation_robust"] <= found["validation_clean"] <= np.mean(X[:32, 0] <= 0.5) < 1
