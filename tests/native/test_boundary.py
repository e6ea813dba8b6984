"""FAB's native move against its twin: both norms, boxes of every shape, useless planes, `vmap`; and the draws of rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec._native import Move, native_move
from jaxsec.attack._hyperplane import _move
from jaxsec.core import _draws

pytestmark = pytest.mark.usefixtures("native")


def operands(d: int, box: str, seed: int = 0):
    """Twelve rows; of the planes one has no slope, one holds a NaN, one is out of reach, one goes through x, one has no value and
    one has slopes near the largest float."""
    r = np.random.default_rng(seed)
    x, x0 = r.uniform(0.1, 1, size=(2, 12, d))
    w = 1e3 * r.normal(size=(12, d))
    w[3], w[4, d // 2], w[5, ::2] = 0, np.nan, 0
    value = 100 * r.normal(size=12) * np.sqrt(d)
    value[6], value[7], value[8] = 1e9, 0, np.nan
    w[9], value[9] = 8e37 * np.sign(x0[9] - x[9]), 8e37  # the product with x0 - x overflows if nothing is scaled
    lo = {"scalar": np.zeros((1, 1)), "column": 0.1 * r.uniform(size=(12, 1)), "full": 0.1 * r.uniform(size=(12, d))}[box]
    hi = np.full((1, d), np.inf) if box == "full" else np.ones((1, 1))
    return Move(*(jnp.asarray(a, jnp.float32) for a in (x, x0, w, value, lo, hi, 0.1, 1.05)))


@pytest.mark.parametrize("box", ["scalar", "column", "full"])
@pytest.mark.parametrize("d", [1, 16, 37])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_native_move_is_the_twins(norm, d, box):
    a = operands(d, box)
    ours, theirs = jax.jit(functools.partial(native_move, norm))(a), jax.jit(functools.partial(_move, norm))(a)
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    useless = np.array([3, 4, 8])  # no slope, NaN: half way back
    np.testing.assert_allclose(ours[useless], (a[0] + a[1])[useless] / 2, rtol=1e-6)
    assert bool(jnp.all((ours >= a[4]) & (ours <= a[5])))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_vmap_is_one_call(norm):
    a, b = operands(10, "column"), operands(10, "column", seed=1)
    both = Move(*(jnp.stack([u, v]) if i < 5 else u for i, (u, v) in enumerate(zip(a, b, strict=True))))
    axes = (Move(0, 0, 0, 0, 0, None, None, None),)
    run = jax.jit(jax.vmap(functools.partial(native_move, norm), in_axes=axes))
    for got, one in zip(run(both), (a, b), strict=True):
        np.testing.assert_array_equal(got, native_move(norm, one))
    text = run.lower(both).as_text()
    assert text.count("call @jaxsec_boundary_move") + text.count("custom_call @jaxsec_boundary_move") >= 1 and "while" not in text


def test_the_target_checks_its_shapes():
    wrong = operands(10, "scalar")._replace(lo=jnp.zeros((5, 1)))
    with pytest.raises(Exception, match="do not agree"):
        jax.block_until_ready(native_move("linf", wrong))


def test_draws_are_the_same_with_and_without_native_code(monkeypatch):
    streams = _draws.row_streams(jax.random.split(jax.random.key(0), 300))
    found = []
    for native in (True, False):
        monkeypatch.setattr(_draws, "on_one_cpu", lambda native=native: native)
        found.append(np.stack([jax.jit(lambda s, i: _draws.row_uniforms(s, i, 3))(streams, jnp.int32(i)) for i in range(40)]))
    np.testing.assert_array_equal(*found)
    u = found[0]
    assert u.min() >= 0 and u.max() < 1 and np.unique(u).size > 0.99 * u.size
    # mean and neighbouring steps, rows and columns: independent to five standard errors
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1]), (u[..., 1:], u[..., :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)
