"""What holds for every threat: draws, membership, intervals, compiled programs, refused arguments."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.threat import L0, L1, L2, Box, LInf, named

SETS = [LInf(eps=0.3, lo=0.0, hi=1.0), L2(eps=0.8, lo=0.0, hi=1.0), L1(eps=2.0, lo=0.0, hi=1.0), Box(lower=0.1, upper=0.9)]
SETS.append(L0(eps=3, lo=0.0, hi=1.0))
each = pytest.mark.parametrize("threat", SETS, ids=lambda t: t.norm)


def clean(b=6, d=20, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(0.1, 0.9, (b, d)), jnp.float32)


@each
def test_draws_are_inside_and_depend_on_the_rows_key_only(threat):
    x0, keys = clean(), jax.random.split(jax.random.key(1), 6)
    draw = jax.jit(lambda keys, x0: [(x, threat.contains(x0, x)) for x in (threat.sample(keys, x0), threat.sample_boundary(keys, x0))])
    whole, flipped, part = draw(keys, x0), draw(keys[::-1], x0), draw(keys[2:4], x0[2:4])
    for (x, inside), (other, _), (few, _) in zip(whole, flipped, part, strict=True):
        assert bool(inside.all()) and x.dtype == x0.dtype
        assert not np.array_equal(other, x)
        np.testing.assert_array_equal(few, x[2:4])


def test_draws_from_one_key_and_in_half_precision():
    threat, x0, key = SETS[0], clean(), jax.random.key(3)
    np.testing.assert_array_equal(threat.sample(key, x0)[:2], threat.sample(key, x0[:2]))
    half = x0.astype(jnp.bfloat16)
    drawn = threat.sample(key, half)
    assert drawn.dtype == jnp.bfloat16 and bool(threat.contains(half, drawn).all())


@pytest.mark.parametrize("norm", ("linf", "l2", "l1"))
def test_draws_are_uniform_in_the_ball(norm):
    """P(norm <= r eps) = r^D for a uniform point. 4000 draws at D = 3, tolerance 4.5 standard deviations: fails wrongly once in 10^5."""
    n, d = 4000, 3
    x0 = jnp.zeros((n, d))
    threat = named(norm, eps=2.0)
    radius = np.asarray(threat.distance(x0, threat.sample(jax.random.key(0), x0))) / 2.0
    for r in (0.5, 0.8, 0.95):
        assert abs((radius <= r).mean() - r**d) < 4.5 * math.sqrt(r**d * (1 - r**d) / n)
    np.testing.assert_allclose(threat.distance(x0, threat.sample_boundary(jax.random.key(0), x0))[:50].max(), 2.0, rtol=1e-5)


def test_l1_start_is_the_projected_gaussian():
    x0 = clean(3, 50)
    threat, keys = L1(eps=1.0, lo=0.0, hi=1.0), jax.random.split(jax.random.key(0), 3)
    noise = jnp.stack([jax.random.normal(k, (50,)) for k in keys])
    np.testing.assert_array_equal(threat.sample_boundary(keys, x0), threat.project(x0, x0 + noise))


@each
def test_interval_is_the_tight_outer_box(threat):
    x0 = clean()
    lower, upper = threat.interval(x0)
    maximise = jax.jit(threat.maximise)
    for sign, side in ((1.0, upper), (-1.0, lower)):
        for element in (0, 7):
            one = jnp.zeros_like(x0).at[:, element].set(sign)
            best = maximise(x0, one)
            np.testing.assert_allclose(best[:, element], side[:, element], atol=1e-6)
            assert bool(((best >= lower) & (best <= upper)).all())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_interval_rounds_outward_and_projection_inward(dtype):
    """In float64: the interval covers x0 +- eps, the projection stays within it; both within an ulp or so."""
    x0 = jnp.asarray(np.random.default_rng(0).uniform(-3, 3, (50, 40)), dtype)
    eps = np.float32(8 / 255)
    threat = LInf(eps=eps)
    wide = np.asarray(x0, np.float64)
    lower, upper = (np.asarray(v, np.float64) for v in jax.jit(threat.interval)(x0))
    assert np.all(lower <= wide - eps) and np.all(upper >= wide + eps)
    top = np.asarray(jax.jit(threat.project)(x0, x0 + 1), np.float64)
    assert np.all(top - wide <= eps)
    ulp = float(jnp.finfo(dtype).eps) * 4
    assert np.all(upper - top <= 2 * ulp)
    exact = LInf(eps=0.5).interval(jnp.zeros((1, 2)))
    np.testing.assert_array_equal(exact[1], 0.5)  # what needs no rounding gets none


def test_contains_tolerates_rounding_only():
    x0 = clean(4, 1000)
    threat = LInf(eps=0.1)
    assert bool(threat.contains(x0, x0 + np.float32(0.1)).all())
    assert not bool(threat.contains(x0, x0 + np.float32(0.1) * (1 + 1e-5)).any())
    direction = L2(eps=1.0).steepest(x0, jnp.asarray(np.random.default_rng(0).normal(size=x0.shape), jnp.float32))
    assert bool(L2(eps=0.5).contains(x0, x0 + 0.5 * direction).all())
    assert not bool(L2(eps=0.5).contains(x0, x0 + 0.50001 * direction).any())
    boxed = LInf(eps=0.5, lo=0.0, hi=1.0)
    assert boxed.contains(jnp.array([[0.9]]), jnp.array([[1.0000001]])).tolist() == [False]
    assert threat.contains(jnp.zeros((1, 2)), jnp.array([[0.0, jnp.nan]])).tolist() == [False]


@each
def test_canonical_leaves_share_one_program(threat):
    """Python floats, NumPy scalars, weak and strong arrays, scalar or per row: one trace after `canonical`."""
    x0, count = clean(), 0

    @jax.jit
    def step(threat, x0, x):
        nonlocal count
        count += 1
        return threat.project(x0, x)

    if threat.norm == "box":
        others = [Box(lower=0.2, upper=1), Box(lower=jnp.float32(0.2), upper=np.float64(0.7))]
    else:
        kind = type(threat)
        others = [
            threat.scaled(2.0),
            kind(eps=1, lo=0, hi=1),
            kind(eps=jnp.float32(0.5), lo=np.float64(0), hi=jnp.asarray(1)),
            kind(eps=np.full(6, 0.2), lo=0.0, hi=2.0),
        ]
        assert threat.canonical(x0).eps.shape == (6,) and threat.canonical(x0).eps.dtype == jnp.float32
        np.testing.assert_allclose(threat.scaled(2.0).radius(x0), 2 * threat.radius(x0))
    for t in (threat, *others):
        step(t.canonical(x0), x0, x0 + 1)
    assert count == 1
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(threat.canonical(x0)))


@pytest.mark.parametrize("threat", SETS[:3], ids=lambda t: t.norm)
def test_vmap_over_budgets_is_the_loop(threat):
    x0 = clean()
    x = x0 + 0.7
    budgets = jnp.array([0.0, 0.2, 1.0])
    curve = jax.jit(jax.vmap(lambda e: threat.replace(eps=e).project(x0, x)))(budgets)
    one = jax.jit(lambda e: threat.replace(eps=e).project(x0, x))
    for i, e in enumerate(budgets):
        np.testing.assert_allclose(curve[i], one(e), atol=1e-7)
    pictures = x0.reshape(6, 5, 4)
    per_channel = type(threat)(eps=0.5, lo=jnp.zeros(4), hi=jnp.array([1.0, 0.9, 0.95, 1.0]))
    assert bool((per_channel.project(pictures, pictures + 3) <= per_channel.hi.reshape(1, 1, 4)).all())


def test_must_raise():
    x0 = clean()
    for bad, words in (
        (LInf(eps=-0.1), "eps=-0.1"),
        (L2(eps=math.nan), "radius"),
        (L1(eps=1.0, lo=1.0, hi=0.0), "lo must be <= hi"),
        (LInf(eps=0.1, lo=0.5, hi=1.0), "below lo"),
        (LInf(eps=0.1, lo=0.0, hi=0.5), "x / 255"),
        (LInf(eps=jnp.ones(5)), r"\(5,\)"),
        (L2(eps=1.0, lo=jnp.zeros(7)), r"lo has shape \(7,\)"),
        (Box(lower=0.0, upper=math.inf), "finite"),
        (Box(lower=1.0, upper=0.0), "lower > upper"),
        (Box(lower=jnp.zeros((1, 1, 20)), upper=1.0), "lower has shape"),
    ):
        with pytest.raises(ValueError, match=words):
            bad.check(x0)
    for good in SETS:
        good.check(x0)
        jax.jit(lambda t, x: (t.check(x), t.project(x, x))[1])(good, x0)  # tracers are not looked at
    with pytest.raises(TypeError, match="int32"):
        LInf(eps=1.0).project(jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2), jnp.int32))
    with pytest.raises(TypeError, match="one per row"):
        LInf(eps=1.0).sample(jax.random.split(jax.random.key(0), 3), x0)
    with pytest.raises(TypeError, match="typed key"):
        LInf(eps=1.0).sample(jnp.zeros(2, jnp.uint32), x0)
    with pytest.raises(ValueError, match="linf, l2, l1"):
        named("l0", eps=1.0)


@pytest.mark.parametrize("kind", [L2, L1])
def test_contains_forgives_nothing_where_a_unit_in_the_last_place_is_large(kind):
    """bfloat16 moves in units of 1 at 200, float32 of 0.0625 at 1e6: near eps for one element, far beyond it over many."""
    for dtype, at, step, eps in ((jnp.bfloat16, 200.0, 1.0, 7.0), (jnp.float32, 1e6, 0.0625, 0.25)):
        x0 = jnp.full((1, 784), at, dtype)
        x = x0 + jnp.asarray(step, dtype)
        distance = float(kind(eps=eps).distance(x0, x)[0])
        assert distance > 1.5 * eps
        assert not bool(kind(eps=eps).contains(x0, x)[0])
        assert bool(kind(eps=distance).contains(x0, x)[0])
        assert bool(kind(eps=eps).contains(x0, kind(eps=eps).project(x0, x))[0])


@pytest.mark.parametrize("kind", [L2, L1])
def test_square_stays_inside_in_half_precision(kind):
    from jaxsec.attack._square_windows import first_tiles, moved_mass

    x0 = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 3, 14, 14)), jnp.bfloat16)
    threat = kind(eps=2.0, lo=0.0, hi=1.0).canonical(x0)
    x = jax.jit(first_tiles)(threat, x0, jax.random.split(jax.random.key(0), 8), threat)
    u = jax.random.uniform(jax.random.key(1), (8, 8))
    for _ in range(3):
        assert x.dtype == jnp.bfloat16
        assert float(threat.distance(x0, x).max()) <= 2.0 * (1 + 1e-6)
        x = moved_mass(threat, x0, x, u, jnp.int32(5), 5, False)
