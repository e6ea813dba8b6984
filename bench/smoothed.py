"""A small MNIST net trained under Gaussian noise, the subject of the smoothing benches: trained once, kept in the build folder."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxsec
from jaxsec.smooth import noisy_batch

from . import nets

KEPT = pathlib.Path(__file__).resolve().parents[1] / "build" / "bench"
HELD_OUT = 1000  # the first test images are certified, the others train the net: nets.mnist has the 10,000 of the test set only


def trained(sigma: float, epochs: int = 6) -> list[np.ndarray]:
    """Weights of `nets.wong`, trained by Adam on noised copies of the images after the first thousand."""
    kept = KEPT / f"smoothed-{sigma:g}-{epochs}.npz"
    if kept.exists():
        with np.load(kept) as file:
            return [file[f"p{i}"] for i in range(8)]
    x, y = (jnp.asarray(v[HELD_OUT:]) for v in nets.mnist(10_000))
    rng = np.random.default_rng(0)
    shapes = [(16, 1, 4, 4), (16,), (32, 16, 4, 4), (32,), (100, 1568), (100,), (10, 100), (10,)]
    params = [jnp.asarray(rng.normal(size=s) * (0 if len(s) == 1 else np.sqrt(2 / np.prod(s[1:]))), jnp.float32) for s in shapes]
    steps = epochs * (len(x) // 128)
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, rows, key):
        noised = noisy_batch(key, x[rows], sigma, 0, 1)
        loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(nets.wong(p, noised), y[rows]).mean()  # noqa: E731
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state, key = optimiser.init(params), jax.random.key(0)
    for i in range(steps):
        params, state = step(
            params, state, jax.random.randint(jax.random.fold_in(key, 2 * i), (128,), 0, len(x)), jax.random.fold_in(key, 2 * i + 1)
        )
    weights = [np.asarray(p) for p in params]
    KEPT.mkdir(parents=True, exist_ok=True)
    np.savez(kept, **{f"p{i}": p for i, p in enumerate(weights)})
    return weights


def model(weights: list[np.ndarray]) -> jaxsec.Model:
    """The net as a model of images [B, 1, 28, 28]."""
    return jaxsec.bind(nets.wong, [jnp.asarray(w) for w in weights])
