"""A step of adversarial training against torch and against what it is made of; one-step recipes and IBP against a standard step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsec
from jaxsec import train
from jaxsec.train._step import Setting, first_state, train_step

from . import nets, training
from .conftest import interleaved, ratio

pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")
ADAM = optax.adam(1e-3)
EPS = 0.3
THREAT = jaxsec.LInf(eps=jnp.float32(EPS), lo=0.0, hi=1.0)


def stepper(recipe, net, x, y):
    """One update, again and again from the same state."""
    setting = Setting(program=net.program, optimizer=ADAM)
    recipe = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), recipe)
    state = first_state(net, setting, recipe, jnp.asarray(x))
    key, total, decay = jax.random.key(0), jnp.float32(1000), jnp.float32(0)
    return lambda: jax.block_until_ready(train_step(state, recipe, x, y, key, total, decay, setting))


def batch(smoke, name="wong"):
    x, y = nets.mnist(16 if smoke else 128)
    model, net = nets.both(name)
    return jnp.asarray(x), jnp.asarray(y), train.net_of(model), net


@pytest.mark.parametrize("name", ["wong", "four"])
def test_pgd7_step_against_torch(name, store, smoke):
    torch = pytest.importorskip("torch")
    x, y, net, theirs = batch(smoke, name)
    optimizer = torch.optim.Adam(theirs.parameters(), 1e-3)
    tx, ty = torch.tensor(np.asarray(x)), torch.tensor(np.asarray(y)).long()

    def loop():
        loss = training.torch_loss(theirs, "pgd-at", tx, ty, EPS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    seconds = interleaved({"jaxsec": stepper(train.PGDAT(threat=THREAT, steps=7), net, x, y), "torch": loop}, 1 if smoke else 25)
    middle, low, high = ratio(seconds, "torch", "jaxsec")
    store(ratio=middle, interval=[low, high], seconds={k: float(np.median(v)) for k, v in seconds.items()})
    print(f"{name}: {middle:.2f}x torch [{low:.2f}, {high:.2f}]")
    if not smoke and name == "wong":
        assert middle >= 1.5


def test_pgd7_step_is_its_gradients(store, smoke):
    """At most 1.1 times 7 input gradients and a gradient of the parameters with its update, each timed apart."""
    x, y, net, _ = batch(smoke)

    @jax.jit
    def input_gradient(net, x):
        return jax.grad(lambda v: jnp.sum(optax.softmax_cross_entropy_with_integer_labels(net(v), y)))(x)

    seconds = interleaved(
        {
            "step": stepper(train.PGDAT(threat=THREAT, steps=7), net, x, y),
            "input gradient": lambda: jax.block_until_ready(input_gradient(net, x)),
            "standard step": stepper(train.Standard(), net, x, y),
        },
        1 if smoke else 25,
    )
    parts = 7 * np.asarray(seconds["input gradient"]) + np.asarray(seconds["standard step"])
    middle, low, high = ratio({"step": seconds["step"], "parts": parts.tolist()}, "step", "parts")
    store(ratio=middle, interval=[low, high], seconds={k: float(np.median(v)) for k, v in seconds.items()})
    print(f"step / parts {middle:.2f} [{low:.2f}, {high:.2f}]")
    assert smoke or middle <= 1.1


def test_cost_factors(store, smoke):
    """Fast-AT: an input gradient and a standard step; Free-AT: one gradient of both; each at most 15 % more."""
    x, y, net, _ = batch(smoke)

    @jax.jit
    def input_gradient(net, x):
        return jax.grad(lambda v: jnp.sum(optax.softmax_cross_entropy_with_integer_labels(net(v), y)))(x)

    @jax.jit
    def both(net, x, state):
        def loss(params, x):
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(net.replace(params=params)(x), y))

        g, g_x = jax.grad(loss, (0, 1))(net.params, x)
        updates, state = ADAM.update(g, state)
        return optax.apply_updates(net.params, updates), state, g_x

    opt = ADAM.init(net.params)
    runs = {
        "standard": stepper(train.Standard(), net, x, y),
        "input gradient": lambda: jax.block_until_ready(input_gradient(net, x)),
        "both": lambda: jax.block_until_ready(both(net, x, opt)),
        "fast-at": stepper(train.FastAT(threat=THREAT), net, x, y),
        "free-at": stepper(train.FreeAT(threat=THREAT), net, x, y),
    }
    seconds = {k: np.asarray(v) for k, v in interleaved(runs, 1 if smoke else 40).items()}
    factors = {
        "fast-at": float(np.median(seconds["fast-at"] / (seconds["standard"] + seconds["input gradient"]))),
        "free-at": float(np.median(seconds["free-at"] / seconds["both"])),
    }
    store(factors=factors, seconds={k: float(np.median(v)) for k, v in seconds.items()})
    print(factors, {k: round(float(np.median(v)) * 1e3, 2) for k, v in seconds.items()})
    if not smoke:
        assert factors["fast-at"] <= 1.15 and factors["free-at"] <= 1.15


@pytest.mark.parametrize("name", ["wong", "four"])
def test_ibp_step_against_a_standard_step(name, store, smoke):
    """At most 3 times a standard step: clean pass, intervals (centre and radius), their gradients."""
    x, y, net, _ = batch(smoke, name)
    runs = {"ibp": stepper(train.IBPTraining(threat=THREAT), net, x, y), "standard": stepper(train.Standard(), net, x, y)}
    seconds = interleaved(runs, 1 if smoke else 40)
    middle, low, high = ratio(seconds, "ibp", "standard")
    store(ratio=middle, interval=[low, high], seconds={k: float(np.median(v)) for k, v in seconds.items()})
    print(f"{name}: IBP / standard {middle:.2f} [{low:.2f}, {high:.2f}]")
    if not smoke and name == "wong":
        assert middle <= 3
