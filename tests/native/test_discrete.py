"""The discrete Gaussian: its table against exact probabilities, its integers on every backend, its law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxsec import _native
from jaxsec._native import _discrete, _noise, _noise_tpu

RNG = np.random.default_rng(0)
B, N, D = 3, 5, 45
KEY = jnp.asarray(RNG.integers(0, 2**32, (B, 2)), jnp.uint32)
FIRST = jnp.asarray([[0xFFFFFFFE, 3], [1, 0], [7, 9]], jnp.uint32)
PIXELS = jnp.asarray(RNG.integers(0, 256, (B, D)), jnp.uint8)
ONES = jnp.ones(B)
TABLE = jnp.asarray(_native.alias_table(63.75))
# Cells of which many words do not decide, so that the second word is read: 16 bits name the cell, 16 are compared.
COARSE = jnp.asarray(np.stack([RNG.integers(0, 2**32, 2**16, np.uint32), RNG.integers(0, 2**32, 2**16, np.uint32)]))

twin = jax.jit(_native.twin, static_argnums=0)


def plan(n: int = N, d: int = D, inner: int = 1, dtype=jnp.float32) -> _native.NoisePlan:
    return _native.plan_of(n, d, inner, _native.DISCRETE, dtype)


@pytest.mark.parametrize("s", [0.3, 1.0, 30.6, 63.75, 127.5])
def test_masses_are_the_exact_probabilities(s: float) -> None:
    """Tails against scipy's log of the normal distribution, 1e-13 of each; the sum is exact."""
    p = _discrete.masses(s)
    assert p[0] + 2 * sum(p[1:]) == 2**64
    tails = [sum(p[k:]) for k in range(1, len(p))]
    exact = np.exp(special.log_ndtr(-(np.arange(1, len(p)) - 0.5) / s))
    got = np.array([float(t) for t in tails]) / 2**64
    assert np.all(np.abs(got - exact) <= 1e-13 * exact + 2.0**-64)
    # the sum over outcomes of at most one unit each, halved, and what lies beyond the last
    assert (len(p) + 1) * 2.0**-64 < _native.deviation(s) < 1e-15 + 1e-17 * s


@pytest.mark.parametrize("s", [0.01, 0.3, 63.75])
def test_the_table_holds_exactly_those_masses(s: float) -> None:
    table, p = _native.alias_table(s), _discrete.masses(s)
    cells = table.shape[1]
    bits = cells.bit_length() - 1
    shift, centre = 32 - bits, cells // 2
    found = [0] * cells
    for i in range(cells):
        word, low = int(table[0, i]), int(table[1, i])
        cut = (word & ((1 << shift) - 1)) << 32 | low
        found[i] += cut
        found[word >> shift] += (1 << (64 - bits)) - cut
    assert found == [p[abs(k)] if abs(k) < len(p) else 0 for k in range(-centre, cells - centre)]


@pytest.mark.parametrize("s", [0.0, -1.0, float("nan"), 1e4])
def test_no_table(s: float) -> None:
    with pytest.raises(ValueError, match="discrete Gaussian has the standard deviation"):
        _native.alias_table(s)


@pytest.mark.parametrize("kind", ["uint8", "float32", "none"])
@pytest.mark.parametrize("table", ["exact", "coarse"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_native_values_are_the_twins(native: None, kind: str, table: str, dtype) -> None:
    x = {"uint8": PIXELS, "float32": PIXELS.astype(jnp.float32) / 255 + 0.001, "none": jnp.zeros((B, 0), jnp.float32)}[kind]
    args = (x, KEY, FIRST, ONES, jnp.ones(1), jnp.zeros(1), TABLE if table == "exact" else COARSE)
    got, want = _native.noised(plan(dtype=dtype), *args), twin(plan(dtype=dtype), *args)
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.asarray(want, np.float32))


def test_words_that_do_not_decide_read_the_second(path: str) -> None:
    """A million draws of the coarse table in numpy's 64-bit integers; some 16 need the second word."""
    d, n, one = 4096, 256, jnp.ones(1)
    y = _native.noised(plan(n, d), jnp.zeros((1, 0)), KEY[:1], FIRST[:1], one, jnp.full(1, 255.0), jnp.zeros(1), COARSE)
    words = [
        np.stack([np.asarray(w).astype(np.uint64) for w in _noise._words(stream, KEY[:1], FIRST[:1], (1, n, d // 4))], 2).reshape(n, d)
        for stream in (_noise._STREAM, _noise._STREAM + np.uint32(1))
    ]
    own, rest = words[0] >> np.uint64(16), words[0] & np.uint64(0xFFFF)
    cell, low = (np.asarray(half).astype(np.uint64)[own.astype(np.int64)] for half in COARSE)
    below = (rest << np.uint64(32) | words[1]) < ((cell & np.uint64(0xFFFF)) << np.uint64(32) | low)
    assert 2 < np.sum(rest == cell & np.uint64(0xFFFF)) < 60
    outcome = np.where(below, own, cell >> np.uint64(16)).astype(np.int64) - 2**15
    np.testing.assert_array_equal(np.rint(np.asarray(y[0])).astype(np.int64), outcome)


def test_a_sample_is_a_function_of_the_sum(path: str) -> None:
    """Normalised by numbers that round: where byte and noise have the same sum, the values have the same bits."""
    x = jnp.asarray(np.repeat(np.arange(64, dtype=np.uint8), 64)[None])
    multiply, add = jnp.asarray([1 / 0.2023]), jnp.asarray([-0.4914 / 0.2023])
    y = np.asarray(_native.noised(plan(8, 4096), x, KEY[:1], FIRST[:1], jnp.ones(1), multiply, add, TABLE)).ravel()
    z = np.asarray(_native.noised(plan(8, 4096), x, KEY[:1], FIRST[:1], jnp.ones(1), jnp.full(1, 255.0), jnp.zeros(1), TABLE)).ravel()
    steps = np.rint(z).astype(int)
    assert len(np.unique(y)) == len(np.unique(steps)) and len(np.unique(np.stack([steps, y.view(np.int32)]), axis=1).T) == len(np.unique(y))


def test_values_follow_the_law(path: str) -> None:
    p = np.array([float(v) for v in _discrete.masses(3.0)]) / 2**64
    table = jnp.asarray(_native.alias_table(3.0))
    z = _native.noised(plan(64, 4096), jnp.zeros((1, 0)), KEY[:1], FIRST[:1], jnp.ones(1), jnp.full(1, 255.0), jnp.zeros(1), table)
    z = np.rint(np.asarray(z[0])).astype(int)
    kept = 12
    seen = np.bincount(np.clip(z, -kept, kept).ravel() + kept, minlength=2 * kept + 1)
    half = np.append(p[:kept], p[kept:].sum())
    expected = np.concatenate([half[:0:-1], half]) * z.size
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4
    for a, b in ((z[:, 1:], z[:, :-1]), (z[1:], z[:-1]), (np.abs(z[:, 1:]), np.abs(z[:, :-1]))):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01


def test_samples_depend_on_their_number_alone_and_map(path: str) -> None:
    args = (PIXELS, KEY, FIRST, ONES, jnp.ones(1), jnp.zeros(1), TABLE)
    whole = _native.noised(plan(9), *args)
    moved = jnp.asarray([[2, 4], [5, 0], [11, 9]], jnp.uint32)
    np.testing.assert_array_equal(whole[:, 4:], _native.noised(plan(5), PIXELS, KEY, moved, *args[3:]))
    one = jax.vmap(lambda x, k, f: _native.noised(plan(9), x[None], k[None], f[None], jnp.ones(1), *args[4:])[0])
    np.testing.assert_array_equal(jax.jit(one)(PIXELS, KEY, FIRST), whole)


def test_the_gradient_passes_the_rounding(path: str) -> None:
    x, multiply, add = PIXELS.astype(jnp.float32) / 255, jnp.asarray([2.0, 3.0, 4.0]), jnp.zeros(3)
    weights = jnp.asarray(RNG.normal(size=(B, N, D)), jnp.float32)
    wide = jnp.tile(multiply, D // 3)

    def total(x, m):
        return jnp.sum(weights * _native.noised(plan(), x, KEY, FIRST, ONES, m, add, TABLE))

    dx, dm = jax.jit(jax.grad(total, (0, 1)))(x, multiply)
    np.testing.assert_allclose(dx, jnp.sum(weights, 1) * wide[None], rtol=1e-4, atol=1e-4)
    plain = _native.noised(plan(), x, KEY, FIRST, ONES, jnp.ones(1), jnp.zeros(1), TABLE)
    np.testing.assert_allclose(dm, jnp.sum((weights * plain).reshape(-1, 3), 0), rtol=1e-4, atol=1e-4)


def test_the_tpu_kernel_is_the_twin_and_lowers() -> None:
    n, d = 11, 1536
    x = jnp.asarray(RNG.integers(0, 256, (2, d)), jnp.uint8)
    table = jnp.asarray(_native.alias_table(5.0))
    args = (x, KEY[:2], FIRST[:2], ONES[:2], jnp.ones(1), jnp.zeros(1), table)
    parts = (x.astype(jnp.float32), jnp.full((2, d), np.float32(1 / 255)), jnp.zeros((2, d)))
    how = {"n": n, "stream": int(_noise._STREAM), "distribution": _native.DISCRETE, "dtype": jnp.float32, "interpret": True}
    got = _noise_tpu.noised_tpu(FIRST[:2], KEY[:2], parts, table, **how)
    np.testing.assert_allclose(got, twin(plan(n, d), *args), rtol=1e-6, atol=1e-6)
    wide = jnp.asarray(_native.alias_table(63.75))
    call = jax.jit(lambda *t: _native.noised(plan(n, d, dtype=jnp.bfloat16), *t))
    exported = jax.export.export(call, platforms=["tpu"])(*args[:6], wide)
    assert "tpu_custom_call" in exported.mlir_module()
    assert not _noise_tpu.fits(1536, jnp.zeros((2, 8192), jnp.uint32)) and not _noise_tpu.fits(1536, jnp.zeros((2, 64), jnp.uint32))


def test_the_table_is_asked_for() -> None:
    args = (PIXELS, KEY, FIRST, ONES, jnp.ones(1), jnp.zeros(1))
    with pytest.raises(TypeError, match="needs one"):
        _native.noised(plan(), *args)
    with pytest.raises(TypeError, match="others take none"):
        _native.noised(_native.plan_of(N, D, 1, "gaussian", jnp.float32), *args, TABLE)
