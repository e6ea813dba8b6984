"""Rows on a mesh with explicit axes, which is what `jax.make_mesh` makes: the same results, on the caller's mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxsec
from jaxsec import train
from jaxsec.audit import Plan
from jaxsec.core._meshes import explicit

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.3, 0.7, (16, 6)).astype(np.float32), RNG.integers(0, 3, 16)
PARAMS = {"a": RNG.normal(size=(6, 8)).astype(np.float32), "b": RNG.normal(size=(8, 3)).astype(np.float32)}
LINF, KEY = jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0), jax.random.key(0)
PGD, BOUNDS = jaxsec.PGD(steps=3), [jaxsec.IBP(), jaxsec.CROWN()]


def mlp(p, x):
    return jax.nn.relu(x @ p["a"]) @ p["b"]


MODEL = jaxsec.bind(mlp, PARAMS)
DOORS = {
    "attack": lambda model, x, y: jaxsec.attack(model, x, y, threat=LINF, method=PGD, key=KEY).success,
    "bound": lambda model, x, y: jaxsec.bound(model, (LINF, x)).lo,
    "certify": lambda model, x, y: jaxsec.certify(model, x, y, threat=LINF, method=BOUNDS).margin,
    "loss": lambda model, x, y: train.TRADES(threat=LINF, steps=2).loss(model, x, y, KEY)[0],
}


@pytest.fixture(scope="module")
def mesh(devices):
    made = jax.make_mesh((len(devices),), ("rows",))
    assert made.axis_types == (AxisType.Explicit,)
    return made


def placed(mesh, *arrays):
    return [jax.device_put(a, NamedSharding(mesh, PartitionSpec("rows"))) for a in arrays]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("set_mesh", [False, True], ids=["", "set"])
def test_doors_answer_as_on_one_device(mesh, door, traced, set_mesh):
    run = DOORS[door]
    alone = run(MODEL, jnp.asarray(X), jnp.asarray(Y))
    if traced:
        run = jax.jit(run)
    x, y = placed(mesh, X, Y)
    if set_mesh:
        with jax.set_mesh(mesh):
            found = run(MODEL, x, y)
    else:
        found = run(MODEL, x, y)
    np.testing.assert_allclose(np.asarray(found), np.asarray(alone), rtol=1e-4, atol=1e-6)
    assert found.sharding.mesh == mesh and (door == "loss" or found.sharding.spec[0] == "rows")


def test_gradients_pass(mesh):
    recipe = train.PGDAT(threat=LINF, steps=2)

    def loss(params, x, y):
        return recipe.loss(MODEL.replace(params=params), x, y, KEY)[0]

    alone = jax.grad(loss)(PARAMS, jnp.asarray(X), jnp.asarray(Y))
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec()))
        found = jax.jit(jax.grad(loss))(params, *placed(mesh, X, Y))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-6), found, alone)


PLAN, SMOOTHING = Plan.preset_of("quick").replace(probes=("clean", "sweep")), jaxsec.Smoothing(sigma=0.25, n=100)
OTHERS = {
    "evaluate": lambda model, x, y: (
        train.evaluate(model, x, y, threat=LINF, key=KEY, method=PGD, adaptive_method=PGD).rows[0].adaptive_robust
    ),
    "audit": lambda model, x, y: jaxsec.audit(model, (x, y), threat=LINF, key=KEY, plan=PLAN).data["probes"]["sweep"]["points"][-1][
        "robust"
    ],
    "lipschitz": lambda model, x, y: train.lipschitz_certify(model, x, y),
    "smoothing": lambda model, x, y: jaxsec.certify(model, x, y, threat=jaxsec.L2(eps=0.1), method=SMOOTHING, key=KEY).counts,
    "smoothed": lambda model, x, y: jaxsec.smooth.predict(model, x, method=SMOOTHING, key=KEY).predict,
    "smoothadv": lambda model, x, y: (
        jaxsec.smooth.attack_smoothed(model, x, y, threat=jaxsec.L2(eps=0.1), method=SMOOTHING, key=KEY).success
    ),
}


@pytest.mark.parametrize("door", OTHERS)
def test_weights_on_the_mesh_and_rows_on_the_host(mesh, door):
    """As what `fit` made of rows on a mesh meets rows to be judged by."""
    model = MODEL.replace(params=jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec())))
    found, alone = (OTHERS[door](m, X, Y) for m in (model, MODEL))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(alone))


@pytest.mark.parametrize("data", ["arrays", "stream"])
def test_training_is_that_of_one_device_and_the_weights_come_back(mesh, data):
    options = {
        "recipe": train.PGDAT(threat=LINF, steps=2),
        "variables": PARAMS,
        "epochs": 2,
        "batch_size": 16,
        "key": KEY,
        "progress": False,
    }
    x, y = placed(mesh, X, Y)
    found = jaxsec.fit(mlp, (x, y), **options) if data == "arrays" else jaxsec.fit(mlp, lambda _: [(x, y)], steps_per_epoch=1, **options)
    assert all(explicit(v) and v.sharding.mesh == mesh for v in jax.tree.leaves((found.net.params, found.model.params)))
    if data == "arrays":
        alone = jaxsec.fit(mlp, (X, Y), **options)
        np.testing.assert_allclose([r["loss"] for r in found.history], [r["loss"] for r in alone.history], rtol=1e-5)
    assert not DOORS["certify"](found.model, x, y).is_fully_replicated  # what was trained meets the rows again


def test_nothing_is_touched_elsewhere():
    held = {"x": jnp.ones(3), "n": 3, "f": mlp}
    from jaxsec.core._meshes import Meshes

    assert Meshes().automatic(held) is held and Meshes().back(held) is held


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("rows")], ids=["whole", "sharded"])
def test_a_plain_function_may_close_over_the_mesh(mesh, spec):
    w = jax.device_put(PARAMS["a"], NamedSharding(mesh, PartitionSpec()))
    lo, hi = (jax.device_put(v, NamedSharding(mesh, spec)) for v in (X - 0.1, X + 0.1))
    expected = jaxsec.bound(lambda v: jax.nn.relu(v @ PARAMS["a"]), (X - 0.1, X + 0.1), method=jaxsec.CROWN()).lo

    def run(lo, hi):
        return jaxsec.bound(lambda v: jax.nn.relu(v @ w), (lo, hi), method=jaxsec.CROWN()).lo

    for made in (run, jax.jit(run)):
        np.testing.assert_allclose(np.asarray(made(lo, hi)), np.asarray(expected), rtol=1e-5, atol=1e-6)


def test_keys_that_are_made_where_a_mesh_is_set(mesh):
    options = {"recipe": train.PGDAT(threat=LINF, steps=2), "variables": PARAMS, "epochs": 1, "batch_size": 16, "progress": False}
    alone = jaxsec.fit(mlp, (X, Y), key=jax.random.key(0), **options)
    with jax.set_mesh(mesh):
        found = jaxsec.fit(mlp, (X, Y), key=jax.random.key(0), **options)
    np.testing.assert_allclose(found.history[0]["loss"], alone.history[0]["loss"], rtol=1e-5)


@pytest.mark.parametrize("door", ["attack", "bound", "certify"])
def test_results_are_sharded_as_rows_and_not_as_weights(devices, door):
    mesh = jax.make_mesh((2, 4), ("rows", "model"))
    sharded = {
        "a": jax.device_put(PARAMS["a"], NamedSharding(mesh, PartitionSpec(None, "model"))),
        "b": jax.device_put(PARAMS["b"], NamedSharding(mesh, PartitionSpec("model"))),
    }
    found = jax.jit(DOORS[door])(MODEL.replace(params=sharded), *placed(mesh, X, Y))
    np.testing.assert_allclose(np.asarray(found), np.asarray(DOORS[door](MODEL, jnp.asarray(X), jnp.asarray(Y))), rtol=1e-4, atol=1e-6)
    assert found.sharding.spec[0] == "rows"
