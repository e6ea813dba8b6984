"""Ablation's certificates by brute force over all samples and all changes; samples by their definition; any batch, any devices."""

import itertools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxsec
from jaxsec.smooth import Ablation, SmoothedVerdict, _sampling
from jaxsec.smooth._ablation import needed
from jaxsec.smooth._choice import bias

KEY = jax.random.key(1)
D, KEEP = 8, 3
SETS = np.array([[i in s for i in range(D)] for s in itertools.combinations(range(D), KEEP)])  # all ablations
RNG = np.random.default_rng(0)
# a net that sees the three levels -1, 0 (also: hidden) and 1, and mostly how many are positive
MODEL = jaxsec.bind(
    lambda p, x: jnp.tanh(x @ p[0]) @ p[1] + jnp.sum(x, 1, keepdims=True) * p[2][None],
    [jnp.asarray(v, jnp.float32) for v in (RNG.normal(size=(D, 6)), 0.25 * RNG.normal(size=(6, 2)), [-1.0, 1.0])],
)
X = np.concatenate([RNG.choice([-1.0, 1.0], (12, D), p=[q, 1 - q]) for q in (0.05, 0.2, 0.8, 0.95)]).astype(np.float32)


def probabilities(x: np.ndarray) -> np.ndarray:
    """[N, 2] exact: the share of all ablations that the model gives each class."""
    shown = np.where(SETS[None], x[:, None], 0).reshape(-1, D)
    votes = np.asarray(jax.jit(MODEL)(jnp.asarray(shown, jnp.float32)).argmax(1)).reshape(len(x), -1)
    return np.stack([(votes == c).mean(1) for c in range(2)], 1)


def changed(x: np.ndarray, r: int) -> np.ndarray:
    """Every row with exactly r positions changed to another of the three levels."""
    found = []
    for where in itertools.combinations(range(D), r):
        others = [[v for v in (-1.0, 0.0, 1.0) if v != x[i]] for i in where]
        for values in itertools.product(*others):
            moved = x.copy()
            moved[list(where)] = values
            found.append(moved)
    return np.array(found, np.float32)


Y = probabilities(X).argmax(1)
METHODS = {
    "fixed": jaxsec.Smoothing(distribution=Ablation(keep=KEEP), n=2000),
    "betting": jaxsec.SequentialSmoothing(distribution=Ablation(keep=KEEP), n=3000),
    "staged": jaxsec.SequentialSmoothing(distribution=Ablation(keep=KEEP), n=3000, by="staged"),
    "within": jaxsec.SequentialSmoothing(distribution=Ablation(keep=KEEP), n=3000, tau=0.5),
}


def certified(method: Any, *, x: Any = X, y: Any = Y, threat: Any = None, model: Any = MODEL, **more: Any) -> jaxsec.SmoothedCertificate:
    return jaxsec.certify(model, x, y, threat=threat or jaxsec.L0(eps=1), method=method, key=KEY, progress=False, **more)


@pytest.mark.parametrize(("d", "keep"), [(8, 3), (9, 1), (7, 6), (5, 5), (784, 45)])
def test_the_table_is_the_theorem_rounded_up(d: int, keep: int) -> None:
    """Levine and Feizi 2020, theorem 1, with Delta counted over all sets where that is possible."""
    table, slack = needed(d, keep), Fraction(*bias(d, keep))
    for r, p in enumerate(table.tolist()):
        delta = 1 - Fraction(math.comb(d - r, keep), math.comb(d, keep))
        if d < 10:
            sets = list(itertools.combinations(range(d), keep))
            assert delta == Fraction(sum(min(s) < r for s in sets), len(sets))
        exact = Fraction(1, 2) + delta + slack
        assert exact < Fraction(p) and p - 3e-16 < float(exact)
    assert len(table) > d or 1 - Fraction(math.comb(d - len(table), keep), math.comb(d, keep)) >= Fraction(1, 2) - 1e-15


def test_no_change_within_the_exact_radius_turns_any_tiny_model() -> None:
    """The radius of exact probabilities, and all changes within it."""
    p = probabilities(X)
    reach = Ablation(keep=KEEP).reach(jaxsec.L0(eps=1), np.ones(len(X)), (D,))
    radius = reach.radius(p.max(1), np.arange(len(X)))
    assert set(radius) == {0.0, 1.0}
    for x, y, r in zip(X, Y, radius, strict=True):
        for step in range(1, int(r) + 1):
            assert np.all(probabilities(changed(x, step))[:, y] > 0.5)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_radius_is_tight(keep: int) -> None:
    """For each number of votes m some model has that many at x: one more position than certified turns it, or takes its majority."""
    sets = [set(s) for s in itertools.combinations(range(D), keep)]
    reach = Ablation(keep=keep).reach(jaxsec.L0(eps=1), np.ones(1), (D,))
    for m in range(len(sets) // 2 + 1, len(sets) + 1):
        r = int(reach.radius(np.array([m / len(sets)]), np.array([0]))[0])
        # the worst model: of the sets that see the change all vote for the class at x, and none at x'
        for step, majority in ((r, True), (r + 1, False)):
            seen = sum(bool(s & set(range(step))) for s in sets)
            assert (2 * max(m - seen, 0) > len(sets)) == majority


@pytest.mark.parametrize("name", METHODS)
def test_certified_rows_withstand_every_change(name: str) -> None:
    found = certified(METHODS[name])
    p = probabilities(X)
    exact = Ablation(keep=KEEP).reach(jaxsec.L0(eps=1), np.ones(len(X)), (D,)).radius(p.max(1), np.arange(len(X)))
    assert np.all(found.radius <= exact) and np.all(found.p_lower <= p.max(1))  # wrong in one of 1000 rows, with this key in none
    assert found.robust.any() and found.norm == "l0" and found.distribution == "ablation"
    np.testing.assert_array_equal(found.robust, (found.predict == Y) & (found.radius >= 1))
    far = np.abs(p.max(1) - needed(D, KEEP)[1]) > 0.06
    np.testing.assert_array_equal(found.robust[far], (exact >= 1)[far])
    for x, y, r in zip(X[found.predict >= 0], Y[found.predict >= 0], found.radius[found.predict >= 0], strict=True):
        for step in range(1, int(r) + 1):
            assert np.all(probabilities(changed(x, step))[:, y] > 0.5)


def same(a: jaxsec.SmoothedCertificate, b: jaxsec.SmoothedCertificate) -> None:
    for name in ("counts", "samples", "predict", "status", "robust", "radius"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("name", ["fixed", "betting"])
def test_the_batch_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = certified(METHODS[name], max_samples=1000)
    votes: Any = _sampling._votes
    before = votes._cache_size()
    same(whole, certified(METHODS[name], max_samples=1000, model=MODEL.replace(params=jax.tree.map(lambda v: 2 * v, MODEL.params))))
    certified(METHODS[name], threat=jaxsec.L0(eps=0), max_samples=1000)
    assert votes._cache_size() == before  # one program for all weights and budgets
    monkeypatch.setattr(_sampling, "_SLOT", 37)
    same(whole, certified(METHODS[name], max_samples=111))


@pytest.mark.parametrize("count", [2, 8])
def test_devices_do_not_matter(count: int, devices: list[Any]) -> None:
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:count])
    placed = jax.device_put(X, NamedSharding(mesh, PartitionSpec("rows")))
    same(certified(METHODS["betting"]), certified(METHODS["betting"], x=placed))


def drawn(ablation: Ablation, x: np.ndarray, n: int = 50, dtype: Any = jnp.float32) -> np.ndarray:
    words = jnp.arange(2 * len(x), dtype=jnp.uint32).reshape(-1, 2)
    args = (words, jnp.asarray(ablation.held(x)), jnp.zeros_like(words), jnp.ones(len(x)), ())
    return np.asarray(jax.jit(lambda *a: ablation.draw(*a, n=n, dtype=dtype))(*args))


def test_samples_of_images_keep_whole_pixels() -> None:
    images = RNG.uniform(0.1, 0.9, (2, 3, 4, 5)).astype(np.float32)
    first = drawn(Ablation(keep=6, fill=-2.0, positions="chw"), images).reshape(2, 50, 3, 4, 5)
    hidden = first == -2.0
    assert np.all(hidden == hidden[:, :, :1]) and np.all((~hidden[:, :, 0]).sum((2, 3)) == 6)
    np.testing.assert_array_equal(np.where(hidden, images[:, None], first), np.broadcast_to(images[:, None], first.shape))
    last = drawn(Ablation(keep=6, fill=-2.0, positions="hwc"), images.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first.reshape(-1, 3, 4, 5))
    flat = drawn(Ablation(keep=6, fill=-2.0), images)
    assert np.all((flat != -2.0).sum((1, 2, 3)) == 6)


def test_complement_tells_hidden_from_black_and_uint8_is_read_as_255ths() -> None:
    pixels = RNG.integers(0, 256, (2, 4, 4, 1)).astype(np.uint8)
    pixels[0, 0, 0], pixels[1, 1, 1] = 0, 255
    ablation = Ablation(keep=5, encoding="complement", positions="hwc")
    shown = drawn(ablation, pixels)
    np.testing.assert_allclose(shown, drawn(ablation, pixels.astype(np.float32) * np.float32(1 / 255)), atol=1e-6)
    kept = shown.sum(3)
    assert shown.shape == (100, 4, 4, 2) and np.all((kept > 0).sum((1, 2)) == 5)
    np.testing.assert_allclose(kept[kept > 0], 1, atol=1e-6)
    chw = drawn(Ablation(keep=5, encoding="complement", positions="chw"), pixels.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(chw.transpose(0, 2, 3, 1), shown)


def test_token_ids_stay_ids_in_any_precision() -> None:
    tokens = RNG.integers(2**24, 2**24 + 9, (2, 12))  # int64, and no float32
    for dtype in (jnp.float32, jnp.bfloat16):
        shown = drawn(Ablation(keep=4, fill=7), tokens, dtype=dtype)
        assert shown.dtype == np.int32 and np.all((shown != 7).sum(1) == 4)
        assert np.all((shown == 7) | (shown == np.repeat(tokens, 50, 0)))
    model = jaxsec.bind(lambda p, t: jnp.sum(p[t], 1), jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    method = jaxsec.Smoothing(distribution=Ablation(keep=2, fill=0), n=500, dtype="bfloat16")
    found = certified(method, x=np.ones((3, 12), np.int64), y=np.zeros(3, np.int32), model=model, threat=jaxsec.L0(eps=2))
    assert found.robust.all() and np.all(found.radius == 3) and found.dtype == "bfloat16"


def test_budgets_beyond_what_can_be_certified_are_refuted_or_open() -> None:
    # one of 8 seen: r positions cost r / 8, so that 3 is what a sure class certifies, and 4 what none does
    sure = jaxsec.bind(lambda p, x: jnp.zeros((len(x), 2)) + p[None], jnp.asarray([0.0, 1.0]))
    for name in ("fixed", "betting"):
        method = METHODS[name].replace(distribution=Ablation(keep=1))
        found = certified(method, y=np.ones(len(X), np.int32), model=sure, threat=jaxsec.L0(eps=np.arange(len(X)) % 6))
        np.testing.assert_array_equal(found.robust, np.arange(len(X)) % 6 <= 3)
        assert np.all(found.radius <= 3)
    assert np.all(found.status[np.arange(len(X)) % 6 > 3] == SmoothedVerdict.REFUTED)
    nothing = certified(jaxsec.Smoothing(distribution=Ablation(keep=D), n=200), y=np.ones(len(X), np.int32), model=sure)
    assert np.all(nothing.radius == 0) and np.all(nothing.predict == 1)
    assert len(certified(METHODS["fixed"], x=X[:0], y=Y[:0]).robust) == 0


def test_mistakes_are_named() -> None:
    tokens, images = np.ones((2, 8), np.int32), np.ones((2, 3, 4, 4), np.float32)
    for ablation, x, threat, error, match in (
        (Ablation(keep=3), X, jaxsec.L2(eps=1.0), ValueError, "the threat is L2; ablation certifies.*L0"),
        (Ablation(keep=3), X, jaxsec.L0(eps=0.5), ValueError, "eps=0.5; it counts positions"),
        (Ablation(keep=9), X, None, ValueError, "keep is 9; it must be an int from 1 to 8"),
        (Ablation(keep=0), X, None, ValueError, "keep is 0"),
        (Ablation(keep=2, fill=math.nan), X, None, ValueError, "fill is nan"),
        (Ablation(keep=2, encoding="sum"), X, None, ValueError, "encoding is 'sum'"),
        (Ablation(keep=2, encoding="complement"), X, None, ValueError, "doubles the channels"),
        (Ablation(keep=2, positions="chw"), X, jaxsec.L0(eps=1, positions="chw"), ValueError, "three axes are needed"),
        (Ablation(keep=2, positions="chw"), images, None, ValueError, "counts positions as 'flat', ablation as 'chw'"),
        (
            Ablation(keep=2, positions="chw", encoding="complement"), 2 * images, jaxsec.L0(eps=1, positions="chw"), ValueError,
            r"x spans \[2.0, 2.0\]",
        ),
        (Ablation(keep=2), tokens, None, TypeError, "fill is 0.0 and x has token ids"),
        (Ablation(keep=2, fill=2**40), tokens, None, ValueError, "fit into int32"),
        (Ablation(keep=2), X > 0, None, TypeError, "x has dtype bool"),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            certified(jaxsec.Smoothing(distribution=ablation, n=100), x=x, y=np.zeros(len(x), np.int32), threat=threat)
    with pytest.raises(ValueError, match=r"sigma is 0.5, which Ablation.* does not read"):
        certified(METHODS["fixed"].replace(sigma=0.5))
    with pytest.raises(TypeError, match="x has dtype int32"):  # only ablation shows tokens
        jaxsec.certify(MODEL, tokens, np.zeros(2, np.int32), threat=jaxsec.L0(eps=1))
