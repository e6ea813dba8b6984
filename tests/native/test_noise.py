"""The noise call against its twin under every transformation; the twin against float64, and the stream it says it reads."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

from jaxsec import _native
from jaxsec._native import _noise, _noise_tpu, _normal

RNG = np.random.default_rng(0)
B, N, D = 8, 5, 45
X = jnp.asarray(RNG.random((B, D)), jnp.float32)
KEY = jnp.asarray(RNG.integers(0, 2**32, (B, 2)), jnp.uint32)
FIRST = jnp.asarray([[0xFFFFFFFE, 3], [1, 0], *[[7, 9]] * (B - 2)], jnp.uint32)
SIGMA = jnp.linspace(0.25, 2.0, B)
NO_TABLE = jnp.zeros((2, 0), jnp.uint32)
MULTIPLY, ADD = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.0, 0.5, -0.5])


REAL = _native.DISTRIBUTIONS[:3]  # the discrete Gaussian has a file of its own

twin = jax.jit(_native.twin, static_argnums=0)


def plan(n: int = N, d: int = D, inner: int = 1, distribution: str = "gaussian", dtype=jnp.float32) -> _native.NoisePlan:
    return _native.plan_of(n, d, inner, distribution, dtype)


def same(path: str, a, b) -> None:
    """Native values are the same bits in every program; XLA joins the twin's products and sums as it likes."""
    if path == "native":
        np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=4e-6)


def ulps(a: np.ndarray, b: np.ndarray) -> int:
    a, b = (np.asarray(v, np.float32).view(np.int32).astype(np.int64) for v in (a, b))
    a, b = (np.where(v < 0, -(2**31) - v, v) for v in (a, b))
    return int(np.abs(a - b).max(initial=0))


@pytest.mark.parametrize("distribution", REAL)
@pytest.mark.parametrize("d", [1, 5, 64, 129, 785])
def test_native_noise_is_the_twins_to_4_ulp(native: None, distribution: str, d: int) -> None:
    p = plan(3, d, distribution=distribution)
    args = (jnp.zeros((B, 0)), KEY, FIRST, jnp.ones(B), jnp.ones(1), jnp.zeros(1))
    got, want = jax.jit(_native.noised, static_argnums=0)(p, *args), twin(p, *args)
    assert got.shape == (B, 3, d) and ulps(got, want) <= (0 if distribution == "uniform" else 4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("kind", "channels", "inner"), [*itertools.product(("float32", "uint8"), (1, 3), (1, 7, 15))])
def test_native_batches_are_the_twins(native: None, kind: str, channels: int, inner: int, dtype) -> None:
    x = X if kind == "float32" else jnp.asarray(RNG.integers(0, 256, (B, D)), jnp.uint8)
    p = plan(inner=inner, dtype=dtype)
    args = (x, KEY, FIRST, SIGMA, MULTIPLY[:channels], ADD[:channels])
    got, want = (np.asarray(v, np.float32) for v in (_native.noised(p, *args), twin(p, *args)))
    # sums of terms up to 6: rounding in another order moves a bfloat16 to its neighbour now and then
    np.testing.assert_allclose(got, want, rtol=8e-3 if dtype == jnp.bfloat16 else 1e-6, atol=2e-6)
    if dtype == jnp.bfloat16:
        assert (got != want).mean() < 1e-2


def test_native_is_what_runs(native: None) -> None:
    lowered = jax.jit(_native.noised, static_argnums=0).lower(plan(), X, KEY, FIRST, SIGMA, MULTIPLY, ADD).compile().as_text()
    assert "jaxsec_noise" in lowered


def test_the_twin_reads_the_stream_it_says() -> None:
    """Block b of sample s is Philox at (b, stream, s, s >> 32), its words make quarters of the row."""
    d, blocks, block = 9, 3, jax.jit(_native.philox4x32)
    y = twin(plan(3, d, distribution="uniform"), X[:, :0], KEY, FIRST, jnp.ones(B), jnp.ones(1), jnp.zeros(1))
    for row, s, p in itertools.product((0, 1), range(3), range(d)):
        number = (int(FIRST[row, 1]) << 32 | int(FIRST[row, 0])) + s
        counter = tuple(jnp.uint32(v) for v in (p % blocks, int(_noise._STREAM), number & 0xFFFFFFFF, number >> 32))
        word = int(block(counter, (KEY[row, 0], KEY[row, 1]))[p // blocks])
        assert float(y[row, s, p]) == pytest.approx((word + 0.5) / 2**31 - 1, abs=1e-7)


def test_samples_depend_on_their_number_alone(path: str) -> None:
    args = (X, KEY, FIRST, SIGMA, MULTIPLY, ADD)
    noised = jax.jit(_native.noised, static_argnums=0)
    whole = noised(plan(9), *args)
    moved = FIRST + jnp.asarray([[4, 0]], jnp.uint32)
    moved = jnp.concatenate([jnp.asarray([[2, 4]], jnp.uint32), moved[1:]])  # the carry
    same(path, whole[:, 4:], noised(plan(5), X, KEY, moved, *args[3:]))
    same(path, whole[2:3], noised(plan(9), *(a[2:3] for a in args[:4]), *args[4:]))


def test_transforms_against_float64() -> None:
    words = RNG.integers(0, 2**32, (2, 100_000), np.uint32)
    words[0, :6] = [0, 1, 2**31, 2**32 - 1, 2**32 - 300, 3]
    z0, z1 = (np.asarray(z) for z in _normal.normal_pair(jnp.asarray(words[0]), jnp.asarray(words[1])))
    u = (words[0].astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)).astype(np.float64)
    r, angle = np.sqrt(-2 * np.log(u)), words[1] * 2.0**-32 * 2 * np.pi
    np.testing.assert_allclose(z0, r * np.cos(angle), rtol=0, atol=3e-6)
    np.testing.assert_allclose(z1, r * np.sin(angle), rtol=0, atol=3e-6)
    assert np.abs(np.hypot(z0, z1) - r).max() < 2e-6 and z0[3] == 0
    tail = np.asarray(_normal.laplace(jnp.asarray(words[0])))
    u = ((words[0] & 0x7FFFFFFF) + 0.5) * 2.0**-31
    np.testing.assert_allclose(np.abs(tail), -np.log(u), rtol=1e-6, atol=1e-7)
    assert ((tail < 0) == (words[0] >= 2**31))[np.abs(tail) > 0].all()


@pytest.mark.parametrize(
    ("distribution", "law"), [("gaussian", stats.norm()), ("laplace", stats.laplace()), ("uniform", stats.uniform(-1, 2))]
)
def test_values_follow_the_law(path: str, distribution: str, law) -> None:
    n = 64
    p = plan(n, 4096, distribution=distribution)
    z = np.asarray(_native.noised(p, X[:1, :0], KEY[:1], FIRST[:1], jnp.ones(1), jnp.ones(1), jnp.zeros(1))[0], np.float64)
    assert stats.kstest(z.ravel(), law.cdf).pvalue > 1e-4
    assert abs(z.mean()) < 5 * law.std() / np.sqrt(z.size) and abs(z.var() / law.var() - 1) < 0.02
    bound = 5 / np.sqrt(z.size)
    quarters = z.reshape(n, 4, -1)
    pairs = {"neighbours": (z[:, 1:], z[:, :-1]), "samples": (z[1:], z[:-1]), "pairs": (quarters[:, 0], quarters[:, 1])}
    for name, (a, b) in pairs.items():
        for f in (lambda v: v, np.square):  # squares too: a pair shares its radius's word, and must not share its size
            assert abs(np.corrcoef(f(a).ravel(), f(b).ravel())[0, 1]) < 2 * bound, name


def test_vmap_joins_the_batch(path: str) -> None:
    args = (X, KEY, FIRST, SIGMA)
    y = _native.noised(plan(), *args, MULTIPLY, ADD)
    one = jax.vmap(lambda x, k, f, s: _native.noised(plan(), x[None], k[None], f[None], s[None], MULTIPLY, ADD)[0])
    same(path, jax.jit(one)(*args), y)
    scales = jnp.asarray([1.0, 2.0])
    many = jax.vmap(lambda s, m: _native.noised(plan(), X, KEY, FIRST, s * SIGMA, m * MULTIPLY, ADD), (0, 0))(scales, scales)
    same(path, many[0], y)
    same(path, many[1], _native.noised(plan(), X, KEY, FIRST, 2 * SIGMA, 2 * MULTIPLY, ADD))


def test_derivatives_are_those_of_the_sum(path: str) -> None:
    args = (X, SIGMA, MULTIPLY, ADD)

    def y(x, s, m, a):
        return _native.noised(plan(), x, KEY, FIRST, s, m, a)

    def plain(x, s, m, a):
        z = _native.noised(plan(), X[:, :0], KEY, FIRST, jnp.ones(B), jnp.ones(1), jnp.zeros(1))
        wide = jnp.tile(m, D // 3)[None, None], jnp.tile(a, D // 3)[None, None]
        return (x[:, None] + s[:, None, None] * z) * wide[0] + wide[1]

    weights = jnp.asarray(RNG.normal(size=(B, N, D)), jnp.float32)
    got, want = (jax.jit(jax.grad(lambda *t, f=f: jnp.sum(f(*t) * weights), (0, 1, 2, 3)))(*args) for f in (y, plain))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)
    each = jax.vmap(jax.grad(lambda x, k: jnp.sum(_native.noised(plan(), x[None], k[None], FIRST[:1], SIGMA[:1], MULTIPLY, ADD) ** 2)))
    assert each(X, KEY).shape == X.shape


def test_devices_make_their_own_rows(path: str, devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,), devices=devices)
    rows, all_of = PartitionSpec("b"), PartitionSpec()
    args = (X, KEY, FIRST, SIGMA, MULTIPLY, ADD)
    y = _native.noised(plan(), *args)
    placed = [jax.device_put(a, NamedSharding(mesh, rows)) for a in args[:4]]
    fn = jax.jit(lambda *t: _native.noised(plan(), *t))
    text = fn.lower(*placed, MULTIPLY, ADD).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
    found = fn(*placed, MULTIPLY, ADD)
    assert found.sharding.spec[0] == "b"
    same(path, found, y)
    by_hand = jax.jit(jax.shard_map(lambda *t: _native.noised(plan(), *t), mesh=mesh, in_specs=(rows,) * 4 + (all_of,) * 2, out_specs=rows))
    same(path, by_hand(*args), y)


def test_one_trace_for_all_values(path: str) -> None:
    fn = jax.jit(lambda *t: _native.noised(plan(), *t))
    fn(X, KEY, FIRST, SIGMA, MULTIPLY, ADD)
    fn(X + 1, KEY + 1, FIRST, 2 * SIGMA, MULTIPLY + 1, ADD)
    assert fn._cache_size() == 1


@pytest.mark.parametrize("distribution", REAL)
def test_the_tpu_kernel_is_the_twin_and_lowers(distribution: str) -> None:
    """Interpreted here: the same operations on blocks. 11 samples leave a tile that sticks out."""
    n, d = 11, 1536
    p = plan(n, d, 1, distribution)
    x = jnp.asarray(RNG.random((2, d)), jnp.float32)
    want = twin(p, x, KEY[:2], FIRST[:2], SIGMA[:2], jnp.ones(1), jnp.zeros(1))
    how = {"n": n, "stream": int(_noise._STREAM), "distribution": distribution}
    scale = jnp.broadcast_to(SIGMA[:2, None], (2, d))
    got = _noise_tpu.noised_tpu(FIRST[:2], KEY[:2], (x, scale), NO_TABLE, **how, dtype=jnp.float32, interpret=True)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=4e-6)
    call = jax.jit(lambda *t: _native.noised(plan(n, d, 1, distribution, jnp.bfloat16), *t))
    exported = jax.export.export(call, platforms=["tpu"])(x, KEY[:2], FIRST[:2], SIGMA[:2], jnp.ones(1), jnp.zeros(1))
    assert "tpu_custom_call" in exported.mlir_module()
    assert not _noise_tpu.fits(785, NO_TABLE) and not _noise_tpu.fits(0, NO_TABLE)


@pytest.mark.parametrize(("b", "n", "d"), [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_nothing_to_make(path: str, b: int, n: int, d: int) -> None:
    y = _native.noised(plan(n, d), X[:b, :d], KEY[:b], FIRST[:b], SIGMA[:b], MULTIPLY, ADD)
    assert y.shape == (b, n, d)


def test_it_lowers_for_every_platform(path: str) -> None:
    allowed = [jax.export.DisabledSafetyCheck.custom_call("jaxsec_noise")]
    exported = jax.export.export(jax.jit(lambda *t: _native.noised(plan(), *t)), platforms=["cpu", "cuda", "tpu"], disabled_checks=allowed)
    assert set(exported(X, KEY, FIRST, SIGMA, MULTIPLY, ADD).platforms) == {"cpu", "cuda", "tpu"}
