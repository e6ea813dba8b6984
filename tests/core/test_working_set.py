"""Batches that stay in a CPU's caches: counted from the program's shapes alone."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxsec
from jaxsec.core import _working_set
from jaxsec.core._check import program_of


def conv(p, x):
    h = jax.nn.relu(jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME"))  # [B, 8, 16, 16]
    return jax.jit(lambda h: h.reshape(len(h), -1) @ p["d"])(h)  # [B, 3]


def model():
    return jaxsec.bind(conv, {"w": jnp.zeros((8, 4, 3, 3)), "d": jnp.zeros((2048, 3))})


def test_rows_count_inputs_and_what_the_backward_pass_keeps():
    x = np.zeros((5, 4, 16, 16), np.float32)
    assert _working_set.bytes_per_row(program_of(model(), x).jaxpr) == 4 * (8 * 16 * 16 + 3)
    row = 4 * (4 * 16 * 16 + 8 * 16 * 16 + 3)
    rows = _working_set.rows_in_cache(model(), x)
    assert rows * row <= _working_set.BUDGET < 2 * rows * row


def test_the_largest_models_keep_a_batch(monkeypatch):
    x = np.zeros((5, 4, 16, 16), np.float32)
    monkeypatch.setattr(_working_set, "BUDGET", 1)
    assert _working_set.rows_in_cache(model(), x) == _working_set.FEWEST
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert _working_set.rows_in_cache(model(), x) >= 2**20


def test_results_do_not_depend_on_it(monkeypatch):
    r = np.random.default_rng(0)
    x, y = r.uniform(size=(40, 4, 16, 16)).astype(np.float32), r.integers(3, size=40)
    net = jaxsec.bind(conv, {k: jnp.asarray(r.normal(size=v.shape), jnp.float32) for k, v in model().params.items()})

    def run():
        threat = jaxsec.LInf(eps=0.02, lo=0.0, hi=1.0)
        return jaxsec.attack(net, x, y, threat=threat, method=jaxsec.PGD(steps=3), key=jax.random.key(0), progress=False)

    whole = run()
    monkeypatch.setattr(_working_set, "BUDGET", 1)
    small = run()
    np.testing.assert_array_equal(np.asarray(whole.success), np.asarray(small.success))
    np.testing.assert_allclose(np.asarray(whole.x), np.asarray(small.x), atol=1e-6)
