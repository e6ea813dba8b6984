"""Absolute times, for a trend on one machine and never a gate: `make bench` saves them under .benchmarks with the commit, and
`pytest-benchmark compare` shows them. Trace, lower, compile and run are four benches; each carries its quality in `extra_info`.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.threat import named

from . import nets

pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")
EPS = {"linf": 0.1, "l2": 1.0, "l1": 8.0}


def methods(smoke: bool):
    steps, queries = (2, 5) if smoke else (20, 500)
    return {
        "fgsm": jaxsec.FGSM(),
        "pgd": jaxsec.PGD(steps=steps),
        "apgd-ce": jaxsec.APGD(steps=steps),
        "apgd-t": jaxsec.APGD(steps=steps, targets=3),
        "fab-t": jaxsec.FAB(steps=steps, targets=3, minimise=False),
        "square": jaxsec.Square(steps=queries),
    }


@pytest.fixture
def wong(smoke):
    x, y = nets.mnist(16 if smoke else 128)
    return jaxsec.bind(nets.wong, [jnp.asarray(a) for a in nets.weights("mnist_wong")]), x, y


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", methods(True))
def test_run(name, norm, wong, smoke, benchmark):
    model, x, y = wong
    method, threat = methods(smoke)[name], named(norm, eps=EPS[norm], lo=0.0, hi=1.0)

    def run():
        r = jaxsec.attack(model, x, y, threat=threat, method=method, key=jax.random.key(0), progress=False)
        return float(np.asarray(r.success).mean())

    error = benchmark.pedantic(run, warmup_rounds=1, rounds=3)
    clean = float(np.mean(np.asarray(jax.jit(model)(x).argmax(axis=1)) != y))
    benchmark.extra_info.update(error_under_attack=error, clean_error=clean, rows=len(x), eps=EPS[norm])
    assert error >= clean


@pytest.mark.parametrize("phase", ["trace", "lower", "compile"])
def test_program(phase, wong, smoke, benchmark):
    """PGD under the caller's own `jit`, from Python to machine code."""
    model, x, y = wong
    method = methods(smoke)["pgd"]
    args = (model, jnp.asarray(x), jnp.asarray(y), jax.random.key(0))

    def before():
        jax.clear_caches()
        # a new function each time: jit remembers what it has traced
        f = jax.jit(lambda m, x, y, key: jaxsec.attack(m, x, y, threat=jaxsec.LInf(eps=0.1), method=method, key=key).x)
        made = f.trace if phase == "trace" else f.trace(*args).lower if phase == "lower" else f.trace(*args).lower().compile
        return (args if phase == "trace" else ()), {"made": made}

    benchmark.pedantic(lambda *a, made: made(*a), setup=before, rounds=1 if smoke else 3)


@pytest.mark.parametrize("norm", EPS)
def test_project(norm, smoke, benchmark):
    r = np.random.default_rng(0)
    x0 = jnp.asarray(r.uniform(0, 1, (500, 784)), jnp.float32)
    x = x0 + jnp.asarray(r.normal(size=x0.shape), jnp.float32)
    threat = named(norm, eps=EPS[norm], lo=0.0, hi=1.0)
    project = jax.jit(lambda t, x0, x: t.project(x0, x))
    out = benchmark.pedantic(lambda: project(threat, x0, x).block_until_ready(), warmup_rounds=2, rounds=20)
    benchmark.extra_info["inside"] = float(jnp.mean(threat.contains(x0, out)))
    assert benchmark.extra_info["inside"] == 1.0


@pytest.mark.parametrize("name", ["jax", "jaxsec"])
def test_import(name, smoke, benchmark):
    benchmark.pedantic(lambda: subprocess.run([sys.executable, "-c", f"import {name}"], check=True), rounds=1 if smoke else 5)


def test_load_onnx(benchmark, smoke):
    pytest.importorskip("onnx")
    file = nets.SHARED / "vnncomp" / "sri_resnet_a" / "onnx" / "resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx.gz"
    model = benchmark.pedantic(lambda: jaxsec.load(file), rounds=1 if smoke else 5)
    assert model.info.n_classes == 10
