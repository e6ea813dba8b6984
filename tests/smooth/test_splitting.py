"""Splitting noise: draws against the paper's formula in fractions, certificates against every image of a small grid."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec._native import philox4x32
from jaxsec.smooth import Splitting
from jaxsec.smooth._splitting import GridSplitting

RNG = np.random.default_rng(0)


def rough(p: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sin(9 * x.reshape(len(x), -1) @ p) + jnp.array([[0.5, 0.0, 0.4]])


def certified(model, x, y=None, *, sigma, levels, eps=0.0, seed=0, **more) -> jaxsec.SmoothedCertificate:
    y = np.zeros(len(x), int) if y is None else y
    threat = jaxsec.L1(eps=eps, lo=0.0, hi=1.0)
    method = jaxsec.SplittingNoise(sigma=sigma, levels=levels, seed=seed)
    return jaxsec.certify(model, x, y, threat=threat, method=method, progress=False, **more)


def grid(levels: int, d: int) -> np.ndarray:
    return np.array(list(itertools.product(range(levels + 1), repeat=d)))


def draws(steps: np.ndarray, sigma: float, levels: int, seed: int = 7, n: int | None = None) -> np.ndarray:
    """[B, n, d] all variations."""
    n = GridSplitting(levels).variations(sigma, steps.shape[1:]) if n is None else n
    words, first = jnp.array([[seed, 0]] * len(steps), jnp.uint32), jnp.zeros((len(steps), 2), jnp.uint32)
    x = jnp.asarray(steps / levels, jnp.float32)
    scale = jnp.full(len(steps), sigma, jnp.float32)
    return np.asarray(GridSplitting(levels).draw(words, x, first, scale, (), n=n, dtype=jnp.float32)).reshape(len(x), n, -1)


def by_the_paper(a: int, m: int, n: int, levels: int) -> Fraction:
    """Level a between thresholds m + 1/2 + k n steps: lambda = n / (2 levels), s = (m + 1/2) / levels."""
    x, s, width = Fraction(a, levels), Fraction(2 * m + 1, 2 * levels), Fraction(n, levels)
    cell = math.ceil((x - s) / width)
    return (min(width * cell + s, Fraction(1)) + max(width * (cell - 1) + s, Fraction(0))) / 2


@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_draws_are_those_of_the_paper_in_fractions(n: int) -> None:
    levels, steps = 4, grid(4, 2)
    at = jnp.arange(2, dtype=jnp.uint32)
    offsets = np.asarray(philox4x32((at, 0 * at, 0 * at, 0 * at), (jnp.uint32(7), jnp.uint32(0)))[0])
    shown = draws(steps, n / (2 * levels), levels)
    for b, i, j in itertools.product(range(len(steps)), range(n), range(2)):
        true = by_the_paper(int(steps[b, j]), (i + int(offsets[j])) % n, n, levels)
        assert shown[b, i, j] == np.float32(true.numerator / true.denominator)


@pytest.mark.parametrize(("levels", "n", "d"), [(4, 5, 2), (3, 2, 3), (4, 11, 2)])
def test_k_steps_change_at_most_k_variations_and_steps_of_one_value_exactly_k(levels: int, n: int, d: int) -> None:
    steps = grid(levels, d)
    shown = draws(steps, n / (2 * levels), levels)
    differ = np.any(shown[:, None] != shown[None], -1).sum(-1)
    apart = np.abs(steps[:, None] - steps[None])
    assert np.all(differ <= np.minimum(n, apart.sum(-1)))
    single = (apart > 0).sum(-1) <= 1
    np.testing.assert_array_equal(differ[single], np.minimum(n, apart.sum(-1))[single])


@pytest.mark.parametrize(("levels", "n", "d", "seed"), [(6, 6, 2, 0), (6, 13, 2, 3), (4, 9, 3, 1)])
def test_no_image_of_the_grid_breaks_a_certificate(levels: int, n: int, d: int, seed: int) -> None:
    steps = grid(levels, d)
    model = jaxsec.bind(rough, jnp.asarray(np.random.default_rng(seed).normal(size=(d, 3)), jnp.float32))
    found = certified(model, (steps / levels).astype(np.float32), sigma=n / (2 * levels), levels=levels, seed=seed, eps=1.0 / levels)
    assert found.confidence == 1.0 and np.all(found.samples == n) and np.all(found.counts.sum(1) == n)
    np.testing.assert_array_equal(found.predict, found.counts.argmax(1))
    near = np.abs(steps[:, None] - steps[None]).sum(-1) <= np.round(found.radius * levels)[:, None]
    assert np.all((found.predict[:, None] == found.predict[None]) | ~near)
    assert np.mean(found.radius > 0) > 0.3 and near.sum() > 2 * len(steps)  # it says something
    for row, k in enumerate(np.round(found.radius * levels).astype(int)):  # and it is the paper's formula, in fractions
        shares = [Fraction(int(c), n) for c in found.counts[row]]
        top = int(found.predict[row])
        second = max(s + Fraction(int(c < top), n) for c, s in enumerate(shares) if c != top)
        assert Fraction(k, levels) <= Fraction(n, 2 * levels) * (shares[top] - second) < Fraction(k + 1, levels)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_certificates_are_attained(sign: float) -> None:
    """ "Above its threshold?" of one value: each step changes one vote, and one step beyond the radius another class wins."""
    levels = 15
    x = (np.arange(levels + 1) / levels).astype(np.float32)[:, None]
    model = jaxsec.bind(lambda p, x: (x - 0.5) * p, jnp.array([[-sign, sign]]))
    found = certified(model, x, sigma=0.5, levels=levels)
    k = np.round(found.radius * levels).astype(int)
    for a in range(levels + 1):
        inside, edge = slice(max(0, a - k[a]), a + k[a] + 1), [v for v in (a - k[a] - 1, a + k[a] + 1) if 0 <= v <= levels]
        assert np.all(found.predict[inside] == found.predict[a]) and any(found.predict[v] != found.predict[a] for v in edge)
    assert k.max() == levels // 2


def test_eps_counts_in_whole_steps() -> None:
    levels, x = 15, np.array([[12 / 15]], np.float32)
    model = jaxsec.bind(lambda p, x: (x - 0.5) * p, jnp.array([[-1.0, 1.0]]))
    y = np.ones(1, int)

    def at(eps: float) -> jaxsec.SmoothedCertificate:
        return certified(model, x, y, sigma=0.5, levels=levels, eps=eps)

    k = round(float(at(0.0).radius[0]) * levels)
    for eps in (k / levels, np.float32(k / levels), (k + 0.5) / levels, (k + 1 - 1e-3) / levels):
        assert at(float(eps)).robust[0] and at(float(eps)).radius[0] >= float(eps)
    for eps in ((k + 1) / levels, (k + 1) / levels * (1 - 1e-7), np.nextafter(np.float32((k + 1) / levels), np.float32(0))):
        assert not at(float(eps)).robust[0] and at(float(eps)).status[0] == jaxsec.smooth.SmoothedVerdict.REFUTED
    split = GridSplitting(255)
    assert split.steps(0.0) == 0 and all(split.steps(float(np.float32(v / 255))) == v for v in range(1, 4000))


def test_bytes_are_their_floats_and_other_values_are_named() -> None:
    pixels = RNG.integers(0, 256, (5, 6)).astype(np.uint8)
    model = jaxsec.bind(rough, jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32))
    one = certified(model, pixels, sigma=64 / 255, levels=255)
    for values in (pixels.astype(np.float32) / 255, pixels.astype(np.float32) * np.float32(1 / 255), pixels.astype(np.float64) / 255):
        np.testing.assert_array_equal(one.counts, certified(model, values, sigma=64 / 255, levels=255).counts)
    np.testing.assert_array_equal(
        certified(model, pixels // 85 * 85, sigma=0.5, levels=3).counts,
        certified(model, (pixels // 85).astype(np.float32) / 3, sigma=0.5, levels=3).counts,
    )
    for bad, levels, match in (
        (np.array([[0.0, 0.5]], np.float32), 255, "value .*0.5"),
        (np.array([[0.0, 1.0 + 1 / 255]], np.float32), 255, "on the grid of 0, 1 / 255"),
        (np.array([[0, 85, 3]], np.uint8), 3, "value .*3"),
        (np.array([[np.nan]], np.float32), 255, "value .*nan"),
    ):
        with pytest.raises(ValueError, match=match):
            certified(model, bad, sigma=128 / 255 if levels == 255 else 0.5, levels=levels)


def test_the_seed_moves_thresholds_and_no_program_is_compiled_for_another_sigma_or_seed() -> None:
    from jaxsec.smooth import _sampling

    x = (RNG.integers(0, 256, (4, 6)) / 255).astype(np.float32)
    model = jaxsec.bind(rough, jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32))
    one = certified(model, x, sigma=0.5, levels=255)
    before = _sampling._votes._cache_size()
    other, wide = certified(model, x, sigma=0.5, levels=255, seed=2**40 + 1), certified(model, x, sigma=1.0, levels=255)
    assert _sampling._votes._cache_size() == before
    assert np.any(one.counts != other.counts) and np.all(wide.samples == 510)


def test_mistakes_are_named() -> None:
    model = jaxsec.bind(rough, jnp.ones((2, 3)))
    x, good = np.zeros((1, 2), np.uint8), jaxsec.SplittingNoise(sigma=0.5)
    for method, more, match in (
        (good, {"key": jax.random.key(0)}, "key is given, and SplittingNoise"),
        (good, {"threat": jaxsec.L2(eps=0.1)}, "the threat is L2; splitting noise certifies L1"),
        (good.replace(sigma=0.2501), {}, "sigma is 0.2501.*e.g. sigma = 128 / 510"),
        (good.replace(sigma=None), {}, "sigma is missing"),
        (good.replace(sigma=np.full(1, 0.5)), {}, r"sigma has shape \(1,\)"),
        (good.replace(levels=0), {}, "levels is 0"),
        (good.replace(seed=-1), {}, "seed is -1"),
        (good.replace(n=100), {}, "n is 100; SplittingNoise counts all"),
        (good.replace(alpha=0.1), {}, "alpha is 0.1"),
        (good, {"threat": jaxsec.L1(eps=np.inf)}, "eps=inf"),
    ):
        with pytest.raises(ValueError, match=match):
            jaxsec.certify(model, x, np.zeros(1, int), method=method, **{"threat": jaxsec.L1(eps=0.1), **more})
    with pytest.raises(ValueError, match="splitting noise and the norm l2"):
        random = jaxsec.Smoothing(sigma=0.5, n=10, distribution="splitting")
        jaxsec.certify(model, x, np.zeros(1, int), threat=jaxsec.L2(eps=0.1), method=random, key=jax.random.key(0))


@pytest.mark.parametrize("sigma", [0.15, 0.5, 0.8])
def test_random_thresholds_are_passed_in_proportion_to_the_move(sigma: float) -> None:
    """What the theorem rests on: one value moved by t is shown another way in t / (2 sigma) of the samples (4.5 standard deviations)."""
    n, x = 20_000, np.array([[0.3, 0.3], [0.4, 0.3], [0.4, 0.45], [0.9, 0.3]], np.float32)
    words, first = jnp.array([[1, 2]] * 4, jnp.uint32), jnp.zeros((4, 2), jnp.uint32)
    shown = Splitting().draw(words, jnp.asarray(x), first, jnp.full(4, sigma, jnp.float32), (), n=n, dtype=jnp.float32)
    shown = np.asarray(shown).reshape(4, n, 2)
    assert shown.min() >= 0 and shown.max() <= 1
    for other, moved in ((1, (0.1, 0.0)), (2, (0.1, 0.15)), (3, (0.6, 0.0))):
        for j in range(2):
            p = min(1.0, moved[j] / (2 * sigma))
            assert abs(np.mean(shown[0, :, j] != shown[other, :, j]) - p) <= 4.5 * math.sqrt(p * (1 - p) / n) + 1e-6
    assert np.all(np.abs(shown[0] - 0.3) <= 2 * sigma)


def test_random_splitting_is_below_the_closed_form_and_comes_near() -> None:
    """At sigma = 1/2 a value is shown above 1/2 with probability x: "is it?" turns where x passes 1/2."""
    x = np.linspace(0.02, 0.98, 40, dtype=np.float32)[:, None]
    model = jaxsec.bind(lambda p, x: (x - 0.5) * p, jnp.array([[-1.0, 1.0]]))
    method = jaxsec.Smoothing(sigma=0.5, n=4000, distribution="splitting")
    y, true = (x[:, 0] > 0.5).astype(int), np.abs(x[:, 0].astype(np.float64) - 0.5)
    found = jaxsec.certify(model, x, y, threat=jaxsec.L1(eps=0.1, lo=0.0, hi=1.0), method=method, key=jax.random.key(0), progress=False)
    assert np.all(found.radius <= true) and np.all(found.radius >= true - 0.05) and found.norm == "l1"
    assert found.distribution == "splitting" and found.confidence == 1 - 1e-3
