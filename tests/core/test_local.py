"""`LocalModel`: asked again after changes in windows it answers as the whole model does, bit for bit as if it had been asked anew."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import jaxsec
from jaxsec._native import available, settle
from jaxsec.core import _local
from jaxsec.core._local import LocalModel, local
from jaxsec.core._rewrite import tuned
from tests.core.single_device import Wide, array, residual, shared


@pytest.fixture(scope="module", autouse=True)
def native():
    if not available():
        if os.environ.get("JAXSEC_REQUIRE_NATIVE"):
            pytest.fail("the native module is not built, and JAXSEC_REQUIRE_NATIVE is set")
        pytest.skip("the native module is not built")


def strided(p, x):
    """Two convolutions with ReLU and two dense layers: one native chain."""
    for w, b in ((p["w1"], p["b1"]), (p["w2"], p["b2"])):
        x = jax.nn.relu(lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1))) + b[None, :, None, None])
    return jax.nn.relu(x.reshape(x.shape[0], -1) @ p["d"].T) @ p["e"]


class Pooled(nn.Module):
    """NHWC, unlike its caller's rows: pools of both kinds, GELU, a dense layer on lines."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.gelu(nn.Conv(8, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = nn.avg_pool(nn.relu(nn.Conv(6, (3, 3), padding="VALID")(x)), (2, 2), strides=(2, 2))
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


def flat(p, x):
    return jnp.tanh(x.reshape(x.shape[0], -1) @ p["a"]) @ p["b"]


def models():
    p = {"w1": array(16, 3, 4, 4), "b1": array(16), "w2": array(20, 16, 4, 4), "b2": array(20), "d": array(12, 320), "e": array(12, 5)}
    yield "strided", jaxsec.bind(strided, p), (3, 16, 16), 3
    pooled = Pooled()
    v = pooled.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    yield "pooled", jaxsec.bind(pooled, v).preprocessed(mean=0.4, std=0.3, transpose=(1, 2, 0)), (3, 16, 16), 3
    p = {"w1": array(8, 3, 4, 4), "b": array(8), "w2": array(8, 8, 3, 3), "s": array(8), "d": array(20, 72), "e": array(20, 5)}
    yield "residual", jaxsec.bind(residual, p), (3, 16, 16), 4
    wide = Wide()
    yield "wide", jaxsec.bind(wide, wide.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))), (16, 16, 3), 2
    yield "shared", jaxsec.bind(shared, {"w": array(3, 3, 2, 5), "e": array(5, 4)}), (7, 9, 2), 1
    yield "flat", jaxsec.bind(flat, {"a": array(27, 6), "b": array(6, 4)}), (3, 3, 3), 1


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


CASES = {name: rest for name, *rest in models()}


@pytest.mark.parametrize("name", CASES)
def test_asked_again_it_answers_as_if_asked_anew(name):
    model, shape, sites = CASES[name]
    chw = shape[0] == 3 and name != "flat"
    h, w, c = (1, 2, 0) if chw else (0, 1, 2)
    asker = LocalModel(tuned(model), (h, w, c))
    r = np.random.default_rng(0)
    n, x = 5, jnp.asarray(np.random.default_rng(1).uniform(size=(5, *shape)), jnp.float32)
    start, ask, whole = jax.jit(asker.start), jax.jit(asker.ask), jax.jit(model)
    logits, caches = start(x)
    assert len(caches) == sites and all(a.shape[0] == n for a in caches)
    np.testing.assert_allclose(logits, whole(x), rtol=2e-4, atol=2e-5)
    for _ in range(4):
        window = np.zeros((n, 4), np.int32)
        proposal = np.array(x)
        for i in range(1, n):  # row 0 has an empty window
            for axis in (0, 1):
                size = shape[(h, w)[axis]]
                side = int(r.integers(1, size + 1)) if i == 4 else 2
                window[i, 2 * axis] = r.integers(0, size - side + 1)
                window[i, 2 * axis + 1] = window[i, 2 * axis] + side
            place = [slice(None)] * 3
            place[h], place[w] = slice(*window[i, :2]), slice(*window[i, 2:])
            proposal[(i, *place)] = r.uniform(size=proposal[(i, *place)].shape)
        logits, found = ask(caches, jnp.asarray(proposal), jnp.asarray(window))
        np.testing.assert_allclose(logits, whole(jnp.asarray(proposal)), rtol=2e-4, atol=2e-5)
        anew, fresh = start(jnp.asarray(proposal))
        same = np.testing.assert_array_equal if name in ("strided", "residual") else close  # XLA may round GELU otherwise
        same(logits, anew)
        one, _ = ask(tuple(a[2:3] for a in caches), jnp.asarray(proposal[2:3]), jnp.asarray(window[2:3]))
        same(one[0], logits[2])
        accept = np.array([True, True, False, True, True])
        caches = settle(found, jnp.asarray(accept))
        for got, want in zip(caches, fresh, strict=True):
            same(np.asarray(got)[accept], np.asarray(want)[accept])
        x = jnp.where(jnp.asarray(accept)[:, None, None, None], proposal, x)


def test_what_is_remembered_is_bounded(monkeypatch):
    model, shape, _ = CASES["strided"]
    x = jnp.asarray(np.random.default_rng(1).uniform(size=(3, *shape)), jnp.float32)
    for room, sites in ((2, 3), (1, 0)):  # the first convolution has 1024 outputs for an image of 768
        monkeypatch.setattr(_local, "_ROOM", room)
        logits, caches = jax.jit(LocalModel(tuned(model), (1, 2, 0)).start)(x)
        assert len(caches) == sites and sum(a[0].size for a in caches) <= room * x[0].size
        np.testing.assert_allclose(logits, jax.jit(model)(x), rtol=2e-4, atol=2e-5)


def test_only_what_gains_is_local(monkeypatch):
    model, _, _ = CASES["strided"]
    monkeypatch.setattr(_local, "on_one_cpu", lambda: True)
    found = local(tuned(model), (1, 2, 0), jnp.float32)
    assert found is not None and found.axes == (1, 2, 0)
    assert local(model, (1, 2, 0), jnp.float32) is None
    assert local(tuned(model), (0, 1, None), jnp.float32) is None
    assert local(tuned(model), (1, 2, 0), jnp.float16) is None
    monkeypatch.setattr(_local, "on_one_cpu", lambda: False)
    assert local(tuned(model), (1, 2, 0), jnp.float32) is None


def test_square_is_the_same_with_windows(monkeypatch):
    """The same proposals are accepted, rows do not depend on the batch, and the program exports for other platforms."""
    model, shape, _ = CASES["strided"]
    x = np.random.default_rng(2).uniform(size=(6, *shape)).astype(np.float32)
    y = np.asarray(jax.jit(model)(x)).argmax(1).astype(np.int32)
    threat, method = jaxsec.LInf(eps=0.15, lo=0.0, hi=1.0), jaxsec.Square(steps=150)

    def run(rows, native, method=method):
        monkeypatch.setattr(_local, "on_one_cpu", lambda: native)
        jax.clear_caches()
        return jaxsec.attack(model, x[rows], y[rows], threat=threat, method=method, key=jax.random.key(0), row_ids=rows, checks=False)

    rows = np.arange(6)
    ours, theirs = run(rows, True), run(rows, False)
    np.testing.assert_array_equal(ours.success, theirs.success)
    np.testing.assert_array_equal(ours.first_step, theirs.first_step)
    np.testing.assert_array_equal(ours.x, theirs.x)
    assert 0 < np.sum(ours.success)
    for part in (rows[:1], rows[1:4]):
        some = run(part, True)
        np.testing.assert_array_equal(some.x, ours.x[part])
        np.testing.assert_array_equal(some.loss, ours.loss[part])
    monkeypatch.setattr(_local, "on_one_cpu", lambda: True)
    traced = jax.jit(lambda x: jaxsec.attack(model, x, y, threat=threat, method=method, key=jax.random.key(0)))
    np.testing.assert_array_equal(traced(x).x, ours.x)
    jax.export.export(traced, platforms=["tpu", "cuda"])(x)


def test_a_value_of_each_image_is_no_constant_wherever_the_batch_axis_lies():
    """Images centred by their own mean behind a transposition: a change in a window changes all positions."""

    def centred(p, x):
        h = jnp.moveaxis(x, 1, 0)  # [C, N, H, W]
        h = jnp.moveaxis(h - h.mean((0, 2, 3), keepdims=True), 1, 0)
        h = jax.nn.relu(lax.conv_general_dilated(h, p["w"], (1, 1), "SAME"))
        return h.reshape(len(x), -1) @ p["d"]

    model = jaxsec.bind(centred, {"w": array(4, 3, 3, 3), "d": array(4 * 64, 5)})
    asker = LocalModel(tuned(model), (1, 2, 0))
    r = np.random.default_rng(0)
    x = r.uniform(size=(4, 3, 8, 8)).astype(np.float32)
    _, caches = jax.jit(asker.start)(jnp.asarray(x))
    changed = x.copy()
    changed[:, :, 2:4, 3:5] = 5.0
    window = jnp.broadcast_to(jnp.asarray([2, 4, 3, 5], jnp.int32), (4, 4))
    logits, _ = jax.jit(asker.ask)(caches, jnp.asarray(changed), window)
    np.testing.assert_allclose(logits, model(jnp.asarray(changed)), rtol=1e-4, atol=1e-4)
