"""Certified segmentation: against the closed form of pixels that are linear in the image; in any chunk, on any devices, after a kill."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import special

import jaxsec
from jaxsec.smooth import SegmentationSmoothing, certify_segmentation
from jaxsec.smooth._lockstep import Lockstep, _step

from .conftest import Killed

RNG = np.random.default_rng(0)
W = np.array([1.0, -1.0, 0.0], np.float32)


def pixels(params, x):
    """[B, 6, 6] -> [B, 6, 6, 3]: bright, dark, or a class that never wins, by a linear score of the pixel and its right neighbour."""
    mixed = 0.8 * x + 0.6 * jnp.roll(x, -1, 2)
    return mixed[..., None] * params["w"].reshape(1, 1, 1, 3) - jnp.array([0.0, 0.0, 9.0]).reshape(1, 1, 1, 3)


MODEL = jaxsec.bind(pixels, {"w": jnp.asarray(W)})
X = RNG.normal(size=(5, 6, 6)).astype(np.float32)
# the score's sign decides, its noise has variance 0.64 + 0.36 = 1: a pixel's distance to its boundary is |score|
SCORE = 0.8 * X.astype(np.float64) + 0.6 * np.roll(X.astype(np.float64), -1, 2)
Y = (SCORE < 0).astype(np.int32)
KEY = jax.random.key(1)
METHOD = SegmentationSmoothing(sigma=0.5, n0=20, n=300)


def found(method: Any = METHOD, x: Any = X, y: Any = Y, model: jaxsec.Model = MODEL, **more: Any) -> jaxsec.smooth.SegmentationCertificate:
    return certify_segmentation(model, x, y, method=method, **{"key": KEY, "progress": False, **more})


def same(a, b) -> None:
    for name in ("predict", "hits", "p_values", "radius", "abstain", "accuracy", "iou"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("tau", [0.5, 0.75, 0.9])
def test_certified_pixels_are_at_least_the_radius_from_their_boundary(tau: float) -> None:
    c = found(METHOD.replace(tau=tau))
    certified = c.predict >= 0
    np.testing.assert_allclose(c.radius, 0.5 * special.ndtri(tau), rtol=1e-12, atol=0)
    assert np.all(c.radius <= 0.5 * special.ndtri(tau))
    assert np.all(np.abs(SCORE)[certified] >= c.radius[0]) and np.all(c.predict[certified] == Y[certified])
    # and those that are far beyond it are certified: at 300 samples a pixel of p = Phi(|score| / sigma)
    far = special.ndtr(np.abs(SCORE) / 0.5) > min(tau + 5.5 * np.sqrt(tau * (1 - tau) / 300), 0.9999)
    assert np.all(certified[far]) and far.mean() > 0.2


def test_votes_are_those_of_the_probability() -> None:
    """Hits against the closed form, at each pixel: a wrong sample number, mask or key would move them."""
    c = found(METHOD.replace(n=4000))
    p = special.ndtr(np.abs(SCORE) / 0.5)
    sure = p > 0.8  # elsewhere the first 20 samples may choose the other class
    assert np.all((np.abs(c.hits / 4000 - p) < 5 * np.sqrt(p * (1 - p) / 4000) + 1e-3)[sure]) and sure.mean() > 0.5


def test_the_samples_that_count_are_not_those_that_choose() -> None:
    """Pixel by pixel: the class from samples 0 .. 19, its hits among samples 20 .. 319."""

    def votes(first: int, n: int) -> np.ndarray:
        samples = jaxsec.smooth.noisy_batch(KEY, jnp.asarray(X), 0.5, first, n)
        return np.asarray(jnp.argmax(MODEL(samples), -1)).reshape(len(X), n, 6, 6)

    top = (votes(0, 20) == 1).sum(1) > 10  # at 10 to 10 the lower class is chosen
    np.testing.assert_array_equal(found().hits, (votes(20, 300) == top[:, None]).sum(1))


def test_scores_against_a_loop_over_pixels() -> None:
    y = Y.copy()
    y[0, :2], y[1], y[2, 0] = 255, 255, 2
    c = found(y=y, ignore=255)
    assert c.accuracy is not None and c.iou is not None
    for row in range(5):
        known = [(int(a), int(b)) for a, b in zip(c.predict[row].ravel(), y[row].ravel(), strict=True) if b != 255]
        if not known:
            assert row == 1 and np.isnan(c.accuracy[row]) and np.isnan(c.iou[row])
            continue
        ious = []
        for k in range(3):
            either = sum(a == k or b == k for a, b in known)
            ious += [sum(a == k and b == k for a, b in known) / either] if either else []
        assert c.accuracy[row] == sum(a == b for a, b in known) / len(known) and c.iou[row] == pytest.approx(np.mean(ious))
    np.testing.assert_array_equal(c.abstain, [np.mean(row < 0) for row in c.predict])
    same_pixels = found(y=None)
    assert same_pixels.accuracy is None and "abstain" in repr(same_pixels) and "mIoU" in repr(c)
    np.testing.assert_array_equal(same_pixels.predict, c.predict)  # labels decide nothing


def test_chunks_rows_and_layouts_do_not_matter() -> None:
    whole = found()
    for most in (7, 64, 1000):
        same(whole, found(max_samples=most))
    np.testing.assert_array_equal(found(x=X[:1], y=Y[:1]).hits, whole.hits[:1])
    first = jaxsec.bind(lambda p, x: jnp.moveaxis(pixels(p, x), -1, 1), MODEL.params)
    same(whole, found(METHOD.replace(class_axis=1), model=first))
    same(whole, found(METHOD.replace(class_axis=3)))


@pytest.mark.parametrize("count", [2, 8])
def test_devices_do_not_matter(count: int, devices: list[Any]) -> None:
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:count])
    x = np.tile(X, (8, 1, 1))[: 4 * count]
    y = np.tile(Y, (8, 1, 1))[: 4 * count]
    same(found(x=x, y=y), found(x=jax.device_put(x, NamedSharding(mesh, PartitionSpec("rows"))), y=y))


def test_a_killed_run_goes_on(tmp_path, killed: Killed, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found()
    killed(functools.partial(found, state=tmp_path), 0.5)
    begun = []
    real = Lockstep.folded
    monkeypatch.setattr(
        Lockstep, "folded", lambda self, fold, carry, rows, *a: (begun.append(int(rows[0])), real(self, fold, carry, rows, *a))[1]
    )
    same(whole, found(state=tmp_path, max_samples=50))
    assert set(begun) == {2, 3, 4}
    begun.clear()
    found(METHOD.replace(tau=0.9, alpha=0.01, correction="bonferroni"), state=tmp_path)
    assert not begun  # the same samples answer another question
    found(METHOD.replace(n=301), state=tmp_path)
    assert begun


def test_one_program_for_sigmas_weights_and_taus() -> None:
    found()
    step: Any = _step
    before = step._cache_size()
    found(METHOD.replace(sigma=np.linspace(0.2, 0.4, 5), tau=0.6, alpha=0.1), key=jax.random.key(4))
    found(model=MODEL.replace(params={"w": 2 * MODEL.params["w"]}), x=X[:2], y=Y[:2])
    assert step._cache_size() == before


def test_pixels_without_finite_logits_vote_for_none_and_abstain() -> None:
    broken = jaxsec.bind(lambda p, x: pixels(p, x).at[:, 0].set(jnp.nan), MODEL.params)
    c = found(model=broken)
    assert np.all(c.hits[:, 0] == 0) and np.all(c.predict[:, 0] == -1) and np.all(c.p_values[:, 0] == 1)
    np.testing.assert_array_equal(c.hits[:, 1:], found().hits[:, 1:])


def test_other_norms_bytes_bfloat16_and_no_rows() -> None:
    assert found(METHOD.replace(norm="L2")).norm == "l2"
    assert found(METHOD.replace(norm="linf")).radius[0] == pytest.approx(0.5 * special.ndtri(0.75) / 6)
    laplace = found(METHOD.replace(norm="l1", distribution="laplace"))
    assert laplace.radius[0] == pytest.approx(-0.5 * np.log(0.5)) and laplace.norm == "l1"
    bytes_ = (np.clip(X, 0, 1) * 255).astype(np.uint8)
    assert np.abs(found(x=bytes_).hits - found(x=(bytes_ / 255).astype(np.float32)).hits).max() <= 2
    half = found(METHOD.replace(dtype="bfloat16"))
    assert half.dtype == "bfloat16" and np.abs(half.hits - found().hits).max() < 30
    assert len(found(x=X[:0], y=Y[:0]).radius) == 0


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_samples_that_cannot_certify_a_pixel_are_refused(correction: str) -> None:
    """0.75^36 is above alpha / 36, 0.75^37 is below."""
    method = METHOD.replace(alpha=0.001, correction=correction)
    for few in (10, 36):
        with pytest.raises(ValueError, match=rf"n is {few}, too few samples to certify any of 36 pixels.*at least 37"):
            found(method.replace(n=few))
    assert found(method.replace(n=37)).abstain.min() < 1


def test_mistakes_are_named() -> None:
    for change, match in (
        ({"sigma": None}, "sigma is missing"), ({"tau": 0.4}, "tau is 0.4; it must be at least 0.5"), ({"n0": 0}, "n0 is 0"),
        ({"correction": "none"}, "correction is 'none'"), ({"norm": "l3"}, "norm is 'l3'"), ({"class_axis": 0}, "class_axis is 0"),
        ({"class_axis": 9}, "class_axis is 9"), ({"distribution": "laplace"}, "laplace noise and the norm l2"),
        ({"sigma": np.ones(3)}, "sigma has 3 values for 5 rows"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            found(METHOD.replace(**change))
    flat = jaxsec.bind(lambda p, x: x.reshape(len(x), -1) @ p, jnp.ones((36, 2)))
    with pytest.raises(ValueError, match=r"into \(2, 2\); logits of every pixel"):
        found(model=flat)
    with pytest.raises(ValueError, match=r"labels from 0 to 255; the model has 3 classes, 0 to 2\. Pixels without a label need ignore="):
        found(y=np.where(Y == 1, 255, Y))
    with pytest.raises(ValueError, match=r"y has shape \(5, 6\); one label for each pixel"):
        found(y=Y[..., 0])
    with pytest.raises(TypeError, match="y has dtype float32"):
        found(y=Y.astype(np.float32))
    with pytest.raises(ValueError, match="x has 1 NaN"):
        found(x=np.where(np.arange(180).reshape(X.shape) == 3, np.nan, X).astype(np.float32))
    with pytest.raises(TypeError, match="method is Smoothing"):
        found(jaxsec.Smoothing(sigma=0.5))
    with pytest.raises(TypeError, match="cannot run under jit"):
        jax.jit(lambda x: found(x=x))(jnp.asarray(X))
    with pytest.raises(ValueError, match="max_samples is 0"):
        found(max_samples=0)
    with pytest.raises(TypeError, match="method is SegmentationSmoothing"):
        jaxsec.certify(flat, X, Y[:, 0, 0], threat=jaxsec.L2(eps=0.1), method=METHOD)  # pyright: ignore[reportArgumentType, reportCallIssue]
