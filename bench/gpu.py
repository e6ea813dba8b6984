"""Noise and smoothing on a GPU: `python -m bench.gpu` writes bench/results/gpu.json; `--smoke` runs everything once, small, anywhere.

Noise against a device copy and against jax.random.normal, noised and cast under one jit; a ResNet-110 of random weights in bfloat16 at
n = 100,000, and with sequential stopping on inputs whose certified radii are those of a published log (500 CIFAR images, sigma 0.25): a
linear term decides the class, and the net is evaluated beside it.
"""

import csv
import gzip
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxsec
from jaxsec import _native
from jaxsec.smooth import noisy_batch

from .conftest import RESULTS
from .nets import SHARED

SIGMA, D = 0.25, 3072
LOG = "cohen__cifar10__resnet110__noise_0.25__test__sigma_0.25.csv.gz"


def clock(call: Any, rounds: int) -> float:
    """Median seconds after two warm-ups."""
    seconds = []
    for i in range(rounds + 2):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        if i > 1:
            seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def agreement() -> dict[str, int]:
    """Greatest distance of the kernel's values from the twin's on the CPU, in units of the last place."""
    rng, found = np.random.default_rng(0), {}
    args = (
        np.zeros((3, 0), np.float32),
        rng.integers(0, 2**32, (3, 2)).astype(np.uint32),
        np.array([[2**32 - 1, 3], [1, 0], [7, 9]], np.uint32),
    )
    rest = (np.ones(3, np.float32), np.ones(1, np.float32), np.zeros(1, np.float32))
    for name in _native.DISTRIBUTIONS:
        plan = _native.plan_of(5, D, 1, name, jnp.float32)
        here = np.asarray(jax.jit(_native.noised, static_argnums=0)(plan, *args, *rest))
        with jax.default_device(jax.devices("cpu")[0]):
            twin = np.asarray(jax.jit(_native.twin, static_argnums=0)(plan, *args, *rest))
        bits = [v.view(np.int32).astype(np.int64) for v in (here, twin)]
        same = np.sign(here) == np.sign(twin)
        found[name] = int(np.abs(bits[0] - bits[1])[same].max()) if same.all() else -1
    return found


def noise(n: int, rounds: int) -> dict[str, Any]:
    """Bytes written a second: our fused batch, a device copy, and jax.random.normal with what follows it."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, D)), jnp.uint8)
    mean, std = jnp.asarray([0.49, 0.48, 0.45]), jnp.asarray([0.25, 0.24, 0.26])
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        total = n * D * jnp.dtype(dtype).itemsize
        big = jnp.zeros((n, D), dtype)
        copied = jax.jit(lambda v: v + 1)
        copy = clock(lambda big=big, copied=copied: copied(big), rounds)
        del big
        batch = jax.jit(lambda k, x, dtype=dtype: noisy_batch(k, x.reshape(1, 32, 32, 3), SIGMA, 0, n, mean=mean, std=std, dtype=dtype))
        ours = clock(lambda batch=batch: batch(jax.random.key(0), x), rounds)
        row = {"copy_gb_s": total / copy / 1e9, "gb_s": total / ours / 1e9, "of_copy": copy / ours}
        for name in ("threefry2x32", "rbg"):

            @jax.jit
            def plain(k: jax.Array, x: jax.Array, dtype: Any = dtype) -> jax.Array:
                z = x.astype(jnp.float32) / 255 + SIGMA * jax.random.normal(k, (n, D))
                return ((z - jnp.tile(mean, D // 3)[None]) / jnp.tile(std, D // 3)[None]).astype(dtype)

            row[f"times_faster_than_{name}"] = clock(lambda plain=plain, name=name: plain(jax.random.key(0, impl=name), x), rounds) / ours
        found[jnp.dtype(dtype).name] = row
    return found


def resnet110(blocks: int) -> tuple[Any, Any]:
    """(net, params): `blocks` a stage of widths 16, 32, 64 (18 in a ResNet-110), BatchNorm folded away, bfloat16; and a linear vote."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[-4:-1])), jnp.bfloat16)

    def conv(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
        return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    stages = []
    for wide, c in ((16, 16), (16, 32), (32, 64)):
        first, short = (weights(3, 3, wide, c), weights(3, 3, c, c)), weights(1, 1, wide, c)
        rest = (weights(blocks - 1, 3, 3, c, c), weights(blocks - 1, 3, 3, c, c))
        stages.append({"first": first, "short": short, "rest": rest})
    direction = rng.normal(size=D).astype(np.float32)
    params = {
        "stem": weights(3, 3, 3, 16),
        "head": weights(64, 10),
        "stages": stages,
        "vote": jnp.asarray(direction / np.linalg.norm(direction)),
    }

    def net(p: Any, images: jax.Array) -> jax.Array:
        x = jax.nn.relu(conv(images.astype(jnp.bfloat16), p["stem"]))
        for i, stage in enumerate(p["stages"]):
            h = conv(jax.nn.relu(conv(x, stage["first"][0], 1 + (i > 0))), stage["first"][1])
            x = jax.nn.relu(h + conv(x, stage["short"], 1 + (i > 0)))
            x, _ = lax.scan(lambda x, w: (jax.nn.relu(x + 0.1 * conv(jax.nn.relu(conv(x, w[0])), w[1])), None), x, stage["rest"])
        logits = (x.mean((1, 2)) @ p["head"]).astype(jnp.float32)
        margin = images.reshape(len(images), -1).astype(jnp.float32) @ p["vote"].astype(jnp.float32)
        return 1e-9 * logits + jnp.stack([margin, jnp.zeros_like(margin), *[jnp.full_like(margin, -10.0)] * 8], 1)

    return net, params


def smoothing(rows: int, n: int, blocks: int, batches: tuple[int, ...]) -> dict[str, Any]:
    """Seconds an image at a fixed n, images a second with sequential stopping."""
    net, params = resnet110(blocks)
    model = jaxsec.bind(net, params)
    with gzip.open(SHARED / "smoothing" / LOG, "rt") as file:
        log = list(csv.DictReader(file))[:rows]
    radii = np.array([float(r["radius"]) if r["predict"] != "-1" else -0.05 for r in log], np.float32)
    x = (radii[:, None] * np.asarray(params["vote"])[None]).reshape(-1, 32, 32, 3)
    y, threat, key = np.zeros(len(x), np.int32), jaxsec.L2(eps=0.25), jax.random.key(0)
    found = {}
    for batch in batches:

        def run(method: Any, count: int, batch: int = batch) -> tuple[Any, float]:
            begin = time.perf_counter()
            c = jaxsec.certify(model, x[:count], y[:count], threat=threat, method=method, key=key, max_samples=batch, progress=False)
            return c, time.perf_counter() - begin

        fixed = jaxsec.Smoothing(sigma=SIGMA, n=n, dtype="bfloat16")
        run(fixed.replace(n=min(n, 1000)), 2)
        c, seconds = run(fixed, min(3, rows))
        row: dict[str, Any] = {"fixed_seconds_per_image": seconds / len(c.robust), "fixed_samples_per_s": float(c.samples.sum() / seconds)}
        c, seconds = run(jaxsec.SequentialSmoothing(sigma=SIGMA, n=n, dtype="bfloat16"), rows)
        row |= {"sequential_images_per_s": rows / seconds, "sequential_samples_per_row": float(c.samples.mean())}
        row |= {"certified": float(c.robust.mean()), "true": float((radii >= 0.25).mean()), "open": int((c.status == 1).sum())}
        found[str(batch)] = row
    return found


if __name__ == "__main__":
    small = "--smoke" in sys.argv
    if jax.default_backend() != "gpu" and not small:
        sys.exit("no GPU here; --smoke runs everything once, small")
    said: dict[str, Any] = {"jax": jax.__version__, "device": str(jax.devices()[0].device_kind), "cuda": _native.cuda_status()}
    said |= {"ulp": agreement(), "noise": noise(64 if small else 200_000, 1 if small else 7)}
    said["resnet110"] = smoothing(3 if small else 500, 300 if small else 100_000, 2 if small else 18, (64,) if small else (4096, 16_384))
    print(json.dumps(said, indent=1))
    if not small:
        (RESULTS / "gpu.json").write_text(json.dumps(said, indent=1) + "\n")
