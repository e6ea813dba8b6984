"""Denoisers before classifiers: the composition exactly, one program for all weights, and larger certificates where a denoiser helps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.smooth import denoised, diffusion_denoised
from jaxsec.smooth._denoised import time_of

RNG = np.random.default_rng(0)
D, SIGMA = 12, 0.5
# data: two classes along the first axes, nothing in the others, where the classifier has picked up weights
SPREAD = np.array([1.0] * 3 + [0.0] * (D - 3))
W = np.stack([RNG.normal(size=D), RNG.normal(size=D)], 1).astype(np.float32)
W[3:] *= 2
X = (RNG.normal(size=(60, D)) * SPREAD).astype(np.float32)
Y = np.argmax(X @ W, 1).astype(np.int32)


def wiener(p, x):
    """The best linear estimate of data of variance `spread^2` in noise of `sigma`."""
    return x * (p["spread"] ** 2 / (p["spread"] ** 2 + p["sigma"] ** 2))[None]


def linear(p, x):
    return x @ p


DENOISER = jaxsec.bind(wiener, {"spread": jnp.asarray(SPREAD, jnp.float32), "sigma": jnp.float32(SIGMA)})
NOISE = jaxsec.bind(lambda p, x: x - wiener(p, x), DENOISER.params)
CLASSIFIER = jaxsec.bind(linear, jnp.asarray(W))


def test_the_composition_is_exact() -> None:
    x = jnp.asarray(X)
    want = CLASSIFIER(DENOISER(x))
    np.testing.assert_array_equal(denoised(DENOISER, CLASSIFIER)(x), want)
    np.testing.assert_array_equal(denoised(NOISE, CLASSIFIER, residual=True)(x), CLASSIFIER(x - NOISE(x)))
    np.testing.assert_array_equal(denoised(DENOISER, CLASSIFIER, clip=(-0.5, 0.25))(x), CLASSIFIER(jnp.clip(DENOISER(x), -0.5, 0.25)))
    model = denoised(DENOISER, CLASSIFIER)
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(model, x), want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda row: model(row[None])[0])(x), want, rtol=1e-5, atol=1e-6)
    exported = jax.export.export(jax.jit(lambda m, x: m(x)), platforms=["cpu", "cuda"])(model, x)
    assert exported.in_avals[-1].shape == x.shape
    assert "behind wiener" in model.info.notes


def test_gradients_reach_both_parts() -> None:
    model = denoised(DENOISER, CLASSIFIER, clip=(-2.0, 2.0))
    grads = jax.grad(lambda m: jnp.sum(m(jnp.asarray(X)) ** 2))(model).params
    assert set(grads) == {"denoiser", "classifier", "lo", "hi"}
    assert float(jnp.abs(grads["denoiser"]["sigma"])) > 0 and float(jnp.abs(grads["classifier"]).max()) > 0


def test_other_weights_bounds_and_sigmas_trace_nothing() -> None:
    traced = []

    @jax.jit
    def run(m, x):
        traced.append(1)
        return m(x)

    def small(p, pair):
        return p * pair[0]

    x = jnp.asarray(X)
    for i in range(3):
        scale = 1.0 + i
        run(denoised(DENOISER.replace(params=jax.tree.map(lambda v, s=scale: s * v, DENOISER.params)), CLASSIFIER, clip=(-scale, scale)), x)
    for i in range(3):
        eps = jaxsec.bind(small, jnp.float32(0.1 * i))
        run(
            diffusion_denoised(eps, CLASSIFIER, alphas_cumprod=np.linspace(0.99, 0.01, 50 + i), sigma=0.1 + 0.1 * i, lo=-3.0, hi=3.0 + i), x
        )
    assert len(traced) == 2  # one of each kind


def certified(model: jaxsec.Model, n: int = 2000) -> jaxsec.SmoothedCertificate:
    method = jaxsec.Smoothing(sigma=SIGMA, n=n)
    return jaxsec.certify(model, X, Y, threat=jaxsec.L2(eps=0.3), method=method, key=jax.random.key(0), progress=False)


def test_a_denoiser_raises_certified_accuracy_and_radii_stay_below_the_closed_form() -> None:
    bare, helped = certified(CLASSIFIER), certified(denoised(DENOISER, CLASSIFIER))
    assert helped.robust.mean() > bare.robust.mean() + 0.2
    gain = SPREAD**2 / (SPREAD**2 + SIGMA**2)
    for found, w in ((bare, W[:, 0] - W[:, 1]), (helped, gain * (W[:, 0] - W[:, 1]).astype(np.float64))):
        true = np.abs(X.astype(np.float64) @ w) / np.linalg.norm(w)
        kept = found.predict >= 0
        assert np.all(found.radius[kept] <= true[kept]) and np.all(found.radius[true > 0.4] > 0.1)
    residual = certified(denoised(NOISE, CLASSIFIER, residual=True))
    assert np.abs(residual.counts - helped.counts).max() <= 2


def test_a_diffusion_model_of_gaussian_data_is_the_wiener_filter() -> None:
    """For Gaussian data the best prediction of the noise is known at every time; one step of it is the linear estimate."""
    lo, hi = -2.0, 4.0
    schedule = np.cumprod(1 - np.linspace(1e-3, 2e-2, 400))
    mean, variance = (0.0 - lo) / 3 - 1, SPREAD / 3  # of v in [-1, 1]

    def best(p, pair):
        x_t, t = pair
        a = p["schedule"][t][:, None]
        return jnp.sqrt(1 - a) * (x_t - jnp.sqrt(a) * p["mean"]) / (a * p["spread"][None] ** 2 + 1 - a)

    params = {"schedule": jnp.asarray(schedule, jnp.float32), "mean": jnp.float32(mean), "spread": jnp.asarray(variance, jnp.float32)}
    model = diffusion_denoised(jaxsec.bind(best, params), CLASSIFIER, alphas_cumprod=schedule, sigma=SIGMA, lo=lo, hi=hi, clip=False)
    t, a = time_of(schedule, SIGMA / 3)
    noise = 3 * np.sqrt((1 - a) / a)  # the noise of that time, at least sigma and at most a step beyond it
    assert SIGMA <= noise < SIGMA * 1.04 and (1 - schedule[t - 1]) / schedule[t - 1] < (SIGMA / 3) ** 2
    same = denoised(DENOISER.replace(params={**DENOISER.params, "sigma": jnp.float32(noise)}), CLASSIFIER)
    x = jnp.asarray(X + SIGMA * RNG.normal(size=X.shape).astype(np.float32))
    np.testing.assert_allclose(model(x), same(x), rtol=2e-3, atol=2e-3)
    assert certified(model).robust.mean() > certified(CLASSIFIER).robust.mean() + 0.2


def test_clipping_is_to_the_range_of_the_data() -> None:
    nothing = jaxsec.bind(lambda p, pair: p * pair[0], jnp.float32(0))
    model = diffusion_denoised(nothing, jaxsec.bind(linear, jnp.eye(2)), alphas_cumprod=[0.9, 0.5], sigma=0.1, lo=0.0, hi=2.0)
    np.testing.assert_allclose(model(jnp.array([[-1.0, 3.0]])), [[0, 2]], atol=1e-6)


def test_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match=r"denoiser is function; a jaxsec\.Model is needed"):
        denoised(wiener, CLASSIFIER)  # pyright: ignore[reportArgumentType]
    random = jaxsec.bind(lambda p, x, key: x + p * jax.random.normal(key, x.shape), jnp.ones(1), stochastic=True)
    with pytest.raises(ValueError, match="the denoiser draws random numbers"):
        denoised(random, CLASSIFIER)
    with pytest.raises(ValueError, match=r"clip is \(1, 0\); two finite numbers"):
        denoised(DENOISER, CLASSIFIER, clip=(1.0, 0.0))
    narrow = jaxsec.bind(lambda p, x: x[:, :-1] * p, jnp.float32(1))
    with pytest.raises(ValueError, match=r"the denoiser turns \(60, 12\) into \(60, 11\); it must keep the shape"):
        denoised(narrow, CLASSIFIER)(jnp.asarray(X))
    for more, match in (
        ({"alphas_cumprod": [0.5, 0.9]}, "a falling row"), ({"alphas_cumprod": []}, "a falling row"), ({"sigma": 9.0}, "goes up to 1"),
        ({"sigma": 0.0}, "must be positive"), ({"lo": 1.0}, r"\(lo, hi\) is \(1, 1\)"), ({"sigma": np.ones(2)}, "sigma has shape"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            diffusion_denoised(DENOISER, CLASSIFIER, **{"alphas_cumprod": [0.9, 0.5], "sigma": 0.1, **more})
