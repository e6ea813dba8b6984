"""`Patch` against brute force over all windows: projection, maximiser, support, membership, draws, intervals, refusals."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.threat import Patch

from .oracles import patch_places, patch_project_oracle, patch_support_oracle

SHAPES = {"chw": (2, 4, 5), "hwc": (4, 5, 2)}
SIZES = [1, 3, (2, 4), (4, 1)]
LO, HI = -0.25, 1.0


def threat_of(size: Any, layout: str = "hwc", lo: Any = LO, hi: Any = HI) -> Any:
    return Patch(size=size, layout=layout, lo=lo, hi=hi)


def rows(seed: int, layout: str = "hwc", b: int = 6, spread: float = 0.6) -> Any:
    r = np.random.default_rng(seed)
    x0 = r.uniform(LO, HI, (b, *SHAPES[layout])).astype(np.float32)
    x0[r.random(x0.shape) < 0.2] = HI
    return x0, (x0 + spread * r.normal(size=x0.shape)).astype(np.float32)


def sides_of(size):
    return (size, size) if isinstance(size, int) else size


@functools.partial(jax.jit, static_argnames=("size", "layout"))
def operations(size, layout, lo, hi, x0, x):
    threat = threat_of(size, layout, lo, hi)
    near, best = threat.project(x0, x), threat.maximise(x0, x)
    again, support = threat.project(x0, near), threat.support(x0, x)
    return near, again, best, support, threat.contains(x0, near) & threat.contains(x0, best)


def run(size, layout, x0, x):
    return [np.asarray(v) for v in operations(size, layout, jnp.float32(LO), jnp.float32(HI), x0, x)]


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_projection_and_maximiser_are_the_best_over_all_windows(size, layout):
    x0, x = rows(0, layout)
    near, again, _, _, inside = run(size, layout, x0, x)
    w = np.random.default_rng(1).normal(size=x0.shape).astype(np.float32)
    w[np.random.default_rng(2).random(w.shape) < 0.2] = 0
    _, _, best, support, also = run(size, layout, x0, w)
    assert inside.all() and also.all() and np.array_equal(near, again)
    for i in range(len(x)):
        far, points = patch_project_oracle(x0[i], x[i], sides_of(size), layout, LO, HI)
        assert np.linalg.norm(near[i].astype(np.float64) - x[i]) <= far + 1e-6
        assert any(np.array_equal(near[i], p.astype(np.float32)) for p in points)
        value = patch_support_oracle(x0[i], w[i], sides_of(size), layout, LO, HI)
        assert support[i] == pytest.approx(value, abs=1e-5) and np.sum(w[i].astype(np.float64) * best[i]) == pytest.approx(value, abs=1e-5)
        np.testing.assert_array_equal(best[i][w[i] == 0], x0[i][w[i] == 0])
        moved = np.any(best[i] != x0[i])
        assert moved and np.all((best[i] == x0[i]) | (best[i] == LO) | (best[i] == HI))


def test_a_row_in_the_set_stays_whatever_is_lost_in_sums():
    """A change of 1e-9 beside one of 1: its gain vanishes beside the other's, and other windows hold the large one alone."""
    x0 = np.zeros((1, 1, 6, 6), np.float32)
    x = x0.copy()
    x[0, 0, 3, 2], x[0, 0, 3, 4] = 1.0, 1e-9
    np.testing.assert_array_equal(threat_of(3, "chw").project(x0, x), x)
    np.testing.assert_array_equal(threat_of(3, "chw").project(x0, x0), x0)


@pytest.mark.parametrize("size", SIZES)
def test_membership_and_distance_by_brute_force(size):
    """Random few-pixel changes: inside exactly if some window holds them all."""
    r, threat = np.random.default_rng(3), threat_of(size)
    x0 = np.broadcast_to(rows(4)[0][:1], (400, *SHAPES["hwc"]))
    changed = r.random((400, 4, 5, 1)) < r.choice([0.03, 0.1], (400, 1, 1, 1))
    x = np.where(changed, np.float32(0.123), x0)
    places = patch_places(SHAPES["hwc"], sides_of(size), "hwc")
    fits = np.array([any(np.all((x[i] == x0[i]) | inside) for inside in places) for i in range(400)])
    assert 0.05 < fits.mean() < 0.99
    np.testing.assert_array_equal(threat.contains(x0, x), fits)
    sides = np.asarray(threat.distance(x0, x)).astype(int)
    for i in range(0, 400, 7):
        hold = [m for m in range(1, 5) if any(np.all((x[i] == x0[i]) | p) for p in patch_places(SHAPES["hwc"], (m, m), "hwc"))]
        assert sides[i] == (0 if np.array_equal(x[i], x0[i]) else min(hold, default=5))


def test_membership_checks_the_box_and_nan():
    x0, threat = rows(5)[0], threat_of(3)
    x = x0.copy()
    x[0, 1, 1, 0], x[1, 1, 1, 0], x[2, 1, 1, 0] = np.nextafter(np.float32(HI), np.float32(2)), np.nan, HI
    assert threat.contains(x0, x).tolist() == [False, False, True, True, True, True]
    assert bool(threat.contains(x0, x, tolerance=1e-3)[0])
    near = np.asarray(threat.project(x0, x))
    assert np.isnan(near[1]).any() and not np.isnan(near[[0, 2]]).any()


def test_infinite_and_half_precision_rows():
    x0, x = rows(6)
    x[0], x[1, 2, 2, 0] = np.inf, -np.inf
    near, again, _, _, inside = run(3, "hwc", x0, x)
    assert inside.all() and np.isfinite(near).all() and np.array_equal(near, again) and near[1, 2, 2, 0] == LO
    for dtype in (jnp.bfloat16, jnp.float16):
        half, far = jnp.asarray(x0, dtype), jnp.asarray(rows(6)[1], dtype)
        threat = threat_of((2, 3))
        out = jax.jit(threat.project)(half, far)
        assert out.dtype == dtype and bool(threat.contains(half, out).all())
        far_off = [patch_project_oracle(half[i], far[i], (2, 3), "hwc", LO, HI)[0] for i in range(6)]
        np.testing.assert_allclose(np.linalg.norm(np.asarray(out - far, np.float64).reshape(6, -1), axis=1), far_off, rtol=2e-2)


def test_support_of_several_forms_and_its_gradient():
    x0, _ = rows(7)
    w = np.random.default_rng(8).normal(size=(6, 3, *SHAPES["hwc"])).astype(np.float32)
    threat = threat_of((2, 3))
    many = jax.jit(threat.support)(x0, w)
    for k in range(3):
        np.testing.assert_allclose(many[:, k], threat.support(x0, w[:, k]), atol=1e-5)
    pulled = jax.jit(jax.grad(lambda w: jnp.sum(threat.support(x0, w))))(w[:, 0])
    np.testing.assert_allclose(pulled, threat.maximise(x0, w[:, 0]), atol=1e-6)
    by_hi = jax.grad(lambda hi: jnp.sum(threat.replace(hi=hi).support(x0 * 0.5, w[:, 0])))(jnp.float32(HI))
    slope = (
        threat.replace(hi=HI + 1e-2).support(x0 * 0.5, w[:, 0]).sum() - threat.replace(hi=HI - 1e-2).support(x0 * 0.5, w[:, 0]).sum()
    ) / 2e-2
    assert float(by_hi) == pytest.approx(float(slope), rel=2e-2)


def test_draws_are_inside_everywhere_and_depend_on_the_rows_key_only():
    threat, x0 = threat_of((2, 3)), rows(9, b=400)[0]
    keys = jax.random.split(jax.random.key(0), 400)
    draw = jax.jit(lambda keys, x0: [(x, threat.contains(x0, x)) for x in (threat.sample(keys, x0), threat.sample_boundary(keys, x0))])
    whole, part = draw(keys, x0), draw(keys[5:7], x0[5:7])
    for (x, inside), (few, _) in zip(whole, part, strict=True):
        assert bool(inside.all()) and x.dtype == x0.dtype
        np.testing.assert_array_equal(few, x[5:7])
        moved = np.any(np.asarray(x) != x0, -1)
        assert np.all(moved.sum((1, 2)) == 6)
        corners = np.stack([moved.any(2).argmax(1), moved.any(1).argmax(1)], 1)
        places, times = np.unique(corners, axis=0, return_counts=True)
        assert len(places) == 9 and times.min() > 20  # 9 places, 44 times each
    values = np.asarray(whole[0][0])[np.asarray(whole[0][0]) != x0]
    assert abs(values.mean() - (LO + HI) / 2) < 0.03 and values.max() > HI - 0.01 and values.min() < LO + 0.01
    single = jax.jit(lambda x0: threat.sample(jax.random.key(3), x0))
    np.testing.assert_array_equal(single(x0[:4])[:2], single(x0[:2]))


def test_interval_is_the_tight_outer_box():
    x0, threat = rows(10)[0], threat_of((4, 1))
    lower, upper = threat.interval(x0)
    assert bool((lower == LO).all()) and bool((upper == HI).all())
    for at in ((0, 0, 0), (3, 4, 1), (1, 2, 0)):
        one = jnp.zeros_like(x0).at[(slice(None), *at)].set(1.0)
        np.testing.assert_array_equal(threat.maximise(x0, one)[(slice(None), *at)], HI)
        np.testing.assert_array_equal(threat.maximise(x0, -one)[(slice(None), *at)], LO)


def test_steps_are_half_widths_and_first_go_where_most_is_gained():
    w = jnp.asarray(np.random.default_rng(11).normal(size=(2, *SHAPES["hwc"])), jnp.float32)
    threat, x = threat_of(2, lo=-1.0), jnp.zeros_like(w)
    d, w64 = np.asarray(threat.steepest(x, w)), np.asarray(w, np.float64)
    np.testing.assert_allclose(d, np.sign(w64), rtol=1.1e-3)
    np.testing.assert_allclose(np.sum(d * w64, axis=(1, 2, 3)), threat.dual_norm(w), rtol=1.1e-3)
    assert np.abs(d).max() == 1.0 and threat.radius(x).tolist() == [1.0, 1.0]
    near = np.asarray(threat.project(x, x + 0.1 * d)) != 0
    np.testing.assert_array_equal(near, np.asarray(threat.maximise(x, w)) != 0)
    assert not np.asarray(threat.steepest(x, jnp.zeros_like(w))).any()


def test_canonical_leaves_share_one_program():
    x0, count = rows(12)[0], 0

    @jax.jit
    def step(threat, x0):
        nonlocal count
        count += 1
        return threat.project(x0, x0 + 1)

    for lo, hi in ((0, 1), (0.5, np.float64(2)), (jnp.float32(0), jnp.asarray(1))):
        step(threat_of(2, lo=lo, hi=hi).canonical(x0), x0)
    assert count == 1
    per_row = threat_of(2, lo=np.full((6, 1, 1, 1), LO), hi=np.linspace(1, 2, 6).reshape(6, 1, 1, 1))
    assert np.asarray(per_row.project(x0, x0 + 9)).max((1, 2, 3)) == pytest.approx(np.linspace(1, 2, 6), abs=1e-6)


def test_must_raise():
    x0 = rows(13)[0]
    for bad, words in (
        (threat_of(0), "size=0"),
        (threat_of((2, 0)), r"size=\(2, 0\)"),
        (threat_of(2.5), "size=2.5"),
        (threat_of(5), "size=5, larger than the images of 4 x 5"),
        (threat_of(1, "bhw"), "layout='bhw'; allowed are chw and hwc"),
        (threat_of(1, lo=-np.inf), "infinite or NaN elements in lo"),
        (threat_of(1, lo=2.0), "lo must be <= hi"),
        (threat_of(1, hi=0.5), "above hi"),
        (threat_of(1, lo=np.zeros(7)), r"lo has shape \(7,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            bad.check(x0)
    with pytest.raises(ValueError, match="needs images"):
        threat_of(1).check(x0.reshape(6, -1))
    with pytest.raises(TypeError, match="cannot be scaled"):
        threat_of(1).scaled(0.5)
    threat_of(1).check(x0)
    jax.jit(lambda t, x: (t.check(x), t.project(x, x))[1])(threat_of(2), x0)  # tracers are not looked at
    for empty in (x0[:0],):
        assert threat_of(2).project(empty, empty).shape == empty.shape and threat_of(2).contains(empty, empty).shape == (0,)
