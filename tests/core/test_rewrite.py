"""`tuned` computes what the model computes, and leaves nothing slow in the CPU program."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsec._native import available
from jaxsec.core._pool import max_pool, sum_pool
from jaxsec.core._rewrite import tuned
from tests.attack.conftest import mlp, weights
from tests.core.single_device import cases, loss


@pytest.fixture(scope="module")
def checks():
    if not available():
        if os.environ.get("JAXSEC_REQUIRE_NATIVE"):
            pytest.fail("the native module is not built, and JAXSEC_REQUIRE_NATIVE is set")
        pytest.skip("the native module is not built: the rewrite stands back without it")
    quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0"} if os.environ.get("JAXSEC_QUICK") else {}
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"} | quick
    if jax.config.jax_compilation_cache_dir:
        env["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    script = pathlib.Path(__file__).with_name("single_device.py")
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return {c["name"]: c for c in map(json.loads, done.stdout.splitlines()) if "name" in c}


@pytest.mark.parametrize("name", ["residual", "wide", "attention", "shared", "sequence"])
def test_value_and_gradients_agree(checks, name):
    # relative to the largest entry of each gradient; weights included
    assert checks[name]["gap"] < 2e-4
    assert checks[name]["vmap"] < 2e-5 and checks[name]["rows"] < 2e-5


def test_nothing_slow_is_left(checks):
    for name in ("residual", "shared", "sequence"):
        counts = checks[name]["counts"]
        assert counts[" convolution("] == counts["select-and-scatter"] == counts[" conditional("] == 0, (name, counts)
        assert counts["jaxsec_conv2d"] > 0
    # the grouped convolution, forward and backward, is XLA's
    assert checks["wide"]["counts"]["select-and-scatter"] == 0 and checks["wide"]["counts"][" convolution("] == 2
    assert checks["attention"]["counts"]["jaxsec_conv2d"] == 2, "the last dense layer, forward and backward"


SCALARS = {
    "largest row sum": lambda w, x: x @ w / jnp.max(jnp.sum(jnp.abs(w.T), 1)),
    "Frobenius norm": lambda w, x: x @ w * lax.rsqrt(jnp.sum(w.T**2)),
    "scalar in front": lambda w, x: x @ (jnp.sum(w.T) * w.T.T),
    "the weight itself": lambda w, x: x @ (w / jnp.max(jnp.abs(w.T))),
    "a choice": lambda w, x: jnp.where(jnp.sum(w.T) > 0, x @ w, x @ -w),
    "transposed on the left": lambda w, x: (w.T @ x.T).T * jnp.mean(w.T),
}


@pytest.mark.parametrize("name", SCALARS)
def test_scalars_of_a_transposed_matrix(name):
    import jaxsec

    r = np.random.default_rng(0)
    w, x = jnp.asarray(r.normal(size=(10, 3)), jnp.float32), jnp.asarray(r.normal(size=(4, 10)), jnp.float32)
    model = jaxsec.bind(SCALARS[name], w)
    run = jax.value_and_grad(loss, argnums=(0, 1))
    for a, b in zip(jax.tree.leaves(run(model, x)), jax.tree.leaves(run(tuned(model), x)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_the_batch_size(checks):
    assert all(checks[name]["exact"] for name in ("residual", "shared", "sequence"))


@pytest.mark.parametrize("name", ["residual", "shared", "sequence"])
def test_several_devices_run_the_rewritten_program_on_xla(name):
    model, x = next((m, x) for n, m, x in cases() if n == name)
    assert len(jax.devices("cpu")) > 1
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    text = run.lower(tuned(model), x).as_text()
    assert "jaxsec_conv2d" not in text and "select_and_scatter" not in text
    for a, b in zip(jax.tree.leaves(run(model, x)), jax.tree.leaves(run(tuned(model), x)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=2e-4 * float(jnp.max(jnp.abs(a))))


def test_tuning_is_idempotent_and_compares_by_value():
    import jaxsec

    a, b = tuned(jaxsec.bind(mlp, weights(0))), tuned(jaxsec.bind(mlp, weights(1)))
    assert tuned(a) is a
    assert jax.tree.structure(a) == jax.tree.structure(b)


WINDOWS = {
    "tiled": ((1, 2, 2, 1), (1, 2, 2, 1), ((0, 0),) * 4),
    "overlapping": ((1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (0, 1), (0, 0))),
    "one-axis": ((1, 3, 1, 1), (1, 3, 1, 1), ((0, 0),) * 4),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_pools_agree_with_reduce_window_even_on_ties(name):
    window = WINDOWS[name]
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, size=(2, 6, 6, 3)), jnp.float32)  # many ties

    def reference_max(v):
        return lax.reduce_window(v, -jnp.inf, lax.max, *window)

    def reference_sum(v):
        return lax.reduce_window(v, 0.0, lax.add, *window)

    for ours, theirs in ((lambda v: max_pool(v, window), reference_max), (lambda v: sum_pool(v, window), reference_sum)):
        y, pull = jax.vjp(ours, x)
        z, pull2 = jax.vjp(theirs, x)
        g = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), jnp.float32)
        np.testing.assert_array_equal(y, z)
        np.testing.assert_allclose(pull(g)[0], pull2(g)[0], atol=1e-6)
