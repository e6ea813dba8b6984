"""Smoothing a small MNIST net on the CPU: against torch on the same weights, and sequential against a fixed number of samples."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.smooth._randomizer import Additive

from . import nets, smoothed
from .conftest import interleaved, ratio

pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")
SIGMA, RADIUS = 0.25, 0.5
THREAT = jaxsec.L2(eps=RADIUS)
KEY = jax.random.key(0)


def _torch_certify(weights, x: np.ndarray, n: int, batch: int) -> np.ndarray:
    """Votes of n samples: the loop of Cohen et al. with the batch that is fastest here."""
    import torch

    w = [torch.tensor(v) for v in weights]
    relu, conv = torch.relu, torch.nn.functional.conv2d
    counts = torch.zeros(10, dtype=torch.long)
    with torch.no_grad():
        for _ in range(n // batch):
            h = torch.tensor(x)[None].repeat(batch, 1, 1, 1)
            h = h + torch.randn_like(h) * SIGMA
            h = relu(conv(relu(conv(h, w[0], w[1], 2, 1)), w[2], w[3], 2, 1)).flatten(1)
            counts += torch.bincount((relu(h @ w[4].T + w[5]) @ w[6].T + w[7]).argmax(1), minlength=10)
    return counts.numpy()


class _Copies(Additive):
    """The same certification with nothing added to the copies."""

    def draw(self, words, x, first, sigma, shared, *, n, dtype):
        nothing = (first[:, 0] & 0).astype(dtype).reshape(-1, 1, *(1,) * (x.ndim - 1))  # known at run time only, like noise
        return (x[:, None].astype(dtype) + nothing).repeat(n, 1).reshape(-1, *x.shape[1:])


def test_against_torch(store, smoke):
    """At least 1.5 times as fast end to end; noise takes at most 10 % of it."""
    import torch

    torch.set_num_threads(2)
    weights, (x, y) = smoothed.trained(SIGMA, 1 if smoke else 6), nets.mnist(4)
    rows, n = (1, 1000) if smoke else (4, 20_000)
    model, method = smoothed.model(weights), jaxsec.Smoothing(sigma=SIGMA, n=n)

    def certified(method: jaxsec.Smoothing) -> jaxsec.SmoothedCertificate:
        return jaxsec.certify(model, x[:rows], y[:rows], threat=THREAT, method=method, key=KEY, progress=False)

    calls = {
        "jaxsec": lambda: certified(method),
        "without noise": lambda: certified(method.replace(distribution=_Copies("gaussian"))),
        **{f"torch {b}": lambda b=b: [_torch_certify(weights, v, n, b) for v in x[:rows]] for b in (250, 1000)},
    }
    seconds = interleaved(calls, 1 if smoke else 25)
    best = min(("torch 250", "torch 1000"), key=lambda name: np.median(seconds[name]))
    found, rest = ratio(seconds, best, "jaxsec"), ratio(seconds, "without noise", "jaxsec")
    share = tuple(1 - v for v in (rest[0], rest[2], rest[1]))  # what the same certification without noise saves
    ours = np.asarray(calls["jaxsec"]().counts)
    theirs = np.stack([_torch_certify(weights, v, n, 250) for v in x[:rows]])
    store(
        net="mnist_wong trained at sigma 0.25", us_per_sample={k: float(np.median(v)) / (rows * n) * 1e6 for k, v in seconds.items()},
        peer=best, ratio=found, noise_share=share, votes={"jaxsec": ours.tolist(), "torch": theirs.tolist()},
    )  # fmt: skip
    assert np.abs(ours - theirs).max() < 6 * np.sqrt(n) / 2
    if not smoke:
        assert found[1] >= 1.5 and share[0] <= 0.1


def test_sequential(store, smoke):
    """At least 15 times fewer samples at one radius, at most 0.3 points of certified accuracy lost, at most 1 % undecided."""
    weights, (x, y) = smoothed.trained(SIGMA, 1 if smoke else 6), nets.mnist(4 if smoke else 500)
    model, n = smoothed.model(weights), 1000 if smoke else 100_000
    found, seconds = {}, {}
    methods = {
        "fixed": jaxsec.Smoothing(sigma=SIGMA, n=n),
        "betting": jaxsec.SequentialSmoothing(sigma=SIGMA, n=n),
        "staged": jaxsec.SequentialSmoothing(sigma=SIGMA, n=n, by="staged"),
    }
    for name, method in methods.items():
        begin = time.perf_counter()
        found[name] = jaxsec.certify(model, x, y, threat=THREAT, method=method, key=KEY, progress=False)
        seconds[name] = time.perf_counter() - begin
    samples = {k: float(np.mean(c.samples)) for k, c in found.items()}
    certified = {k: 100 * float(np.mean(c.robust)) for k, c in found.items()}
    undecided = {k: 100 * float(np.mean(c.status == jaxsec.smooth.SmoothedVerdict.OPEN)) for k, c in found.items()}
    fewer = {k: samples["fixed"] / v for k, v in samples.items()}
    clean = 100 * float(np.mean(np.argmax(np.asarray(model(jnp.asarray(x))), 1) == y))
    store(
        net="mnist_wong trained at sigma 0.25", sigma=SIGMA, radius=RADIUS, rows=len(y), clean=clean, samples=samples, certified=certified,
        undecided=undecided, fewer=fewer, seconds=seconds,
        radius_mean=float(np.mean(found["fixed"].radius * (found["fixed"].predict == y))),
    )  # fmt: skip
    if not smoke:
        assert fewer["betting"] >= 15 and certified["betting"] >= certified["fixed"] - 0.3 and undecided["betting"] <= 1
