"""Median smoothing: order statistics by simulation and enumeration, bounds against closed forms, and no move of x leaves them."""

import functools
from fractions import Fraction
from math import comb
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import special

import jaxsec
from jaxsec.smooth import MedianSmoothing, certify_regression
from jaxsec.smooth._lockstep import Lockstep, _step
from jaxsec.smooth._ranks import bounds_of, lower_rank, shifted

from .conftest import Killed

RNG = np.random.default_rng(0)
RUNS = 20_000
W = RNG.choice([-1, -0.5, 0.5, 2], size=(8, 3)).astype(np.float32)
# exact products, added in the order written: values that do not depend on how XLA sums in a batch of this or that size
MODEL = jaxsec.bind(lambda p, x: functools.reduce(jnp.add, [x[:, i, None] * p[i][None] for i in range(8)]), jnp.asarray(W))
X = RNG.normal(size=(5, 8)).astype(np.float32)
LENGTH = np.linalg.norm(W.astype(np.float64), axis=0)
CLEAN = X.astype(np.float64) @ W.astype(np.float64)
KEY = jax.random.key(3)
METHOD = MedianSmoothing(sigma=0.5, n=2000)
THREAT = jaxsec.L2(eps=0.3)


def found(
    method: Any = METHOD, x: Any = X, threat: Any = THREAT, model: jaxsec.Model = MODEL, **more: Any
) -> jaxsec.smooth.RegressionCertificate:
    return certify_regression(model, x, threat=threat, method=method, **{"key": KEY, "progress": False, **more})


def same(a, b) -> None:
    for name in ("lower", "predict", "upper", "nans"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_ranks_are_the_largest_that_the_binomial_allows() -> None:
    for n, q, alpha in ((10, 0.5, 0.05), (30, 0.25, 0.01), (50, 0.9, 0.001), (7, 0.1, 0.05), (5, 1.0, 0.1)):
        p = Fraction(q)
        below = [sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k)) for k in range(n + 1)]  # P(fewer than k)
        assert int(lower_rank(n, q, alpha)) == max(k for k in range(n + 1) if below[k] <= alpha)
    assert lower_rank(1000, 0.0, 0.01) == 0 and lower_rank(10**9, 0.5, 1e-3) < 10**9 / 2


@pytest.mark.parametrize("law", ["normal", "steps", "rare"])
def test_bounds_miss_the_percentiles_no_more_often_than_alpha(law: str) -> None:
    """Both sides, by simulation, for a continuous law and for laws with ties at the percentile itself."""
    n, alpha, shift = 60, 0.1, 0.5
    rng = np.random.default_rng(1)
    low, left = (float(v) for v in shifted(0.5, np.array(shift)))
    if law == "normal":
        draws, true = rng.normal(size=(RUNS, n)), (special.ndtri(low), special.ndtri(1 - left))
    elif law == "steps":  # P(X <= 0) is exactly q_lo, P(X <= 1) exactly q_hi
        u = rng.uniform(size=(RUNS, n))
        draws, true = np.where(u < low, 0.0, np.where(u < 1 - left, 1.0, 2.0)), (0.0, 2.0)
    else:
        draws, true = (rng.uniform(size=(RUNS, n)) < 0.02).astype(np.float64), (0.0, 0.0)
    below, above = int(lower_rank(n, low, alpha / 2)), n + 1 - int(lower_rank(n, left, alpha / 2))
    lower, _, upper, _ = bounds_of(np.ascontiguousarray(draws.T), below, 30, above)
    misses = np.mean(lower > true[0]), np.mean(upper < true[1])
    most = alpha / 2 + 3 * np.sqrt(alpha / 2 / RUNS)
    assert max(misses) <= most
    if law != "rare":
        assert min(misses) > 0.25 * alpha / 2  # as near as the lattice of ranks comes
        closer = bounds_of(np.ascontiguousarray(draws.T), below + 2, 30, above - 2)
        assert np.mean(closer[0] > true[0]) > most and np.mean(closer[2] < true[1]) > most


def test_bounds_against_sorting_by_hand_with_nan_and_infinities() -> None:
    values = np.array([[3.0, np.nan], [1.0, 5.0], [np.inf, np.nan], [2.0, -np.inf]], np.float32)
    lower, middle, upper, nans = bounds_of(values, 2, 2, 3)
    # as -inf below: column 1 is -inf, -inf, -inf, 5; as inf above: -inf, 5, inf, inf
    np.testing.assert_array_equal(lower, [2, -np.inf])
    np.testing.assert_array_equal(middle, [2, 5])
    np.testing.assert_array_equal(upper, [3, np.inf])
    np.testing.assert_array_equal(nans, [0, 2])
    np.testing.assert_array_equal(bounds_of(values, 4, 1, 1)[0], [np.inf, 5])
    none = bounds_of(values, 0, 1, 5)
    assert np.all(none[0] == -np.inf) and np.all(none[2] == np.inf)


def test_bounds_are_the_order_statistics_of_half_alpha_on_each_side() -> None:
    ordered = np.sort(np.asarray(MODEL(jaxsec.smooth.noisy_batch(KEY, jnp.asarray(X), 0.5, 0, 2000))).reshape(5, 2000, 3), 1)
    below = int(lower_rank(2000, special.ndtr(-0.6), 0.5e-3))
    c = found()
    for value, rank in ((c.lower, below), (c.predict, 1000), (c.upper, 2001 - below)):
        np.testing.assert_allclose(value, ordered[:, rank - 1], atol=2e-6)
        assert np.abs(ordered[:, rank - 1] - ordered[:, rank]).max() > 1e-4  # the next one is another


@pytest.mark.parametrize("q", [0.5, 0.2])
def test_linear_regressors_have_a_closed_form(q: float) -> None:
    """The median moves by |w| eps at most, and by as much in the worst direction; bounds lie beyond it and come near."""
    c = found(METHOD.replace(n=20_000, q=q))
    percentile = CLEAN + LENGTH * 0.5 * special.ndtri(q)
    assert np.all(c.lower <= percentile - 0.3 * LENGTH) and np.all(c.upper >= percentile + 0.3 * LENGTH)
    assert np.all(c.lower > percentile - 0.36 * LENGTH) and np.all(c.upper < percentile + 0.36 * LENGTH)
    assert np.all(np.abs(c.predict - percentile) < 0.03 * LENGTH)
    assert np.all(c.lower <= c.predict) and np.all(c.predict <= c.upper)


def test_no_move_inside_the_ball_leaves_the_bounds() -> None:
    """Of a net with steps and kinks; at each moved x a median is known to lie in an interval, which must meet the bounds."""

    def rough(p, x):
        h = jnp.maximum(x @ p[0], 0)
        return jnp.concatenate([h @ p[1], jnp.floor(2 * h @ p[1]), jnp.sign(x[:, :1])], 1)

    params = (jnp.asarray(RNG.normal(size=(8, 16)).astype(np.float32)), jnp.asarray(0.3 * RNG.normal(size=(16, 2)).astype(np.float32)))
    model = jaxsec.bind(rough, params)
    c = found(METHOD.replace(per="row"), model=model)
    away = RNG.normal(size=(60, *X.shape))
    slope = np.asarray(jax.vmap(jax.grad(lambda x: rough(params, x[None])[0, 0]))(jnp.asarray(X)))
    away[:2] = slope, -slope  # the worst directions of the first output, as far as it is smooth
    away *= 0.3 / np.linalg.norm(away, axis=-1, keepdims=True)
    moved = (X + away).astype(np.float32).reshape(-1, 8)
    near = found(METHOD.replace(n=1000, per="row", alpha=1e-4), model=model, x=moved, threat=jaxsec.L2(eps=0.0), key=jax.random.key(8))
    lows, highs = (np.asarray(v).reshape(60, 5, 5) for v in (near.lower, near.upper))
    assert np.all(lows <= c.upper) and np.all(highs >= c.lower)
    reach = (near.predict.reshape(60, 5, 5)[0, :, 0] - c.predict[:, 0]) / (c.upper[:, 0] - c.predict[:, 0])
    assert reach.max() > 0.5  # the attack uses much of what the bounds allow
    wrong = found(METHOD.replace(per="row"), model=model, threat=jaxsec.L2(eps=0.0))
    assert not (np.all(lows <= wrong.upper) and np.all(highs >= wrong.lower))  # and breaks bounds of a smaller radius


def test_a_step_function_is_bounded_by_its_sides() -> None:
    step = jaxsec.bind(lambda p, x: jnp.sign(x[:, :1] - p), jnp.float32(0.0))
    x = np.array([[-2.0], [-0.2], [2.0]], np.float32) * np.ones((1, 2), np.float32)
    c = found(x=x, model=step)
    np.testing.assert_array_equal(c.lower[:, 0], [-1, -1, 1])
    np.testing.assert_array_equal(c.upper[:, 0], [-1, 1, 1])
    np.testing.assert_array_equal(c.predict[:, 0], [-1, -1, 1])


def test_rows_outputs_and_norms() -> None:
    one, all_ = found(), found(METHOD.replace(per="row"))
    assert np.all(all_.lower <= one.lower) and np.all(all_.upper >= one.upper) and np.any(all_.upper > one.upper)
    same(all_, found(METHOD.replace(alpha=1e-3 / 3)))  # three outputs, by the union bound
    same(found(threat=jaxsec.LInf(eps=0.1)), found(threat=jaxsec.L2(eps=np.float64(np.float32(0.1)) * np.sqrt(8))))
    same(found(threat=jaxsec.L1(eps=0.3)), found())
    eps, sigma = np.linspace(0.1, 0.4, 5).astype(np.float32), np.linspace(0.3, 0.6, 5).astype(np.float32)
    each = found(METHOD.replace(sigma=sigma), threat=jaxsec.L2(eps=eps))
    for row in (0, 4):
        alone = found(METHOD.replace(sigma=sigma[: row + 1]), threat=jaxsec.L2(eps=eps[: row + 1]), x=X[: row + 1])
        np.testing.assert_array_equal(alone.lower[row], each.lower[row])
    far = found(threat=jaxsec.L2(eps=3.0))
    assert np.all(np.isneginf(far.lower)) and np.all(np.isposinf(far.upper)) and "0.00% of outputs bounded" in repr(far)
    assert "100.00% of outputs bounded" in repr(one) and found(x=X[:0]).lower.shape == (0, 3)
    bytes_ = RNG.integers(0, 256, X.shape).astype(np.uint8)
    np.testing.assert_allclose(found(x=bytes_).lower, found(x=(bytes_ / 255).astype(np.float32)).lower, atol=1e-5)
    half = found(METHOD.replace(dtype="bfloat16"))
    assert half.lower.dtype == np.float32 and np.abs(half.lower - one.lower).max() < 0.1 * LENGTH.max()


def test_nan_outputs_widen_the_bounds() -> None:
    """An output that is NaN in a share of the samples moves both ranks by that share, and no more."""
    model = jaxsec.bind(lambda p, x: jnp.where(x[:, :1] > p, jnp.nan, x[:, 1:2]), jnp.float32(0.0))
    x = np.array([[-0.5, 0.0], [3.0, 0.0]], np.float32)
    c = found(METHOD.replace(n=5000), x=x, model=model, threat=jaxsec.L2(eps=0.0))
    share = special.ndtr(-1.0)
    assert abs(c.nans[0, 0] / 5000 - share) < 0.02 and c.nans[1, 0] == 5000
    # between the percentiles of either reading: among the 1 - share numbers, (1/2 - share) / (1 - share) and 1/2 / (1 - share)
    low, high = special.ndtri((0.5 - share) / (1 - share)) / 2, special.ndtri(0.5 / (1 - share)) / 2
    assert low - 0.06 < c.lower[0, 0] <= low and high <= c.upper[0, 0] < high + 0.06
    assert c.lower[1, 0] == -np.inf and c.upper[1, 0] == np.inf


def test_chunks_and_rows_do_not_matter() -> None:
    whole = found()
    for most in (37, 500, 4000):
        same(whole, found(max_samples=most))
    np.testing.assert_array_equal(found(x=X[:2]).lower, whole.lower[:2])


@pytest.mark.parametrize("count", [2, 8])
def test_devices_do_not_matter(count: int, devices: list[Any]) -> None:
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:count])
    x = np.tile(X, (8, 1))[: 2 * count]
    same(found(x=x), found(x=jax.device_put(x, NamedSharding(mesh, PartitionSpec("rows")))))


def test_a_killed_run_goes_on(tmp_path, killed: Killed, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found()
    killed(functools.partial(found, state=tmp_path), 0.5)
    begun = []
    real = Lockstep.outputs
    monkeypatch.setattr(Lockstep, "outputs", lambda self, fold, rows, n: (begun.append(int(rows[0])), real(self, fold, rows, n))[1])
    same(whole, found(state=tmp_path, max_samples=300))
    assert begun == [2, 3, 4]
    begun.clear()
    same(whole, found(state=tmp_path))
    assert not begun
    for change in (
        {"threat": jaxsec.L2(eps=0.2)},
        {"method": METHOD.replace(dtype="bfloat16")},
        {"method": METHOD.replace(n=METHOD.n + 1)},
    ):
        found(**change, state=tmp_path)
        assert begun, change  # another question
        begun.clear()


def test_one_program_for_eps_sigmas_and_weights() -> None:
    found()
    step: Any = _step
    before = step._cache_size()
    found(METHOD.replace(sigma=0.3, q=0.4, alpha=0.01), threat=jaxsec.L2(eps=0.1), model=MODEL.replace(params=2 * MODEL.params), x=X[:2])
    assert step._cache_size() == before


def test_mistakes_are_named() -> None:
    for change, match in (
        ({"sigma": -1.0}, "sigma is -1.0"), ({"n": 0}, "n is 0"), ({"alpha": 2.0}, "alpha is 2.0"), ({"q": 1.0}, "q is 1.0"),
        ({"per": "box"}, "per is 'box'; allowed are output and row"), ({"dtype": "int8"}, "dtype is 'int8'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            found(METHOD.replace(**change))
    with pytest.raises(ValueError, match="the threat is Box"):
        found(threat=jaxsec.Box(lower=-1.0, upper=1.0))
    with pytest.raises(ValueError, match=r"into \(2,\); one array \[B, ...\] with at least two axes"):
        found(model=jaxsec.bind(lambda p, x: x @ p, jnp.ones(8)))
    with pytest.raises(ValueError, match="dtype int32; floating ones are needed"):
        found(model=jaxsec.bind(lambda p, x: (x @ p).astype(jnp.int32), jnp.ones((8, 2))))
    with pytest.raises(ValueError, match="does not take rows of shape"):
        found(model=jaxsec.bind(lambda p, x: x @ p, jnp.ones((9, 2))))
    with pytest.raises(TypeError, match="method is Smoothing"):
        found(jaxsec.Smoothing(sigma=0.5))
    with pytest.raises(TypeError, match="cannot run under jit"):
        jax.jit(lambda x: found(x=x))(jnp.asarray(X))
    with pytest.raises(TypeError, match="key is None"):
        found(key=None)
    with pytest.raises(ValueError, match=r"x has shape \(8,\)"):
        found(x=X[0])
