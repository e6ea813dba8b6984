"""`L0` against every subset of positions in float64; what rows of integers may do, and what an infinite box allows."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.threat import L0

from .oracles import l0_oracle

SHAPES = {"flat": (7,), "chw": (3, 2, 3), "hwc": (2, 3, 3)}
BOX: dict[str, Any] = {"lo": 0.0, "hi": 1.0}
EPS = np.array([0, 1, 1, 2, 2, 3, 5, 9], np.float32)


def rows(positions: str, seed: int = 0, spread: float = 1.0) -> tuple[Any, Any, Any]:
    r, shape = np.random.default_rng(seed), (len(EPS), *SHAPES[positions])
    x0 = (r.random(shape) * (r.random(shape) < 0.7)).astype(np.float32)
    w = r.normal(size=shape) * (r.random(shape) < 0.8)
    return x0, (x0 + spread * r.normal(size=shape)).astype(np.float32), w.astype(np.float32)


def by_position(v: np.ndarray, positions: str) -> np.ndarray:
    """One row as [D, C], written without the library's helper."""
    if positions == "chw":
        return v.reshape(v.shape[0], -1).T
    return v.reshape(-1, v.shape[-1]) if positions == "hwc" else v.reshape(-1, 1)


@jax.jit
def everything(threat, x0, x, w):
    nearest = threat.project(x0, x)
    best = threat.maximise(x0, w)
    return nearest, threat.project(x0, nearest), best, threat.support(x0, w), threat.contains(x0, nearest) & threat.contains(x0, best)


@pytest.mark.parametrize("spread", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("positions", SHAPES)
def test_projection_and_maximiser_are_the_best_over_all_subsets(positions: str, spread: float) -> None:
    x0, x, w = rows(positions, 1, spread)
    threat = L0(eps=EPS, positions=positions, **BOX)
    nearest, again, best, value, inside = map(np.asarray, everything(threat.canonical(x0), x0, x, w))
    assert inside.all()
    np.testing.assert_array_equal(again, nearest)
    for i, eps in enumerate(EPS):
        parts = [by_position(v[i], positions) for v in (x0, x, w)]
        point, most = l0_oracle(parts[0], parts[1], parts[2], eps, 0.0, 1.0)
        got = by_position(nearest[i], positions).astype(np.float64)
        lost = np.sum((got - parts[1]) ** 2) - np.sum((point - parts[1].astype(np.float64)) ** 2)
        assert lost <= 1e-6 * np.sum((parts[0] - parts[1].astype(np.float64)) ** 2)
        np.testing.assert_allclose(value[i], most, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(np.sum(best[i].astype(np.float64) * w[i]), most, rtol=2e-6, atol=2e-6)
        assert (by_position(best[i] != x0[i], positions).any(1)).sum() <= eps
    np.testing.assert_array_equal(best[w == 0], x0[w == 0])  # nothing to gain: not moved


def test_without_a_box_projection_keeps_the_largest_changes() -> None:
    x0, x, _ = rows("flat", 2)
    got = np.asarray(L0(eps=2).project(jnp.asarray(x0), jnp.asarray(x)))
    for i in range(len(x)):
        kept = np.argsort(-np.abs(x[i] - x0[i]))[:2]
        expected = x0[i].copy()
        expected[kept] = x[i][kept]
        np.testing.assert_array_equal(got[i], expected)


def test_ties_go_to_the_first_and_nan_stays_in_its_row() -> None:
    threat, x0 = L0(eps=2, **BOX), jnp.zeros((2, 4))
    assert threat.project(x0, jnp.ones((2, 4))).tolist() == [[1, 1, 0, 0]] * 2
    assert threat.maximise(x0, jnp.ones((2, 4))).tolist() == [[1, 1, 0, 0]] * 2
    broken = threat.project(x0, jnp.array([[0.1, jnp.nan, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]]))
    assert bool(jnp.isnan(broken[0, 1])) and threat.contains(x0, broken).tolist() == [False, True]
    assert np.round(broken[1], 3).tolist() == [0, 0, np.float32(0.3), np.float32(0.4)]


def test_support_of_several_forms_and_its_gradient() -> None:
    x0, _, _ = rows("chw", 3)
    w: Any = np.random.default_rng(4).normal(size=(len(x0), 5, *x0.shape[1:])).astype(np.float32)
    threat = L0(eps=2, positions="chw", **BOX)
    both = jax.jit(jax.value_and_grad(lambda w: jnp.sum(threat.support(x0, w))))
    many = threat.support(x0, w)
    assert many.shape == (len(x0), 5)
    for k in range(5):
        np.testing.assert_allclose(many[:, k], threat.support(x0, w[:, k]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(both(w[:, 0])[1], threat.maximise(x0, w[:, 0]), atol=1e-6)
    assert bool(jnp.isfinite(both(jnp.zeros_like(w[:, 0]))[1]).all())


def test_distance_counts_positions_and_contains_is_exact() -> None:
    x0 = jnp.zeros((1, 3, 4, 4))
    x = x0.at[0, :, 1, 2].set(0.5).at[0, 0, 0, 0].set(1e-30)
    for positions, count in (("chw", 2), ("flat", 4), ("hwc", 4)):
        assert L0(eps=1, positions=positions).distance(x0, x).tolist() == [count]
        for eps in (count - 1, count):
            assert L0(eps=eps, positions=positions).contains(x0, x).tolist() == [eps == count]
    wide = jnp.zeros((1, 2_000_003))
    assert L0(eps=2_000_000).contains(wide, wide.at[0, :2_000_001].set(1.0)).tolist() == [False]
    assert L0(eps=3, **BOX).contains(jnp.zeros((1, 3)), jnp.array([[0.5, 1.0000001, 0.0]])).tolist() == [False]
    assert L0(eps=3).contains(jnp.zeros((1, 3)), jnp.array([[0.0, -0.0, jnp.nan]])).tolist() == [False]


def test_steepest_changes_one_position_and_attains_the_dual_norm() -> None:
    x0, _, g = rows("hwc", 5)
    threat = L0(eps=4, positions="hwc", **BOX)
    d = threat.steepest(x0, g)
    assert np.all(threat.distance(x0, x0 + d) <= 1)
    gained = threat.replace(eps=1).support(x0, g) - jnp.sum(x0 * g, (1, 2, 3))
    np.testing.assert_allclose(jnp.sum(d * g, (1, 2, 3)), gained, rtol=1e-5, atol=1e-6)
    free = L0(eps=1)
    g = jnp.array([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]])
    assert free.dual_norm(g).tolist() == [math.inf, 0.0]
    np.testing.assert_array_equal(jnp.sum(jnp.where(g != 0, free.steepest(jnp.zeros_like(g), g) * g, 0), 1), [math.inf, 0.0])


def test_an_infinite_box_gives_infinite_support_or_is_refused() -> None:
    x0, g = jnp.full((2, 3), 0.5), jnp.array([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    assert L0(eps=1).support(x0, g).tolist() == [math.inf, 0.0]
    assert L0(eps=0).support(x0, g).tolist() == [-0.5, 0.0]
    assert L0(eps=1, lo=0.0).support(x0, -jnp.abs(g))[0] == pytest.approx(-0.5)  # to the finite side only
    for draw in (L0(eps=1).sample, L0(eps=1, lo=0.0).sample_boundary):
        with pytest.raises(ValueError, match="draws need a finite box"):
            draw(jax.random.key(0), x0)


def test_draws_choose_positions_evenly_and_fill_the_box() -> None:
    """2000 draws of 2 of 6 pixels, tolerance 5 standard deviations."""
    n, threat = 2000, L0(eps=2, lo=-1.0, hi=3.0, positions="hwc")
    x0 = jnp.full((n, 2, 3, 2), 0.123)
    for draw in (threat.sample, threat.sample_boundary):
        x = np.asarray(draw(jax.random.key(1), x0))
        changed = (x != np.float32(0.123)).any(3).reshape(n, 6)
        assert np.all(changed.sum(1) == 2)
        assert np.all(np.abs(changed.mean(0) - 1 / 3) < 5 * math.sqrt(2 / 9 / n))
        moved = x[x != np.float32(0.123)]
        assert abs(moved.mean() - 1) < 5 * 2 / math.sqrt(len(moved)) and moved.min() >= -1 and moved.max() <= 3
    assert set(np.unique(moved)) == {-1.0, 3.0}


def test_scaled_rounds_down_and_interval_is_all_or_nothing() -> None:
    assert float(L0(eps=3).scaled(0.5).eps) == 1.0
    lower, upper = L0(eps=jnp.array([0.0, 1.0]), **BOX).interval(jnp.full((2, 3), 0.5))
    assert lower.tolist() == [[0.5] * 3, [0.0] * 3] and upper.tolist() == [[0.5] * 3, [1.0] * 3]


def test_token_ids_can_be_checked_and_compared_only() -> None:
    threat = L0(eps=2)
    x0: Any = np.array([[5, 6, 7, 8]], np.int32)
    x = x0 + np.array([[0, 2**30, -3, 0]], np.int32)
    threat.check(x0)
    assert threat.distance(x0, x).tolist() == [2] and threat.contains(x0, x).tolist() == [True]
    assert threat.replace(eps=1).contains(x0, x).tolist() == [False]
    vocabulary = threat.replace(lo=0, hi=2**24)  # whole numbers are compared as such: 2^24 + 1 is no float32
    assert vocabulary.contains(x0, x0 + (np.arange(4) == 2)[None] * np.int32(2**24 - 6)).tolist() == [False]
    assert vocabulary.contains(x0, x0 + (np.arange(4) == 2)[None] * np.int32(2**24 - 7)).tolist() == [True]
    with pytest.raises(ValueError, match="above hi"):
        threat.replace(lo=0, hi=7).check(x0)
    key = jax.random.key(0)
    for refused in (
        lambda: threat.project(x0, x),
        lambda: threat.maximise(x0, x),
        lambda: threat.support(x0, x),
        lambda: threat.steepest(x0, x),
        lambda: threat.dual_norm(x0),
        lambda: threat.interval(x0),
        lambda: vocabulary.sample(key, x0),
        lambda: vocabulary.sample_boundary(key, x0),
    ):
        with pytest.raises(TypeError, match="int32"):
            refused()


def test_mistakes_are_named() -> None:
    x0: Any = np.zeros((2, 3, 4, 4), np.float32)
    for threat, words in (
        (L0(eps=1.5), "eps=1.5; it counts positions"),
        (L0(eps=-1), "eps=-1"),
        (L0(eps=math.nan), "eps=nan"),
        (L0(eps=np.ones(3)), r"eps has shape \(3,\)"),
        (L0(eps=1, lo=0.5), "below lo"),
        (L0(eps=1, positions="pixels"), "positions is 'pixels'"),
    ):
        with pytest.raises(ValueError, match=words):
            threat.check(x0)
    with pytest.raises(ValueError, match="three axes are needed"):
        L0(eps=1, positions="chw").check(x0.reshape(2, -1))
