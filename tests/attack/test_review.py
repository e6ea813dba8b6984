"""What a hostile reader found: each of these once gave a wrong verdict or no verdict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.attack._checkpoint import held
from jaxsec.attack._square_windows import moved_mass
from jaxsec.core import tuned


def net(p, x):
    return jax.nn.relu(x @ p["a"]) @ p["b"]


@pytest.fixture(scope="module")
def small():
    r = np.random.default_rng(0)
    params = {"a": jnp.asarray(r.normal(size=(12, 24)), jnp.float32), "b": jnp.asarray(r.normal(size=(24, 5)), jnp.float32)}
    model = jaxsec.bind(net, params)
    x = np.asarray(r.uniform(size=(24, 12)), np.float32)
    z = np.asarray(model(jnp.asarray(x)))
    return model, x, z


def test_targeted_rounds_go_towards_the_goal(small):
    model, x, z = small
    goal, threat = np.argsort(-z, axis=1)[:, 1], jaxsec.LInf(eps=0.15, lo=0.0, hi=1.0)
    run = {}
    for name, method in (("ce", jaxsec.APGD(steps=15)), ("t", jaxsec.APGD(steps=15, targets=4)), ("fab", jaxsec.FAB(steps=15, targets=4))):
        r = jaxsec.attack(model, x, goal, threat=threat, method=method, key=jax.random.key(0), targeted=True, progress=False)
        reached = np.asarray(model(r.x)).argmax(axis=1) == goal
        np.testing.assert_array_equal(reached[np.asarray(r.success)], True)
        run[name] = float(np.mean(np.asarray(r.success)))
    assert run["ce"] > 0.3 and run["t"] >= run["ce"] - 0.05, run


@pytest.mark.parametrize("classes", [3, 5])
def test_targeted_dlr_moves_towards_a_class_that_ranks_low(small, classes):
    """Over the spread of the three largest logits the loss of the third is -1 whatever the input; that looked like masked gradients."""
    model, x, z = small
    cut = jaxsec.bind(net, {"a": model.params["a"], "b": model.params["b"][:, :classes]})
    order = np.argsort(-z[:, :classes], axis=1)
    run = {"threat": jaxsec.LInf(eps=1.0, lo=0.0, hi=1.0), "key": jax.random.key(0), "progress": False}
    towards = {}
    for name, method in {
        "ce": jaxsec.APGD(steps=30),
        "dlr": jaxsec.APGD(steps=30, loss="dlr"),
        "t": jaxsec.APGD(steps=30, targets=1),
    }.items():
        r = jaxsec.attack(cut, x, order[:, 2], targeted=True, method=method, **run)
        assert not np.asarray(r.zero_gradients).any(), name
        assert any("DLR towards a class needs 4" in f.message for f in r.flags) == (classes == 3 and name == "dlr"), name
        towards[name] = float(np.asarray(r.success).mean())
    assert min(towards.values()) > 0.25, towards  # the ratio of the three largest reached 0 of 24 rows
    # leaving the label by its second-likeliest other class alone: the first round of two is left out by a target beyond reach
    r = jaxsec.attack(cut, x, order[:, 0], method=jaxsec.APGD(steps=10, targets=2), **(run | {"threat": jaxsec.LInf(eps=1e-4)}))
    assert not np.asarray(r.zero_gradients).any()


def test_one_process_at_a_time_in_a_folder_of_state(small, tmp_path):
    model, x, z = small
    run = {"threat": jaxsec.LInf(eps=0.1), "method": jaxsec.FGSM(), "key": jax.random.key(0), "state": tmp_path, "progress": False}
    with held(tmp_path), pytest.raises(ValueError, match="in use by another run"):
        jaxsec.attack(model, x, z.argmax(axis=1), **run)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file', which is or lies under a file; give a folder"):
        jaxsec.attack(model, x, z.argmax(axis=1), **(run | {"state": tmp_path / "file"}))
    first = jaxsec.attack(model, x, z.argmax(axis=1), **run)
    np.testing.assert_array_equal(jaxsec.attack(model, x, z.argmax(axis=1), **run).x, first.x)
    np.save(tmp_path / "attack.npy", np.zeros(3))
    (tmp_path / "attack.npy").rename(tmp_path / "attack.npz")
    with pytest.raises(ValueError, match="no readable attack state"):
        jaxsec.attack(model, x, z.argmax(axis=1), **run)


def test_a_run_resumes_with_another_batch_size(small, tmp_path):
    model, x, z = small
    y = z.argmax(axis=1)
    settings = {"threat": jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0), "method": jaxsec.PGD(steps=4), "key": jax.random.key(1)}
    whole = jaxsec.attack(model, x, y, **settings, progress=False)
    for before, after in ((4, 24), (16, 4)):
        folder = tmp_path / f"{before}"
        calls = []

        def stop(stage, fraction, live, calls=calls):
            calls.append(fraction)
            if len(calls) == 2:  # the second chunk is at work, the first one is on disk
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            jaxsec.attack(model, x, y, **settings, max_rows=before, state=folder, progress=stop)
        r = jaxsec.attack(model, x, y, **settings, max_rows=after, state=folder, progress=False)
        np.testing.assert_array_equal(r.success, whole.success)
        np.testing.assert_array_equal(r.queries, whole.queries)


def test_state_of_another_program_is_refused(small, tmp_path):
    model, x, z = small
    settings = {"threat": jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0), "method": jaxsec.PGD(steps=2), "key": jax.random.key(1), "state": tmp_path}
    bodies = []
    for sign in (1, -1):

        def body(p, x, sign=sign):
            return sign * net(p, x)

        bodies.append(jaxsec.bind(body, model.params))
    jaxsec.attack(bodies[0], x, z.argmax(axis=1), **settings, progress=False)
    with pytest.raises(ValueError, match="another run"):
        jaxsec.attack(bodies[1], x, z.argmax(axis=1), **settings, progress=False)
    (tmp_path / "attack.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="no readable attack state"):
        jaxsec.attack(bodies[0], x, z.argmax(axis=1), **settings, progress=False)


@jax.custom_jvp
def surrogate(v):
    return jnp.maximum(v, 0)


@surrogate.defjvp
def _(primals, tangents):
    (v,), (t,) = primals, tangents
    return surrogate(v), jax.nn.sigmoid(v) * t


def convolved(p, x, act):
    h = act(jax.lax.conv_general_dilated(x, p["w"], (1, 1), "VALID"))
    return h.reshape(len(x), -1) @ p["d"]


def chosen(h):
    return jax.lax.select(jnp.max(h) > 0, h, -h)  # a scalar that a reduction left


def bounded(h):
    low, high = jax.lax.stop_gradient((jnp.min(h) * 0.1, jnp.max(h) * 0.5))  # JAX has no derivative in scalar bounds
    return jax.lax.clamp(low, h, high)


@pytest.mark.parametrize("act", [surrogate, chosen, bounded])
def test_tuned_keeps_the_users_derivative(act):
    r = np.random.default_rng(1)
    one = lambda *s: jnp.asarray(r.normal(size=s), jnp.float32)  # noqa: E731
    params, x = {"w": one(4, 1, 3, 3), "d": one(64, 3)}, one(5, 1, 6, 6)

    def program(p, x):
        return convolved(p, x, act)

    model = jaxsec.bind(program, params)
    for m in (model, tuned(model)):
        assert m(x).shape == (5, 3)
    theirs, ours = (jax.grad(lambda x, m=m: jnp.sum(jnp.sin(m(x))))(x) for m in (model, tuned(model)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_only_ascending_methods_speak_of_rising(small):
    model, x, z = small
    y = z.argmax(axis=1)
    threat = jaxsec.LInf(eps=0.01, lo=0.0, hi=1.0)
    r = jaxsec.attack(model, x, y, threat=threat, method=jaxsec.FAB(steps=5), key=jax.random.key(0), progress=False)
    assert not np.asarray(r.rising).any()
    # two steps are too few for APGD, and the FAB stage after it does not take that back
    suite = jaxsec.AutoAttack(steps=2, targets=2, square=False)
    r = jaxsec.attack(model, x, y, threat=threat.replace(eps=0.1), method=suite, key=jax.random.key(0), checks=False, progress=False)
    assert r.stages[-1] == "fab-t" and np.asarray(r.rising)[np.asarray(r.stage) == -1].any()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_square_keeps_the_mass_of_each_channel(norm):
    """Algorithm 3 with the budget spent: a channel gets what its own two windows held, so its norm over the image stays."""
    r = np.random.default_rng(2)
    order = 2 if norm == "l2" else 1
    delta = r.normal(size=(6, 3, 9, 9)) * np.asarray([5.0, 1.0, 0.1])[:, None, None]
    eps = np.linalg.norm(delta.reshape(6, -1), ord=order, axis=1)
    threat = {"l2": jaxsec.L2, "l1": jaxsec.L1}[norm](eps=jnp.asarray(eps, jnp.float32))
    x0 = jnp.zeros((6, 3, 9, 9))
    moved = moved_mass(
        threat.canonical(x0), x0, jnp.asarray(delta, jnp.float32), jnp.asarray(r.uniform(size=(6, 8)), jnp.float32), jnp.int32(5), 5, False
    )

    def masses(v):
        return np.linalg.norm(np.asarray(v, np.float64).reshape(6, 3, -1), ord=order, axis=2)

    np.testing.assert_allclose(masses(moved), masses(delta), rtol=1e-3)
    assert np.abs(np.asarray(moved) - delta).max() > 0.1
