"""What is audited when nothing is given: scikit-learn's bundled digits and a small Flax network trained on the spot."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Model, ModelInfo, bind
from ..io import Dataset, load_data

EPOCHS = 25
BATCH = 64


def default_audit(seed: int = 0) -> tuple[Model, Dataset]:
    """The default model and its held-out data. Deterministic by seed on one machine; a few seconds.

    Raises: ImportError: Flax or scikit-learn is missing; the message names the extra to install.
    """
    try:
        train, test = load_data("digits", layout="NHWC", split="train"), load_data("digits", layout="NHWC", split="test")
        net = network()
    except ImportError as error:
        raise ImportError(
            f"the default model and data need Flax and scikit-learn ({error}); install jaxsec[audit], or give MODEL and --data."
        ) from error
    params = _train(net, train.x, train.y, jax.random.key(seed))
    info = ModelInfo(
        name="digits-cnn",
        source="flax.linen",
        input_shape=(8, 8, 1),
        n_classes=10,
        notes=(f"trained for this audit on {len(train)} digits, {EPOCHS} epochs of Adam, no robust training",),
    )
    return bind(net, params, info=info), test


def network() -> Any:
    """Two convolutions and two dense layers; strides instead of pooling, whose gradient is slow on CPU."""
    from flax import linen as nn

    return nn.Sequential(  # a tuple: with a list the module has no hash, so it could be no static part of a Model
        (
            nn.Conv(16, (3, 3)),
            nn.relu,
            nn.Conv(32, (3, 3), strides=(2, 2)),
            nn.relu,
            _flat,
            nn.Dense(64),
            nn.relu,
            nn.Dense(10),
        )
    )


def _flat(h: jax.Array) -> jax.Array:
    # a function of the module, not a lambda: equal nets must compare equal, or every rebuilt one retraces
    return h.reshape(h.shape[0], -1)


def _train(net: Any, x: np.ndarray, y: np.ndarray, key: jax.Array) -> Any:
    """Adam with a cosine schedule, the whole run in one compiled loop."""
    import optax

    k_init, k_order = jax.random.split(key)
    params = net.init(k_init, jnp.asarray(x[:1]))
    steps = len(y) // BATCH
    rule = optax.adam(optax.cosine_decay_schedule(3e-3, EPOCHS * steps))
    xs, ys = jnp.asarray(x), jnp.asarray(y)

    def loss(p: Any, rows: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(p, xs[rows]), ys[rows]).mean()

    @jax.jit
    def step(p: Any, state: Any, rows: jax.Array) -> tuple[Any, Any]:
        updates, state = rule.update(jax.grad(loss)(p, rows), state)
        return optax.apply_updates(p, updates), state

    state = rule.init(params)
    for epoch in range(EPOCHS):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(k_order, epoch), len(y)))
        for s in range(steps):
            params, state = step(params, state, jnp.asarray(order[s * BATCH : (s + 1) * BATCH]))
    return params
