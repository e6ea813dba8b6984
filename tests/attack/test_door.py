"""The front door: refusals, status, resume, targets, few classes, stochastic models, the traced path."""

import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec import APGD, FAB, PGD, AutoAttack, LInf, Square, Status
from tests.attack.conftest import ROWS, SHAPE, mlp, weights

KEY = jax.random.key(0)
EPS = 0.08


def ball(eps=EPS):
    return LInf(eps=eps, lo=0.0, hi=1.0)


REFUSED = {
    "labels out of range": ({"y": np.full(ROWS, 9)}, ValueError, "0 to 4"),
    "labels from one": ({"y": np.arange(ROWS) % 5 + 1}, ValueError, "start at 1"),
    "label count": ({"y": np.zeros(3, int)}, ValueError, "shape"),
    "float labels": ({"y": np.zeros(ROWS)}, TypeError, "integer"),
    "integer inputs": ({"x": np.zeros((ROWS, *SHAPE), np.uint8)}, TypeError, "255"),
    "NaN": ({"x": np.full((ROWS, *SHAPE), np.nan, np.float32)}, ValueError, "NaN"),
    "outside the box": ({"x": np.full((ROWS, *SHAPE), 2.0, np.float32)}, ValueError, "box|lo|hi"),
    "wrong shape": ({"x": np.zeros((ROWS, 1, 5, 5), np.float32)}, ValueError, "shape"),
    "negative eps": ({"threat": ball(-1.0)}, ValueError, "eps"),
    "eps per row of another batch": ({"threat": ball(np.full(3, 0.1))}, ValueError, "eps"),
    "a seed for a key": ({"key": 0}, TypeError, "key"),
    "no method": ({"method": "pgd"}, TypeError, "method"),
    "unknown loss": ({"method": PGD(loss="hinge")}, ValueError, "loss"),
    "no steps": ({"method": PGD(steps=0)}, ValueError, "steps"),
    "unknown version": ({"method": AutoAttack(version="fast")}, ValueError, "version"),
    "unknown schedule": ({"method": PGD(schedule="exp")}, ValueError, "schedule"),
    "row ids": ({"row_ids": [1]}, ValueError, "row_ids"),
    "max_rows": ({"max_rows": 0}, ValueError, "max_rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_a_remedy(name, small):
    model, x, y = small
    change, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        jaxsec.attack(**({"model": model, "x": x, "y": y, "threat": ball(), "method": PGD(steps=2), "key": KEY} | change))


def test_square_refuses_what_is_no_image():
    model = jaxsec.bind(mlp, weights(0))
    with pytest.raises(ValueError, match="images"):
        jaxsec.attack(model, np.full((2, 36), 0.5, np.float32), np.zeros(2, int), threat=ball(), method=Square(steps=5), key=KEY)


def test_empty_batch(small):
    model, x, y = small
    r = jaxsec.attack(model, x[:0], y[:0], threat=ball(), method=PGD(steps=2), key=KEY)
    assert r.x.shape == (0, *SHAPE) and r.success.shape == (0,)


def test_eps_zero_returns_clean_inputs(small):
    model, x, y = small
    r = jaxsec.attack(model, x, y, threat=ball(0.0), method=APGD(steps=8), key=KEY)
    np.testing.assert_array_equal(np.asarray(r.x), x)
    assert np.asarray(r.success).sum() == 1 and r.status[2] == Status.WRONG_BEFORE


def nan_on_row(p, x):
    return mlp(p, x) + jnp.where(x.reshape(x.shape[0], -1)[:, :1] > 0.999, jnp.nan, 0.0)


def test_rows_with_nan_logits_are_set_aside(small):
    _, x, y = small
    x = x.copy()
    x[4, 0, 0, 0] = 1.0
    r = jaxsec.attack(jaxsec.bind(nan_on_row, weights(0)), x, y, threat=ball(), method=PGD(steps=3), key=KEY)
    assert r.status[4] == Status.NONFINITE and not r.success[4]
    assert "nonfinite-logits" in {f.name for f in r.flags}


def test_targeted_goal_reaches_the_target(small):
    model, x, y = small
    target = (y + 2) % 5
    for method in (PGD(steps=20), APGD(steps=20), FAB(steps=50), Square(steps=150)):
        r = jaxsec.attack(model, x, target, threat=ball(0.4), method=method, key=KEY, targeted=True)
        assert np.asarray(r.success).mean() > (0.9 if method.needs_gradient else 0.3)
        hit = np.asarray(jax.jit(model)(r.x)).argmax(axis=1)[np.asarray(r.success)]
        assert np.array_equal(hit, target[np.asarray(r.success)])


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_fall_back_and_say_so(classes, small):
    _, x, _ = small
    model = jaxsec.bind(mlp, weights(5, classes))
    y = np.asarray(jax.jit(model)(jnp.asarray(x)).argmax(axis=1)).astype(np.int32)
    r = jaxsec.attack(model, x, y, threat=ball(0.3), method=AutoAttack(steps=5, queries=10), key=KEY, checks=False)
    said = " ".join(f.message for f in r.flags if f.name == "fallback")
    assert "APGD-T" in said and "classes" in said
    assert np.asarray(r.success).sum() > 0


def noisy(p, x, key):
    return mlp(p, x) + 0.05 * jax.random.normal(key, (x.shape[0], 5))


def test_stochastic_model_is_attacked_over_draws_and_detected(small):
    _, x, y = small
    model = jaxsec.bind(noisy, weights(0), stochastic=True)
    r = jaxsec.attack(model, x, y, threat=ball(0.3), method=AutoAttack(version="rand", steps=6, draws=4), key=KEY, checks=False)
    names = {f.name: f.severity for f in r.flags}
    assert names.get("randomised") == "info"
    assert np.asarray(r.success).mean() > 0.5
    low = jaxsec.attack(model, x, y, threat=ball(0.001), method=AutoAttack(version="rand", steps=6, draws=4), key=KEY, checks=False)
    standing = np.asarray(low.status) == Status.ROBUST
    # clean pass of 20 draws (never fewer), then two stages of 7 evaluations of 4 draws, each with one verdict of 20
    assert standing.any() and (np.asarray(low.queries)[standing] == 20 + 2 * (7 * 4 + 20)).all()
    lone = jaxsec.attack(model, x, y, threat=ball(), method=PGD(steps=2), key=KEY)
    assert {f.name: f.severity for f in lone.flags}["randomised"] == "warning"


def test_traced_attack_agrees_with_the_eager_one(small):
    model, x, y = small

    @jax.jit
    def traced(model, x, y, key, eps):
        return jaxsec.attack(model, x, y, threat=ball(eps), method=PGD(steps=5, restarts=2), key=key)

    a = traced(model, jnp.asarray(x), jnp.asarray(y), KEY, 0.08)
    b = jaxsec.attack(model, x, y, threat=ball(0.08), method=PGD(steps=5, restarts=2), key=KEY)
    for name in ("success", "first_step", "queries", "gradients", "stage", "status"):
        assert np.array_equal(np.asarray(getattr(a, name)), np.asarray(getattr(b, name))), name
    np.testing.assert_allclose(np.asarray(a.x), np.asarray(b.x), atol=2e-5)


def test_more_restarts_never_lose_a_success(small):
    model, x, y = small
    few = jaxsec.attack(model, x, y, threat=ball(0.06), method=PGD(steps=4, restarts=1), key=KEY)
    many = jaxsec.attack(model, x, y, threat=ball(0.06), method=PGD(steps=4, restarts=4), key=KEY)
    assert not np.any(np.asarray(few.success) & ~np.asarray(many.success))


def test_optax_rule_momentum_and_schedules_attack(small):
    import optax

    model, x, y = small
    plain = np.asarray(jaxsec.attack(model, x, y, threat=ball(0.3), method=PGD(steps=10), key=KEY).success).sum()
    for method in (
        PGD(steps=10, rule=optax.adam(0.05)),
        PGD(steps=10, momentum=1.0),
        PGD(steps=10, schedule="cosine"),
        PGD(steps=10, schedule="linear", step_size=0.1),
    ):
        r = jaxsec.attack(model, x, y, threat=ball(0.3), method=method, key=KEY)
        assert np.asarray(r.success).sum() >= plain - 1


def test_progress_reports_stages_in_order(small):
    model, x, y = small
    seen = []
    jaxsec.attack(model, x, y, threat=ball(), method=PGD(steps=12), key=KEY, progress=lambda *a: seen.append(a))
    fractions = [f for _, f, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)


def test_state_of_another_run_is_refused(small, tmp_path):
    model, x, y = small
    jaxsec.attack(model, x, y, threat=ball(), method=PGD(steps=2), key=KEY, state=tmp_path)
    with pytest.raises(ValueError, match="another run"):
        jaxsec.attack(model, x, y, threat=ball(0.07), method=PGD(steps=2), key=KEY, state=tmp_path)
    (tmp_path / "attack.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match="delete it"):
        jaxsec.attack(model, x, y, threat=ball(), method=PGD(steps=2), key=KEY, state=tmp_path)


KILLED = """
    import os, signal, sys
    import jax, numpy as np, jaxsec
    from tests.attack.conftest import mlp, weights, SHAPE
    x = np.random.default_rng(1).uniform(0.1, 0.9, size=(12, *SHAPE)).astype(np.float32)
    y = np.asarray(jaxsec.bind(mlp, weights(0))(x).argmax(axis=1)).astype(np.int32)
    stop = int(sys.argv[2])
    calls = []
    def watch(stage, fraction, live):
        calls.append(stage)
        if len(calls) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
    r = jaxsec.attack(
        jaxsec.bind(mlp, weights(0)), x, y, threat=jaxsec.LInf(eps=0.06, lo=0.0, hi=1.0),
        method=jaxsec.AutoAttack(steps=5, queries=12, targets=2), key=jax.random.key(3),
        max_rows=4, state=sys.argv[1], progress=watch, checks=False)
    np.savez(sys.argv[3], **{k: np.asarray(getattr(r, k)) for k in ("x", "success", "queries", "first_step", "stage", "status", "loss")})
"""


def test_killed_and_resumed_ends_with_the_same_numbers(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env = os.environ | {"PYTHONPATH": root}

    def run(state, stop, out):
        code = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / state), str(stop), str(tmp_path / out)]
        return subprocess.run(code, env=env, cwd=root, capture_output=True, text=True, timeout=600)

    whole = run("a", -1, "whole.npz")
    assert whole.returncode == 0, whole.stderr[-2000:]
    for stop in (4, 3):  # twice, in the middle of different stages
        assert run("b", stop, "never.npz").returncode == -signal.SIGKILL
    done = run("b", -1, "resumed.npz")
    assert done.returncode == 0, done.stderr[-2000:]
    a, b = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "resumed.npz")
    for name in a.files:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_bare_function_is_told_to_be_bound(small):
    _, x, y = small
    with pytest.raises(TypeError, match=r"model is function.*jaxsec\.bind"):
        jaxsec.attack(lambda x: x, x, y, threat=ball(0.1), method=PGD(steps=2), key=KEY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threat": jaxsec.LInf(eps=np.inf, lo=0.0, hi=1.0)}, "eps=inf"),
        ({"row_ids": np.arange(12) - 1}, "from -1 to 10"),
        ({"row_ids": np.arange(12) / 2}, "float64"),
        ({"max_rows": 4, "min_rows": 5}, "min_rows is 5"),
    ],
)
def test_more_refusals(small, change, message):
    model, x, y = small
    arguments = {"threat": ball(0.1), "method": PGD(steps=2), "key": KEY} | change
    with pytest.raises(ValueError, match=message):
        jaxsec.attack(model, x[:12], y[:12], **arguments)


def test_sharded_inputs_refuse_what_only_the_eager_run_has(small, devices, tmp_path):
    model, x, y = small
    mesh = jax.make_mesh((4,), ("rows",))
    rows = jax.device_put(x[:12], jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows")))
    for change, word in (({"checks": True}, "checks=True"), ({"state": tmp_path}, "state=")):
        with pytest.raises(ValueError, match=word):
            jaxsec.attack(model, rows, y[:12], threat=ball(0.1), method=PGD(steps=2), key=KEY, **change)


def test_batches_keep_to_max_rows_exactly(small):
    """Five rows at once means batches of five, not of eight."""
    model, x, y = small
    seen = []

    def spy(p, x):
        seen.append(len(x))
        return mlp(p, x)

    jaxsec.attack(jaxsec.bind(spy, model.params), x, y, threat=ball(0.01), method=PGD(steps=2), key=KEY, max_rows=5, progress=False)
    assert max(seen) == 5


def test_resume_knows_a_schedule_by_what_it_does(small, tmp_path):
    model, x, y = small

    def make(power):
        def schedule(t):
            return (1 - t) ** power

        return PGD(steps=3, schedule=schedule)

    arguments = {"threat": ball(0.05), "key": KEY, "state": tmp_path, "progress": False}
    a = jaxsec.attack(model, x, y, method=make(1.0), **arguments)
    b = jaxsec.attack(model, x, y, method=make(1.0), **arguments)  # another function object, as in a new process
    np.testing.assert_array_equal(np.asarray(a.x), np.asarray(b.x))
    with pytest.raises(ValueError, match="another run"):
        jaxsec.attack(model, x, y, method=make(2.0), **arguments)


def test_a_step_size_is_one_program_whatever_its_type(small):
    from tests.attack.conftest import TRACES

    model, x, y = small
    jaxsec.attack(model, x, y, threat=ball(0.05), method=PGD(steps=3, step_size=0.02), key=KEY, progress=False)
    before = len(TRACES)
    for size in (np.float32(0.02), jnp.asarray(0.02), 0.02):
        jaxsec.attack(model, x, y, threat=ball(0.05), method=PGD(steps=3, step_size=size), key=KEY, progress=False)
    assert len(TRACES) == before


def test_plain_pgd_carries_no_momentum(small):
    model, x, y = small
    run = {"threat": ball(0.05), "key": KEY, "progress": False}
    plain, _ = PGD(steps=3).fit(3, x.shape[1:], "linf")
    moving, _ = PGD(steps=3, momentum=0.9).fit(3, x.shape[1:], "linf")
    assert not plain.use_momentum and moving.use_momentum
    a = jaxsec.attack(model, x, y, method=PGD(steps=3), **run)
    b = jaxsec.attack(model, x, y, method=PGD(steps=3, momentum=jnp.float32(0.0)), **run)
    np.testing.assert_allclose(np.asarray(a.x), np.asarray(b.x), atol=1e-6)


def test_a_result_says_what_came_out(small):
    model, x, y = small
    r = jaxsec.attack(model, x, y, threat=ball(), method=PGD(steps=3), key=KEY, progress=False)
    assert f"robust accuracy at most {1 - np.asarray(r.success).mean():.2%}" in repr(r) and "broken by pgd" in repr(r)
    shown = []
    jax.jit(lambda r: shown.append(repr(r)) or r.x)(r)
    assert "success=bool" in shown[0]


def test_rand_on_a_plain_model_says_that_it_is_weaker(small):
    model, x, y = small
    method = AutoAttack(version="rand", steps=2, draws=2)
    r = jaxsec.attack(model, x, y, threat=ball(), method=method, key=KEY, checks=False, progress=False)
    assert any("'rand' is for randomised models" in f.message for f in r.flags)


def test_resume_knows_arrays_that_a_program_holds(small, tmp_path):
    """A printed program shows only the shapes of its constants; another mean is another model."""
    model, x, y = small

    def make(mean):
        def centred(p, x):
            return mlp(p, x - jnp.asarray(mean))

        return jaxsec.bind(centred, model.params)

    arguments = {"threat": ball(0.05), "method": PGD(steps=2), "key": KEY, "state": tmp_path, "progress": False}
    jaxsec.attack(make([[[[0.5]]]]), x, y, **arguments)
    with pytest.raises(ValueError, match="another run"):
        jaxsec.attack(make([[[[0.75]]]]), x, y, **arguments)
