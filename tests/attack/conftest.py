"""Small problems shared by the attack tests: few shapes, so that few programs are compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec

SHAPE = (1, 6, 6)
CLASSES = 5
ROWS = 12
TRACES: list[str] = []


def mlp(params, x):
    """A two-layer net that records each time Python runs it, which is each time it is traced."""
    TRACES.append("mlp")
    h = jnp.tanh(x.reshape(x.shape[0], -1) @ params["a"] + params["c"][None])
    return h @ params["b"]


def weights(seed: int, classes: int = CLASSES) -> dict[str, jax.Array]:
    r = np.random.default_rng(seed)
    d = int(np.prod(SHAPE))
    return {
        "a": jnp.asarray(r.normal(size=(d, 16)) * 0.5, jnp.float32),
        "b": jnp.asarray(r.normal(size=(16, classes)), jnp.float32),
        "c": jnp.asarray(r.normal(size=16) * 0.1, jnp.float32),
    }


@pytest.fixture(scope="session")
def small():
    """(model, x, y): labels are the model's own answers except in row 2, which is wrong before any attack."""
    model = jaxsec.bind(mlp, weights(0))
    x = np.random.default_rng(1).uniform(0.1, 0.9, size=(ROWS, *SHAPE)).astype(np.float32)
    y = np.asarray(jax.jit(model)(jnp.asarray(x)).argmax(axis=1)).astype(np.int32)
    y[2] = (y[2] + 1) % CLASSES
    return model, x, y
