"""Noise on the CPU: nanoseconds a value, against jax.random.normal and torch's in-place normal_ in one run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec import _native
from jaxsec.smooth import noise, noisy_batch

from .conftest import interleaved, ratio

SHAPE = (2048, 1024)


@pytest.fixture(autouse=True)
def on_the_cpu() -> None:
    if jax.default_backend() != "cpu" or not _native.available():
        pytest.skip("measures the native kernels of the CPU")


def _per_value(seconds: list[float], shape: tuple[int, ...]) -> float:
    return float(np.median(seconds)) / float(np.prod(shape)) * 1e9


def test_gaussian(store, smoke):
    """At least 25 times jax.random.normal (threefry) and 5 times torch."""
    import torch

    torch.set_num_threads(2)
    shape = (8, 64) if smoke else SHAPE
    key, buffer = jax.random.key(0), torch.empty(shape)
    ours, theirs = jax.jit(lambda k: noise(k, shape)), jax.jit(lambda k: jax.random.normal(k, shape))
    calls = {
        "jaxsec": lambda: jax.block_until_ready(ours(key)),
        "threefry": lambda: jax.block_until_ready(theirs(key)),
        "torch": lambda: buffer.normal_(),
    }
    # pair by pair: torch's threads spin for a while after each call, on the cores that the next candidate needs
    pairs = {p: interleaved({n: calls[n] for n in ("jaxsec", p)}, 1 if smoke else 25) for p in ("threefry", "torch")}
    ratios = {p: ratio(found, p, "jaxsec") for p, found in pairs.items()}
    seconds = {**pairs["torch"], **pairs["threefry"]}
    z = np.asarray(ours(key), np.float64)
    store(
        ns_per_value={k: _per_value(v, shape) for k, v in seconds.items()},
        ratios=ratios,
        mean=z.mean(),
        variance=z.var(),
        kurtosis=(z**4).mean(),
    )
    if not smoke:
        assert ratios["threefry"][1] >= 25 and ratios["torch"][1] >= 5


def test_uint8_to_bfloat16(store, smoke):
    """Reading uint8, noising, normalising and rounding in one pass takes no longer a value than float32 noise alone."""
    shape = (8, 64) if smoke else SHAPE
    key, x = jax.random.key(0), jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, shape[1])), jnp.uint8)
    alone = jax.jit(lambda k: noise(k, shape))
    whole = jax.jit(lambda k: noisy_batch(k, x, 0.25, 0, shape[0], mean=0.5, std=0.25, dtype=jnp.bfloat16))
    calls = {"noise": lambda: jax.block_until_ready(alone(key)), "batch": lambda: jax.block_until_ready(whole(key))}
    seconds = interleaved(calls, 1 if smoke else 25)
    found = ratio(seconds, "noise", "batch")
    store(ns_per_value={k: _per_value(v, shape) for k, v in seconds.items()}, ratio=found)
    if not smoke:
        assert found[2] >= 1
