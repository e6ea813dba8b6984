"""`net_of`: both modes of Flax modules, statistics apart from parameters, and the same `Model` at the end that `bind` makes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from train_kit import LINF, blobs, mlp, trees_equal, weights

import jaxsec
from jaxsec import train

X, Y = blobs(32)
KEYS = jax.random.split(jax.random.key(0), 32)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.5)(linen.Dense(8)(x))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(linen.relu(x)))


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(8, momentum=0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def linen_net():
    return train.net_of(Linen(), x=X, key=jax.random.key(1))


def nnx_net():
    return train.net_of(NNX(nnx.Rngs(1)))


def means(state):
    return [np.asarray(v) for v in jax.tree.leaves(state) if v.shape == (8,)]


@pytest.mark.parametrize("make", [linen_net, nnx_net], ids=["linen", "nnx"])
def test_the_two_modes(make):
    net = make()
    logits, after = jax.jit(lambda net, x, keys: net.training(x, keys))(net, X, KEYS)
    again, _ = net.training(X, KEYS)
    other, _ = net.training(X, jax.random.split(jax.random.key(9), 32))
    np.testing.assert_allclose(logits, again, atol=1e-5)
    assert float(jnp.abs(other - logits).max()) > 1e-3, "dropout must draw from the keys"
    assert trees_equal(net.params, after.params)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(means(net.state), means(after.state), strict=True))
    np.testing.assert_allclose(net(X[:4]), net(X)[:4], atol=1e-6)  # rows do not meet in evaluation mode
    np.testing.assert_allclose(after.model()(X), after(X), atol=1e-6)
    assert float(jnp.abs(after(X) - net(X)).max()) > 1e-3


def test_statistics_are_the_running_mean_of_the_batch():
    net = linen_net()
    _, after = net.training(X, KEYS)
    dense = net.params["Dense_0"]
    hidden = np.asarray(X @ dense["kernel"] + dense["bias"][None], np.float64)
    np.testing.assert_allclose(after.state["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * hidden.mean(0), atol=1e-5)


@pytest.mark.parametrize(("statistics", "passes"), [("both", (0, 1)), ("clean", (0,)), ("adversarial", (1,))])
def test_the_passes_that_count_are_chosen(statistics, passes):
    net, recipe = linen_net(), train.TRADES(threat=LINF, steps=2, statistics=statistics)
    worst = recipe.prepare(net, jnp.asarray(X), jnp.asarray(Y), KEYS)
    _, _, after = recipe.objective(net, worst, jnp.asarray(X), jnp.asarray(Y), KEYS)
    dense, expected = net.params["Dense_0"], np.zeros(8)
    for i in passes:
        hidden = np.asarray((X, worst)[i] @ dense["kernel"] + dense["bias"][None], np.float64)
        expected = 0.5 * expected + 0.5 * hidden.mean(0)
    np.testing.assert_allclose(after.state["batch_stats"]["BatchNorm_0"]["mean"], expected, atol=1e-5)


@pytest.mark.parametrize("make", [linen_net, nnx_net], ids=["linen", "nnx"])
def test_they_train_and_leave_a_model_for_the_other_rooms(make, tmp_path):
    recipe = train.TRADES(threat=LINF, steps=2)
    options = {"recipe": recipe, "epochs": 6, "batch_size": 16, "key": jax.random.key(0), "optimizer": _ADAM, "out": tmp_path}
    fit = train.fit(make(), (X, Y), average=0.5, **options)
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]
    result = jaxsec.attack(fit.model, X, Y, threat=LINF, method=jaxsec.PGD(steps=3), key=jax.random.key(0))
    assert np.asarray(result.success).mean() < 0.7
    assert trees_equal(train.fit(make(), (X, Y), average=0.5, **options).net.params, fit.net.params)  # from the checkpoint


_ADAM = optax.adam(0.03)


def test_the_plain_loss_hands_the_new_statistics_out():
    net = linen_net()
    _, metrics = train.PGDAT(threat=LINF, steps=2).loss(net, X, Y, jax.random.key(0))
    assert jax.tree.structure(metrics["state"]) == jax.tree.structure(net.state)
    assert "state" not in train.Standard().loss(jaxsec.bind(mlp, weights()), X, Y, jax.random.key(0))[1]


def test_mixed_precision_computes_in_half_and_keeps_float32():
    net = train.net_of(mlp, weights(), dtype=jnp.bfloat16)
    assert net(X).dtype == jnp.float32 and net.model().params["a"].dtype == jnp.float32
    difference = float(jnp.abs(net(X) - train.net_of(mlp, weights())(X)).max())
    assert 1e-4 < difference < 0.2
    fit = train.fit(net, (X, Y), recipe=train.Standard(), epochs=2, batch_size=16, key=jax.random.key(0), optimizer=_ADAM)
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(fit.net.params))
    _, after = train.net_of(linen_net(), dtype=jnp.bfloat16).training(X, KEYS)
    assert {v.dtype for v in jax.tree.leaves(after.state)} == {np.dtype("float32")}


def test_arguments_of_a_modes_are_found_or_named():
    class Named(linen.Module):
        @linen.compact
        def __call__(self, x, mode="x"):
            return linen.Dense(3)(x) + (1.0 if mode == "train" else 0.0)

    net = train.net_of(Named(), x=X, key=jax.random.key(0), train_kwargs={"mode": "train"}, eval_kwargs={"mode": "eval"})
    np.testing.assert_allclose(net.training(X, KEYS)[0], net(X) + 1, atol=1e-5)
    with pytest.raises(TypeError, match="no variables"):
        train.net_of(Linen())
    with pytest.raises(TypeError, match="no 'params'"):
        train.net_of(Linen(), {"batch_stats": {}})


def test_batchnorm_of_an_onnx_model_is_left_alone(tmp_path):
    onnx = pytest.importorskip("onnx")
    h, w = onnx.helper, np.random.default_rng(0)
    names = {"w": w.normal(size=(6, 3)), "scale": np.ones(3), "bias": np.zeros(3), "mean": w.normal(size=3), "var": np.ones(3)}
    arrays = [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in names.items()]
    nodes = [h.make_node("MatMul", ["x", "w"], ["h"]), h.make_node("BatchNormalization", ["h", "scale", "bias", "mean", "var"], ["z"])]
    ends = [h.make_tensor_value_info("x", 1, ["b", 6])], [h.make_tensor_value_info("z", 1, ["b", 3])]
    graph = h.make_graph(nodes, "net", *ends, arrays)
    (tmp_path / "net.onnx").write_bytes(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)]).SerializeToString())
    model = jaxsec.load(tmp_path / "net.onnx")
    fit = train.fit(model, (X, Y), recipe=train.Standard(), epochs=2, batch_size=16, key=jax.random.key(0), optimizer=_ADAM)
    assert set(fit.net.state) == {"mean", "var"} and set(fit.net.params) == {"w", "scale", "bias"}
    jaxsec.io.save(fit.model, tmp_path / "net.onnx", tmp_path / "new.onnx.gz")
    again = jaxsec.load(tmp_path / "new.onnx.gz")
    np.testing.assert_array_equal(again.params["mean"], model.params["mean"])
    assert float(jnp.abs(again.params["w"] - model.params["w"]).max()) > 1e-2
    np.testing.assert_array_equal(again(X), fit.model(X))
    with pytest.raises(TypeError, match="not from an ONNX file"):
        jaxsec.io.save(jaxsec.bind(mlp, weights()), tmp_path / "net.onnx", tmp_path / "x.onnx")
    renamed = model.replace(params={("v" if k == "w" else k): v for k, v in model.params.items()})
    with pytest.raises(ValueError, match="'v'"):
        jaxsec.io.save(renamed, tmp_path / "net.onnx", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(("kind", "shape", "layout"), [("cnn", (1, 8, 8), "NCHW"), ("cnn-large", (9, 10, 3), "NHWC"), ("mlp", (5,), "")])
def test_new_networks_load(tmp_path, kind, shape, layout):
    pytest.importorskip("onnx")
    path = tmp_path / "net.onnx"
    jaxsec.io.new_network(kind, shape, 4, path, seed=3, layout=layout)
    logits = jaxsec.load(path)(np.random.default_rng(0).uniform(size=(16, *shape)).astype(np.float32))
    assert logits.shape == (16, 4) and 0.05 < float(jnp.std(logits)) < 5
    before = path.read_bytes()
    jaxsec.io.new_network(kind, shape, 4, path, seed=3, layout=layout)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="'cnn' needs images"):
        jaxsec.io.new_network("cnn", (5,), 4, path, seed=0)
    with pytest.raises(ValueError, match="allowed: linear"):
        jaxsec.io.new_network("vgg", (5,), 4, path, seed=0)


@pytest.mark.parametrize("make", [linen_net, nnx_net], ids=["linen", "nnx"])
def test_a_trained_flax_model_is_trained_further_with_both_its_modes(make):
    """A `Model` of a Flax module keeps its training mode: statistics stay statistics, and the optimiser does not move them."""
    first = make()
    again = train.net_of(first.model())
    assert jax.tree.map(jnp.shape, again.params) == jax.tree.map(jnp.shape, first.params)
    logits, after = again.training(X, KEYS)
    expected, kept = first.training(X, KEYS)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for a, b in zip(means(after.state), means(kept.state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(again(X), first(X), atol=1e-6)


def test_whole_numbers_among_parameters_stay_what_they_are():
    def shuffled(params, x):
        return mlp(params["net"], x[:, params["order"]])

    params = {"net": weights(), "order": jnp.asarray([3, 1, 2, 0, 5, 4])}
    made = train.fit(shuffled, (X, Y), variables=params, recipe=train.Standard(), epochs=1, batch_size=16, key=jax.random.key(0))
    assert np.array_equal(made.model.params["order"], params["order"])
    assert not np.allclose(made.model.params["net"]["a"], params["net"]["a"])
    np.testing.assert_allclose(made.model(X), shuffled(made.model.params, X), atol=1e-6)


def test_the_adversary_asks_in_evaluation_mode_unless_it_is_told_otherwise():
    """There a row's worst point does not depend on its company; with the batch's statistics it does."""
    net, y = linen_net(), jnp.asarray(Y)
    for mode, alone in ((False, True), (True, False)):
        recipe = train.PGDAT(threat=LINF, steps=2, train_mode=mode)
        some, every = (recipe.prepare(net, X[:n], y[:n], KEYS[:n]) for n in (8, 32))
        assert bool(jnp.allclose(some, every[:8], atol=1e-6)) == alone


def test_statistics_are_averaged_with_the_weights(monkeypatch):
    seen = []

    def remember(state, *rest):
        new = train._step.train_step(state, *rest)
        seen.append([means(s) for s in (state.average[1], new[0].state, new[0].average[1])])
        return new

    monkeypatch.setattr(train._loop, "train_step", remember)
    train.fit(linen_net(), (X, Y), recipe=train.Standard(), epochs=1, batch_size=16, average=0.9, key=jax.random.key(0))
    for i, (before, statistics, after) in enumerate(seen):
        d = min(0.9, (1 + i) / (10 + i))
        for b, s, a in zip(before, statistics, after, strict=True):
            np.testing.assert_allclose(a, b + (1 - d) * (s - b), atol=1e-5)
