"""Certificates on the grid of 1/255: exact probabilities against every grid perturbation, what rows are taken, the same counts anywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import special

import jaxsec
from jaxsec import _native
from jaxsec._native import _discrete
from jaxsec.smooth import _randomizer

RNG = np.random.default_rng(0)
W = RNG.normal(size=(20, 2)).astype(np.float32)
MODEL = jaxsec.bind(lambda p, x: (x - 0.5) @ p, jnp.asarray(W))
X = RNG.integers(0, 256, (16, 20)).astype(np.uint8)
Y = np.asarray(((X / 255 - 0.5) @ W).argmax(1), np.int32)
KEY = jax.random.key(1)
METHOD = jaxsec.Smoothing(sigma=0.25, n=1000, distribution="discrete-gaussian")
THREAT = jaxsec.L2(eps=0.1, lo=0.0, hi=1.0)


def certified(x=X, method=METHOD, threat=THREAT, **more) -> jaxsec.SmoothedCertificate:
    return jaxsec.certify(MODEL, x, Y[: len(x)], threat=threat, method=method, key=KEY, progress=False, **more)


@pytest.mark.parametrize("s", [0.6, 2.0, 4.0])
def test_no_grid_perturbation_breaks_an_exact_certificate(s: float) -> None:
    """Classifiers of the plane with random tables and half planes; the smoothed probability everywhere, by convolution, exact to 1e-12."""
    half = np.array([float(p) for p in _discrete.masses(s)]) / 2**64
    kernel = np.concatenate([half[:0:-1], half])
    size, reach = 121, len(half)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1) - size // 2
    sigma, broken, tight = s / 255, 0, []
    for trial in range(12):
        if trial % 2:
            angle = RNG.normal(size=2)
            classes = grid @ (angle / np.linalg.norm(angle)) > RNG.normal()
        else:
            blocks = RNG.random((size // 3 + 1, size // 3 + 1)) < 0.7
            classes = np.kron(blocks, np.ones((3, 3)))[:size, :size] > 0
        p = classes.astype(float)
        for axis in (0, 1):
            p = np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), axis, p)
        for i, j in RNG.integers(reach + 12, size - reach - 12, (30, 2)):
            found = (
                _randomizer.DiscreteGaussian()
                .reach(jaxsec.L2(eps=0.0), np.array([sigma]), (2,))
                .radius(p[i, j : j + 1] - 1e-12, np.zeros(1, int))
            )
            steps = 255 * float(found[0])
            if p[i, j] <= 0.5 or steps <= 0:
                continue
            near = np.hypot(*(grid - grid[i, j]).transpose(2, 0, 1)) <= steps
            broken += int(np.any(p[near] <= 0.5))
            if trial % 2:
                lost = np.hypot(*(grid - grid[i, j])[p <= 0.5].T).min(initial=np.inf)
                tight.append(steps / lost)
    assert broken == 0 and max(tight) > 0.8  # half planes are the worst case: the radius nearly reaches where they change


def test_what_the_draw_lacks_is_taken_off() -> None:
    sigma, shape, one = np.array([0.25]), (3, 224, 224), np.zeros(1, int)
    exact = _randomizer.Additive("gaussian").reach(THREAT, sigma, shape)
    found = _randomizer.DiscreteGaussian().reach(THREAT, sigma, shape)
    less = _native.deviation(63.75) * 3 * 224 * 224
    assert 0 < less < 1e-10 and found.p0[0] == exact.p0[0] + less
    p = np.array([0.9])
    assert found.radius(p, one) == exact.radius(p - less, one) < exact.radius(p, one)
    assert found.radius(np.ones(1), one)[0] < 0.25 * special.ndtri(1 - less / 2)


def test_bytes_and_numbers_on_the_grid_are_the_same_rows() -> None:
    bytes_, numbers = certified(), certified((X / np.float32(255)).astype(np.float32))
    np.testing.assert_array_equal(bytes_.counts, numbers.counts)
    assert bytes_.distribution == "discrete-gaussian" and bytes_.norm == "l2" and bytes_.robust.any()
    np.testing.assert_array_equal(np.asarray(bytes_.predict)[bytes_.robust], Y[bytes_.robust])
    other = certified(threat=jaxsec.LInf(eps=0.01, lo=0.0, hi=1.0))
    np.testing.assert_allclose(other.radius, bytes_.radius / np.sqrt(20), rtol=1e-6)


@pytest.mark.parametrize("how", [{"max_samples": 64}, {"max_samples": 500}])
def test_the_batch_does_not_matter(how: dict[str, int]) -> None:
    np.testing.assert_array_equal(certified(**how).counts, certified().counts)


def test_devices_do_not_matter(devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:4])
    placed = jax.device_put(X, NamedSharding(mesh, PartitionSpec("rows")))
    np.testing.assert_array_equal(certified(placed).counts, certified().counts)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"are no k / 255 .* the first 0\.25"):
        certified(np.full((2, 20), 0.25, np.float32))
    with pytest.raises(ValueError, match="one for all rows"):
        certified(method=METHOD.replace(sigma=np.linspace(0.1, 0.2, 16)))
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda s: jaxsec.smooth.noise(KEY, (2, 3), sigma=s, distribution="discrete-gaussian"))(0.25)
    with pytest.raises(ValueError, match="sigma is missing"):
        certified(method=jaxsec.Smoothing(n=10))
    empty = jaxsec.certify(MODEL, X[:0], Y[:0], threat=THREAT, method=METHOD, key=KEY)
    assert empty.radius.shape == (0,)


def test_noise_is_on_the_grid() -> None:
    z = np.asarray(jaxsec.smooth.noise(KEY, (50, 100), sigma=0.5, distribution="discrete-gaussian"), np.float64) * 255
    assert np.abs(z - np.rint(z)).max() < 1e-3 and abs(z.std() / 127.5 - 1) < 0.04
    x = jnp.asarray(X[:2])
    y = np.asarray(jaxsec.smooth.noisy_batch(KEY, x, 0.5, 0, 3, distribution="discrete-gaussian"), np.float64) * 255
    assert np.abs(y - np.rint(y)).max() < 1e-3 and np.std(y - np.repeat(X[:2], 3, 0)) > 90
