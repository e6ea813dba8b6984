"""A batch on eight devices: the same run, and gradients that meet once per step."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from train_kit import LINF, blobs, mlp, weights

from jaxsec import train
from jaxsec.train._step import Setting, first_state, train_step

X, Y = blobs(128)
KEY = jax.random.key(0)
ADAM = optax.adam(0.02)
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


def on_mesh(a, devices):
    return jax.device_put(a, NamedSharding(Mesh(np.asarray(devices), ("batch",)), PartitionSpec("batch")))


RECIPES = [train.PGDAT(threat=LINF, steps=3), train.TRADES(threat=LINF, steps=3), train.FreeAT(threat=LINF, repeat=2)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
def test_the_loss_curve_is_that_of_one_device(devices, recipe):
    options = {
        "recipe": recipe,
        "variables": weights(scale=0.3),
        "optimizer": ADAM,
        "epochs": 4,
        "batch_size": 32,
        "key": jax.random.key(0),
    }
    one = train.fit(mlp, (X, Y), **options)
    eight = train.fit(mlp, (on_mesh(X, devices), on_mesh(Y, devices)), **options)
    losses = [[row["loss"] for row in fit.history] for fit in (one, eight)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]
    assert all(len(v.sharding.device_set) == 8 for v in jax.tree.leaves(eight.net.params))


def test_gradients_meet_once_and_the_adversary_never(devices):
    recipe, net = train.PGDAT(threat=LINF, steps=5), train.net_of(mlp, weights())
    x, y = on_mesh(X, devices), on_mesh(Y, devices)
    setting = Setting(program=net.program, optimizer=ADAM)
    state = jax.device_put(first_state(net, setting, recipe, x), NamedSharding(x.sharding.mesh, PartitionSpec()))
    text = train_step.lower(state, recipe, x, y, jax.random.key(0), jnp.float32(9), jnp.float32(0), setting).compile().as_text()
    counts = {kind: _calls(kind, text) for kind in COLLECTIVES}
    assert counts.pop("all-reduce") == 1 and not any(counts.values()), counts
    loops = re.findall(r"body=%?([\w.\-]+)", text)
    bodies = [text.split(f"%{name} (", 1)[1].split("\n}\n", 1)[0] for name in loops if f"%{name} (" in text]
    assert bodies and not any(_calls(kind, body) for kind in COLLECTIVES for body in bodies)


def _calls(kind, text):
    return len(re.findall(rf"\b{kind}(?:-start)?\(", text))
