"""Transformations against NumPy, SciPy and Pillow: what each computes, apart from models and attacks."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft, ndimage

from jaxsec.train._transform_code import BitDepth, Thermometer
from jaxsec.train._transform_filter import Bilateral, GaussianBlur, MedianFilter, TotalVariation, differences, divergence
from jaxsec.train._transform_jpeg import CHROMINANCE, JPEG, LUMINANCE, dct_matrix, scaled_table
from jaxsec.train._transform_random import RandomAblation, RandomCrop, RandomResizePad

R = np.random.default_rng(0)
X = R.random((2, 9, 7, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(1), 2)
MANY = jax.random.split(jax.random.key(2), 200)


def run(transform, x, keys=None):
    return np.asarray(jax.jit(transform.apply)(x, keys), np.float64)


def per_plane(filtered, x):
    """A SciPy filter on each channel of each row [B, H, W, C]."""
    return np.stack([np.stack([filtered(x[b, ..., c]) for c in range(x.shape[3])], -1) for b in range(len(x))])


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_is_the_nearest_of_its_levels(bits):
    v = np.linspace(-0.1, 1.1, 241, dtype=np.float32)[None]
    levels = np.linspace(0, 1, 2**bits)
    out = run(BitDepth(bits=bits), v)
    assert np.abs(out[0, :, None] - levels[None]).min(1).max() < 1e-6 and len(np.unique(out.round(5))) == min(2**bits, 201)
    distance = np.abs(np.clip(v, 0, 1)[0, :, None] - levels[None]).min(1)
    np.testing.assert_allclose(np.abs(out[0] - np.clip(v[0], 0, 1)), distance, atol=1e-6)
    if bits == 3:
        np.testing.assert_allclose(run(BitDepth(bits=3, lo=-1.0, hi=3.0), v * 4 - 1), out * 4 - 1, atol=1e-6)


def test_thermometer_code_of_the_paper():
    # k = 4: b is the least j with x <= j / 4, and channel l is 1 for l >= b
    x = np.array([[0.0, 0.25, 0.3, 0.5, 0.99, 1.0]], np.float32)
    expected = np.zeros((6, 4))
    for i, v in enumerate(x[0]):
        b = next(j for j in range(1, 5) if v <= j / 4)
        expected[i, b - 1 :] = 1
    assert np.array_equal(run(Thermometer(levels=4), x), expected.reshape(1, -1))
    image = run(Thermometer(levels=4), X)
    assert image.shape == (2, 9, 7, 12)
    np.testing.assert_array_equal(image[0, 3, 2, 4:8], X[0, 3, 2, 1] <= np.arange(1, 5) / 4)
    assert run(Thermometer(levels=4, layout="hw"), X[..., 0]).shape == (2, 9, 7, 4)
    chw = run(Thermometer(levels=4, layout="chw"), np.moveaxis(X, -1, 1))
    np.testing.assert_array_equal(np.moveaxis(chw, 1, -1), image)


@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_median_is_scipys(window):
    expected = per_plane(lambda p: ndimage.median_filter(p, size=window, mode="reflect"), X)
    np.testing.assert_array_equal(run(MedianFilter(window=window), X), expected)


@pytest.mark.parametrize("sigma, radius", [(0.7, 3), (2.0, 2)])
def test_blur_is_scipys(sigma, radius):
    expected = per_plane(lambda p: ndimage.gaussian_filter(p.astype(np.float64), sigma, mode="reflect", radius=radius), X)
    np.testing.assert_allclose(run(GaussianBlur(sigma=sigma, radius=radius), X), expected, atol=1e-6)


def test_bilateral_filter_pixel_by_pixel():
    radius, near, alike = 2, 1.5, 0.3
    v = np.pad(X.astype(np.float64), ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    expected = np.zeros(X.shape)
    for b, i, j in np.ndindex(*X.shape[:3]):
        window = v[b, i : i + 5, j : j + 5]
        place = (np.arange(-2, 3)[:, None] ** 2 + np.arange(-2, 3)[None] ** 2) / (2 * near**2)
        colour = ((window - X[b, i, j]) ** 2).sum(-1) / (2 * alike**2)
        weight = np.exp(-place - colour)
        expected[b, i, j] = (weight[..., None] * window).sum((0, 1)) / weight.sum()
    out = run(Bilateral(radius=radius, sigma_space=near, sigma_range=alike), X)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def tv_objective(z, x, weight, mask=1.0):
    """Of images [H, W], float64."""
    down, right = np.diff(z, axis=0, append=z[-1:]), np.diff(z, axis=1, append=z[:, -1:])
    return weight * np.sqrt(down**2 + right**2).sum() + 0.5 * (mask * (z - x) ** 2).sum()


def chambolle(x, weight, steps=3000, tau=0.24):
    """The minimiser by another algorithm: Chambolle 2004, eq. 9, on the dual."""
    p = np.zeros((2, *x.shape))

    def grad(u):
        return np.stack([np.diff(u, axis=0, append=u[-1:]), np.diff(u, axis=1, append=u[:, -1:])])

    def div(p):
        d = np.zeros(x.shape)
        d[:-1] += p[0, :-1]
        d[1:] -= p[0, :-1]
        d[:, :-1] += p[1, :, :-1]
        d[:, 1:] -= p[1, :, :-1]
        return d

    for _ in range(steps):
        g = grad(div(p) - x / weight)
        p = (p + tau * g) / (1 + tau * np.sqrt((g**2).sum(0)))
    return x - weight * div(p)


def test_total_variation_reaches_the_minimum_and_the_objective_falls():
    x, weight = X[:1, ..., 0], 0.15
    best = tv_objective(chambolle(x[0].astype(np.float64), weight), x[0], weight)

    def reached(n):
        return tv_objective(run(TotalVariation(weight=weight, iterations=n, layout="hw"), x)[0], x[0], weight)

    start, values = tv_objective(x[0].astype(np.float64), x[0], weight), [reached(n) for n in (1, 5, 50, 400)]
    assert start > values[0] > values[1] > values[2] > best
    assert values[2] < 1.01 * best and values[3] < 1.0005 * best
    np.testing.assert_allclose(run(TotalVariation(weight=0.0, layout="hw"), x), x, atol=1e-6)
    flat = run(TotalVariation(weight=100.0, iterations=400, layout="hw"), x)
    np.testing.assert_allclose(flat, x.mean(), atol=2e-3)


def test_total_variation_fills_in_what_is_not_kept():
    # two flat halves, every third element kept: the rest comes back from its neighbours
    x = np.where(np.arange(8)[None, :] < 4, 0.2, 0.8).astype(np.float32) * np.ones((1, 8, 1), np.float32)
    # a dropped element moves by at most about the weight in a step: it does not start from its own value, and needs them
    out = run(TotalVariation(weight=0.02, iterations=400, keep=0.7, layout="hw"), x, KEYS[:1])
    assert np.abs(out - x).max() < 0.05
    noise = (x + 0.1 * R.standard_normal(x.shape)).astype(np.float32)
    a, b = (run(TotalVariation(weight=0.01, iterations=30, keep=0.5, layout="hw"), noise, k[None]) for k in KEYS)
    assert np.abs(a - b).max() > 0.01


def test_total_variation_never_sees_what_it_dropped():
    smoothing, key = TotalVariation(weight=0.05, iterations=3, keep=0.5, layout="hw"), KEYS[:1]
    x = X[:1, ..., 0]
    kept = np.asarray(jax.random.bernoulli(key[0], 0.5, (1, *x.shape[1:])))
    assert np.array_equal(run(smoothing, np.where(kept, x, 1 - x), key), run(smoothing, x, key))
    assert not np.array_equal(run(smoothing, np.where(kept, 1 - x, x), key), run(smoothing, x, key))


def test_total_variation_is_near_the_minimum_for_the_weights_that_are_said():
    x = np.clip(ndimage.zoom(np.random.default_rng(0).random((12, 12)), 64 / 12, order=1)[None], 0, 1).astype(np.float32)
    for weight in (0.1, 0.2):
        few, many = (run(TotalVariation(weight=weight, iterations=n, layout="hw"), x)[0] for n in (50, 2000))
        assert tv_objective(few, x[0], weight) < 1.01 * tv_objective(many, x[0], weight)


def test_divergence_is_the_negative_adjoint():
    z, p, q = (R.standard_normal((1, 1, 5, 6)) for _ in range(3))
    down, right = differences(jnp.asarray(z))
    np.testing.assert_allclose(np.sum(down * p + right * q), -np.sum(z * np.asarray(divergence(jnp.asarray(p), jnp.asarray(q)))), rtol=1e-5)


def test_quantisation_tables_and_dct():
    np.testing.assert_allclose(
        dct_matrix() @ X[0, :8, :5, 0], fft.dct(X[0, :8, :5, 0].astype(np.float64), axis=0, norm="ortho"), atol=1e-12
    )
    for base in (LUMINANCE, CHROMINANCE):
        assert np.array_equal(scaled_table(base, 50), base) and np.all(scaled_table(base, 100) == 1)
        for quality in (1, 10, 33, 49, 51, 75, 95):
            percent = 5000 // quality if quality < 50 else 200 - 2 * quality
            expected = np.clip((base * percent + 50) // 100, 1, 255)
            assert np.array_equal(jax.jit(lambda q, b=base: scaled_table(b, q))(np.float32(quality)), expected)


def grey_jpeg(x, quality):
    """([8 m, 8 n] in [0, 1] by the standard's definition in float64, where no rounding on the way was near a tie)."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.clip((LUMINANCE * percent + 50) // 100, 1, 255)
    v, sure = np.round(x.astype(np.float64) * 255) - 128, np.ones(x.shape, bool)
    for i in range(0, v.shape[0], 8):
        for j in range(0, v.shape[1], 8):
            c = fft.dctn(v[i : i + 8, j : j + 8], norm="ortho") / table
            sure[i : i + 8, j : j + 8] = not_tied(c).all()
            v[i : i + 8, j : j + 8] = fft.idctn(np.round(c) * table, norm="ortho")
    return np.clip(np.round(v + 128), 0, 255) / 255, sure & not_tied(v)


def not_tied(v):
    return np.abs(v - np.floor(v) - 0.5) > 1e-3


def smooth(shape, sigma=1.5):
    v = np.stack([ndimage.gaussian_filter(np.random.default_rng(i).random(shape[1:]), sigma) for i in range(shape[0])])
    return ((v - v.min()) / (v.max() - v.min())).astype(np.float32)


@pytest.mark.parametrize("quality", [10, 60, 95])
def test_jpeg_of_grey_images(quality):
    image = smooth((1, 16, 24))
    out = run(JPEG(quality=quality, layout="hw"), image)[0]
    expected, sure = grey_jpeg(image[0], quality)
    assert np.abs(out - expected)[sure].max() < 1e-6 and sure.mean() > 0.5
    assert np.abs(out - image[0]).mean() > 0.001


@pytest.mark.parametrize("subsampling, shape, least", [(False, (3, 28, 36), 0.9), (True, (3, 32, 48), 0.75)])
def test_jpeg_of_colour_images_is_nearly_libjpegs(subsampling, shape, least):
    pillow = pytest.importorskip("PIL.Image")
    image = (smooth(shape, 2.0) * 255).round().astype(np.uint8)
    for quality in (20, 75):
        file = io.BytesIO()
        pillow.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality, subsampling=2 if subsampling else 0)
        theirs = np.asarray(pillow.open(file), np.float64).transpose(2, 0, 1)
        ours = run(JPEG(quality=quality, subsampling=subsampling), image[None].astype(np.float32) / 255)[0] * 255
        error = np.abs(ours - theirs)
        # a coefficient near a tie may fall the other way, and then moves its block
        assert np.mean(error < 1.5) > least and error.mean() < 0.1 * np.abs(theirs - image).mean()


@pytest.mark.parametrize("height", [24, 13, 32])
def test_subsampled_jpeg_is_libjpegs_in_the_last_rows_too(height):
    pillow = pytest.importorskip("PIL.Image")
    images = np.stack([smooth((3, height, 19 + 13 * (height != 13)), 1.0 + i / 20) for i in range(20)])
    images = (images * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    theirs = []
    for image in images:
        file = io.BytesIO()
        pillow.fromarray(image).save(file, "JPEG", quality=75, subsampling=2)
        theirs.append(np.asarray(pillow.open(file), np.float64))
    error = np.abs(run(JPEG(quality=75, subsampling=True, layout="hwc"), images.astype(np.float32) / 255) * 255 - np.stack(theirs))
    assert error.mean() < 0.6 and np.mean(error[:, -8:] > 2) < 0.06 and error.max() < 20


def test_jpeg_at_full_quality_changes_next_to_nothing():
    image = smooth((3, 10, 13))[None]
    assert np.abs(run(JPEG(quality=100), image) - image).max() < 5 / 255


def test_jpegs_surrogate_knows_which_coefficients_are_dead():
    x = jnp.full((1, 8, 8), 0.5).at[0, 2, 3].add(0.02)
    jacobian = jax.jit(jax.jacrev(lambda v: JPEG(quality=50, layout="hw").surrogate(v)[0].reshape(64)))(x)
    basis = np.kron(dct_matrix(), dct_matrix())
    gain = np.diag(basis @ np.asarray(jacobian, np.float64).reshape(64, 64) @ basis.T)
    c = basis @ (np.asarray(x, np.float64).reshape(64) * 255 - 128) / LUMINANCE.reshape(64)
    np.testing.assert_allclose(gain, 3 * (c - np.round(c)) ** 2, atol=1e-4)


def test_resize_and_pad():
    image = np.full((1, 6, 4, 1), 0.7, np.float32)
    transform = RandomResizePad(size=9, smallest=5, fill=0.2)
    out = np.asarray(jax.jit(jax.vmap(lambda key: transform.apply(image, key[None])[0, ..., 0]))(MANY))
    assert out.shape == (200, 9, 6)
    inside = np.abs(out - 0.7) < 1e-5
    assert np.all(inside | (np.abs(out - 0.2) < 1e-5))
    tall, wide = inside.any(2).sum(1), inside.any(1).sum(1)
    assert set(tall) == {5, 6, 7, 8, 9}
    assert np.array_equal(wide, np.round(tall * 4 / 6))
    assert np.all(inside.sum((1, 2)) == tall * wide)  # one rectangle
    tops = inside.any(2).argmax(1)[tall == 5]
    assert set(tops) == {0, 1, 2, 3, 4}
    whole = run(RandomResizePad(size=9, smallest=9), X, KEYS)
    np.testing.assert_allclose(whole, X, atol=1e-6)


def test_crops_are_windows_of_the_row():
    x = np.arange(48, dtype=np.float32).reshape(1, 6, 8) / 48
    out = np.asarray(jax.jit(jax.vmap(lambda key: RandomCrop(side=6, layout="hw").apply(x, key[None])[0]))(MANY))
    windows = [np.asarray(jax.image.resize(x[0, :, left : left + 6], (6, 8), "linear")) for left in range(3)]
    match = np.array([[np.allclose(o, w, atol=1e-6) for w in windows] for o in out])
    assert np.all(match.sum(1) == 1) and np.all(match.sum(0) > 30)
    np.testing.assert_allclose(run(RandomCrop(side=6, layout="hw"), x[:, :, :6], KEYS[:1]), x[:, :, :6], atol=1e-6)


def test_ablation_keeps_that_many_pixels():
    x = X + 1
    out = run(RandomAblation(keep=10, fill=0.5), x, KEYS)
    kept = np.all(out == x, axis=-1)
    assert np.array_equal(kept.sum((1, 2)), [10, 10]) and np.all(out[~kept] == 0.5)
    both = run(RandomAblation(keep=10, complement=True), X, KEYS)
    assert both.shape == (2, 9, 7, 6) and np.array_equal(np.any(both != 0, axis=-1), kept)
    np.testing.assert_allclose(both[kept], np.concatenate([X[kept], 1 - X[kept]], axis=-1), atol=1e-7)
    share = jax.jit(jax.vmap(lambda key: RandomAblation(keep=2, layout="hw").apply(jnp.ones((1, 2, 4)), key[None])[0]))(MANY)
    np.testing.assert_allclose(np.asarray(share).mean(0), 0.25, atol=0.12)
