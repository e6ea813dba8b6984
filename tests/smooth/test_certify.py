"""`certify` with smoothing methods: against the closed form of linear classifiers, in any batch, on any devices, after interruptions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxsec
from jaxsec._native import as_float
from jaxsec.smooth import SmoothedVerdict, _sampling
from jaxsec.smooth._inputs import inputs_of
from jaxsec.smooth._randomizer import Additive

from .conftest import Killed

RNG = np.random.default_rng(0)
W = RNG.normal(size=(20, 2)).astype(np.float32)
W /= np.linalg.norm(W[:, 0] - W[:, 1])
MODEL = jaxsec.bind(lambda p, x: x @ p, jnp.asarray(W))
X = (0.3 * RNG.normal(size=(48, 20))).astype(np.float32)
MARGIN = X.astype(np.float64) @ (W[:, 0] - W[:, 1]).astype(np.float64)
Y = (MARGIN < 0).astype(np.int32)
KEY = jax.random.key(1)
METHODS = {
    "fixed": jaxsec.Smoothing(sigma=0.5, n=2000),
    "betting": jaxsec.SequentialSmoothing(sigma=0.5, n=5000),
    "staged": jaxsec.SequentialSmoothing(sigma=0.5, n=5000, by="staged"),
    "within": jaxsec.SequentialSmoothing(sigma=0.5, n=3000, tau=0.2),
}
THREAT = jaxsec.L2(eps=0.2)


def certified(method, *, x=X, y=Y, threat=THREAT, key=KEY, model=MODEL, **more) -> jaxsec.SmoothedCertificate:
    return jaxsec.certify(model, x, y, threat=threat, method=method, key=key, progress=False, **more)


def same(a: jaxsec.SmoothedCertificate, b: jaxsec.SmoothedCertificate) -> None:
    for name in ("counts", "samples", "predict", "status", "robust", "radius"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("name", METHODS)
def test_radii_are_below_the_closed_form_and_come_near(name: str) -> None:
    """A linear classifier's smoothed form is itself: its radius is its distance to the boundary."""
    found = certified(METHODS[name])
    true = np.abs(MARGIN)
    assert np.all(np.asarray(found.radius) <= true)
    right = np.asarray(found.predict) >= 0
    np.testing.assert_array_equal(np.asarray(found.predict)[right], Y[right])
    if name == "fixed":
        assert np.all(found.radius[true < 1.2] > true[true < 1.2] - 0.16) and np.all(found.samples == 2100)
    if name in ("betting", "staged"):
        far = np.abs(true - 0.2) > 0.06
        np.testing.assert_array_equal(found.robust[far], (true > 0.2)[far])
        assert found.samples.mean() < 2500


def test_more_samples_come_nearer() -> None:
    near = np.abs(MARGIN) < 0.8
    gaps = [
        np.mean(np.abs(MARGIN[near]) - certified(METHODS["fixed"].replace(n=n), x=X[near], y=Y[near]).radius) for n in (100, 1000, 10_000)
    ]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0


@pytest.mark.parametrize(
    ("distribution", "threat", "sigma", "true"),
    [
        ("gaussian", jaxsec.L1, 0.5, np.abs(MARGIN)),
        ("gaussian", jaxsec.LInf, 0.5, np.abs(MARGIN) / np.sqrt(20)),
        # any perturbation inside turns a linear classifier only where it reaches the boundary
        ("laplace", jaxsec.L1, 0.4, np.abs(MARGIN) / np.abs(W[:, 0] - W[:, 1]).max()),
        ("uniform", jaxsec.L1, 0.8, np.abs(MARGIN) / np.abs(W[:, 0] - W[:, 1]).max()),
    ],
)  # fmt: skip
def test_other_norms_are_sound_and_say_something(distribution: str, threat, sigma: float, true: np.ndarray) -> None:
    found = certified(jaxsec.Smoothing(sigma=sigma, n=2000, distribution=distribution), threat=threat(eps=0.02))
    assert np.all(found.radius <= true + 1e-9) and np.mean(found.radius > 0.2 * true) > 0.5 and found.norm == threat.__name__.lower()


@pytest.mark.parametrize("name", METHODS)
def test_the_batch_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = certified(METHODS[name], max_samples=1000)
    same(whole, certified(METHODS[name], max_samples=64))
    monkeypatch.setattr(_sampling, "_SLOT", 37)
    same(whole, certified(METHODS[name], max_samples=111))
    alone = certified(METHODS[name], x=X[:1], y=Y[:1])
    assert alone.samples[0] == whole.samples[0] and (alone.counts[0] == whole.counts[0]).all()


@pytest.mark.parametrize("count", [2, 4, 8])
def test_devices_do_not_matter(count: int, devices: list[jax.Device]) -> None:
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:count])
    placed = jax.device_put(X, NamedSharding(mesh, PartitionSpec("rows")))
    same(certified(METHODS["betting"]), certified(METHODS["betting"], x=placed))


def test_a_killed_run_goes_on_to_the_same_counts(tmp_path, killed: Killed, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = certified(METHODS["betting"])
    how = {"threat": THREAT, "method": METHODS["betting"], "key": KEY, "state": tmp_path, "max_samples": 256}
    killed(functools.partial(jaxsec.certify, MODEL, X, Y, **how), 0.4)
    begun = []
    real = _sampling.Sampler._sent
    monkeypatch.setattr(
        _sampling.Sampler, "_sent", lambda self, pieces, *a: (begun.extend(p.row.index for p in pieces), real(self, pieces, *a))[1]
    )
    same(whole, certified(METHODS["betting"], state=tmp_path, max_samples=512))
    assert 0 < len(set(begun)) < 0.7 * len(X)  # rows that had finished are not sampled again
    begun.clear()
    same(whole, certified(METHODS["betting"], state=tmp_path))
    assert not begun
    certified(METHODS["betting"].replace(sigma=0.4), state=tmp_path)
    assert begun  # another question


def test_one_compiled_program_for_all_sigmas_and_weights() -> None:
    certified(METHODS["fixed"])
    before = _sampling._votes._cache_size()
    certified(METHODS["fixed"].replace(sigma=0.3, n=300), threat=jaxsec.L2(eps=0.1), key=jax.random.key(9))
    certified(METHODS["betting"], x=X[:7], y=Y[:7], model=MODEL.replace(params=2 * MODEL.params))
    assert _sampling._votes._cache_size() == before


def test_no_attack_on_the_smoothed_classifier_breaks_a_certificate() -> None:
    """The linear worst case is known: a step straight at the boundary, of the certified radius."""
    found = certified(METHODS["fixed"])
    rows = np.flatnonzero(found.predict >= 0)
    step = -np.sign(MARGIN[rows])[:, None] * (W[:, 0] - W[:, 1])[None] * found.radius[rows][:, None]
    moved = certified(METHODS["fixed"], x=(X[rows] + step).astype(np.float32), y=Y[rows], key=jax.random.key(5))
    votes = np.take_along_axis(moved.counts, Y[rows][:, None], 1)[:, 0] / moved.counts.sum(1)
    assert np.all(votes > 0.5 - 3.3 * 0.5 / np.sqrt(2000))


def test_uint8_and_bfloat16_are_recorded_and_agree() -> None:
    pixels = RNG.integers(0, 256, (6, 20)).astype(np.uint8)
    y = np.argmax((pixels / 255).astype(np.float32) @ W, 1)
    one, two = (certified(METHODS["fixed"], x=x, y=y) for x in (pixels, pixels.astype(np.float32) / 255))
    assert np.abs(one.counts - two.counts).max() <= 2
    half = certified(METHODS["fixed"].replace(dtype="bfloat16"), x=pixels, y=y)
    assert half.dtype == "bfloat16" and np.abs(half.counts - one.counts).max() < 60


def test_statuses() -> None:
    y = Y.copy()
    y[0] = 1 - y[0]
    found = certified(METHODS["betting"], y=y)
    assert found.status[0] == SmoothedVerdict.WRONG and not found.robust[0]
    refuted = found.status == SmoothedVerdict.REFUTED
    assert refuted.any() and np.all(np.abs(MARGIN[refuted]) < 0.21)
    assert np.all((found.status == SmoothedVerdict.CERTIFIED) == found.robust)
    noise = certified(jaxsec.Smoothing(sigma=50.0, n=200))
    assert np.all(noise.predict == -1) and np.all(noise.radius == 0) and "0.00%" in repr(noise)
    assert len(certified(METHODS["fixed"], x=X[:0], y=Y[:0]).robust) == 0


def test_per_row_eps_and_sigma() -> None:
    eps, sigma = np.linspace(0.05, 0.5, 48).astype(np.float32), np.linspace(0.3, 0.6, 48).astype(np.float32)
    found = certified(METHODS["betting"].replace(sigma=sigma), threat=jaxsec.L2(eps=eps))
    one = certified(METHODS["betting"].replace(sigma=sigma[:30]), threat=jaxsec.L2(eps=eps[:30]), x=X[:30], y=Y[:30])
    np.testing.assert_array_equal(found.counts[:30], one.counts)
    assert np.all(np.abs(MARGIN[found.robust]) >= eps[found.robust])


def test_mistakes_are_named() -> None:
    for method, threat, error, match in (
        (METHODS["fixed"].replace(sigma=-1.0), THREAT, ValueError, "sigma is -1.0; it must be positive"),
        (METHODS["fixed"].replace(alpha=0.0), THREAT, ValueError, "alpha is 0.0"),
        (METHODS["fixed"].replace(n=0), THREAT, ValueError, "n is 0"),
        (METHODS["betting"].replace(by="luck"), THREAT, ValueError, "by is 'luck'"),
        (METHODS["within"].replace(tau=-1.0), THREAT, ValueError, "tau is -1.0"),
        (METHODS["fixed"].replace(dtype="int8"), THREAT, ValueError, "dtype is 'int8'"),
        (METHODS["fixed"].replace(distribution="laplace"), THREAT, ValueError, "laplace noise and the norm l2"),
        (METHODS["fixed"], jaxsec.Box(lower=-1.0, upper=1.0), ValueError, "the threat is Box"),
    ):
        with pytest.raises(error, match=match):
            certified(method, threat=threat)
    with pytest.raises(TypeError, match="key is None"):
        certified(METHODS["fixed"], key=None)
    with pytest.raises(TypeError, match="another function: give it alone"):
        jaxsec.certify(MODEL, X, Y, threat=THREAT, method=[jaxsec.IBP(), METHODS["fixed"]])  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(TypeError, match="cannot run under jit"):
        jax.jit(lambda x: certified(METHODS["fixed"], x=x))(jnp.asarray(X))
    with pytest.raises(ValueError, match="max_samples is 0"):
        certified(METHODS["fixed"], max_samples=0)


@pytest.mark.parametrize("name", ["betting", "staged", "within"])
def test_a_folder_of_state_answers_no_other_norm(name: str, tmp_path) -> None:
    """When a row stops, and what that shows, depends on the norm and eps; an L2 run's counts once certified eps in Linf."""
    method = METHODS[name]
    for threat in (jaxsec.L2(eps=0.3), jaxsec.LInf(eps=0.3), jaxsec.L1(eps=0.3), jaxsec.L2(eps=0.1)):
        kept, fresh = certified(method, threat=threat, state=tmp_path), certified(method, threat=threat)
        same(kept, fresh)
        if threat.norm == "linf":
            assert not np.any(np.asarray(kept.robust)) or name == "within"
            assert np.all(kept.radius <= np.abs(MARGIN) / np.sqrt(20) / np.abs(W[:, 0] - W[:, 1]).mean())


@pytest.mark.parametrize("where", ["draw", "shared", "votes", "dtype"])
def test_a_randomizer_that_draws_otherwise_is_another_question(where: str, tmp_path) -> None:
    """Under the same name: by its code, by what it shares, by how it counts, or in bfloat16 alone."""

    def draws(factor: float) -> type:
        @dataclasses.dataclass(frozen=True)
        class Own(Additive):
            def shared(self, sigma):
                return (np.float32(factor if where == "shared" else 1.0),)

            def draw(self, words, x, first, sigma, shared, *, n, dtype):
                times = shared[0] * (factor if where == "draw" or (where == "dtype" and dtype == jnp.bfloat16) else 1.0)
                return Additive.draw(self, words, x, first, times * sigma, (), n=n, dtype=dtype)

            def votes(self, logits, valid, shared):
                return Additive.votes(self, (1 if factor == 1.0 else -1) * logits if where == "votes" else logits, valid, shared)

        return Own

    counts = []
    for factor in (1.0, 3.0):
        dtype = "bfloat16" if where == "dtype" else "float32"
        method = jaxsec.Smoothing(sigma=0.5, n=300, distribution=draws(factor)("gaussian"), dtype=dtype)
        counts.append(certified(method, state=tmp_path).counts)
        np.testing.assert_array_equal(counts[-1], certified(method).counts)
    assert np.any(counts[0] != counts[1])


def test_samples_that_choose_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers below n0 choose and those from n0 on count, each once."""
    seen: list[tuple[int, int, int]] = []
    real = _sampling.Sampler._sent

    def spied(self, pieces, slot, slots):
        seen.extend((p.row.index, p.first, p.n) for p in pieces)
        return real(self, pieces, slot, slots)

    handed: list[np.ndarray] = []
    votes = _sampling._votes
    monkeypatch.setattr(_sampling, "_votes", lambda *a, **k: (handed.append(np.asarray(a[3])), votes(*a, **k))[1])
    monkeypatch.setattr(_sampling.Sampler, "_sent", spied)
    found = certified(METHODS["fixed"].replace(n=300), x=X[:3], y=Y[:3])
    numbers = [sorted(i for row, first, n in seen if row == r for i in range(first, first + n)) for r in range(3)]
    assert numbers == [list(range(400))] * 3 and all(first >= 100 or first + n <= 100 for _, first, n in seen)
    assert np.all(found.counts.sum(1) == 300)
    firsts = np.concatenate(handed)[:, 0]
    assert {first for _, first, _ in seen} <= set(firsts.tolist()), "what the device is handed is what was planned"


@pytest.mark.parametrize("name", ["betting", "staged"])
def test_where_nothing_can_be_certified_few_samples_are_drawn(name: str) -> None:
    method = METHODS[name].replace(distribution="uniform")
    found = certified(method, threat=jaxsec.L1(eps=5.0))  # uniform noise on +-0.5 certifies less than 0.5
    assert found.samples.max() <= 200 and np.all(np.isin(found.status, [SmoothedVerdict.REFUTED, SmoothedVerdict.WRONG]))


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, bool, np.complex64])
def test_rows_without_units_are_refused(dtype) -> None:
    with pytest.raises(TypeError, match="floating rows are needed, or uint8"):
        certified(METHODS["fixed"], x=(50 * X).astype(dtype))


def test_bytes_and_a_threat_in_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x is uint8, which is read as k / 255, and the threat has hi=255"):
        certified(METHODS["fixed"], x=np.abs(100 * X).astype(np.uint8), threat=jaxsec.L2(eps=60.0, lo=0.0, hi=255.0))


def test_other_methods_are_named() -> None:
    for method, said in (
        ([METHODS["fixed"]], "in no list"),
        (jaxsec.smooth.Ablation(keep=2), r"give Smoothing\(distribution=Ablation"),
        (jaxsec.smooth.MedianSmoothing(sigma=0.1), "smooth.certify_regression"),
        (jaxsec.smooth.SegmentationSmoothing(sigma=0.1), "smooth.certify_segmentation"),
    ):
        with pytest.raises(TypeError, match=said):
            jaxsec.certify(MODEL, X, Y, threat=THREAT, method=method)
    with pytest.raises(ValueError, match="all variations are counted"):
        certified(jaxsec.Smoothing(sigma=0.5, n=10, distribution=jaxsec.SplittingNoise(sigma=0.5).randomizer))


def test_an_eps_whose_probability_rounds_to_one_is_open_and_takes_all_samples() -> None:
    """Phi(9) is 1 in float64 and below it in truth: nothing refutes it, and the radius is that of all samples."""
    sure = jaxsec.bind(lambda p, x: jnp.broadcast_to(p, (len(x), 2)), jnp.array([1.0, 0.0]))
    for by in ("betting", "staged"):
        method = jaxsec.SequentialSmoothing(sigma=0.1, n=500, by=by)
        found = certified(method, model=sure, y=np.zeros(len(X), np.int32), threat=jaxsec.L2(eps=0.9))
        assert np.all(np.asarray(found.status) == SmoothedVerdict.OPEN) and np.all(found.samples == 600)
        small = certified(method, model=sure, y=np.zeros(len(X), np.int32), threat=jaxsec.L2(eps=0.7))
        np.testing.assert_array_equal(found.radius, small.radius)
    uniform = jaxsec.SequentialSmoothing(sigma=0.1, n=500, distribution="uniform")
    beyond = certified(uniform, model=sure, y=np.zeros(len(X), np.int32), threat=jaxsec.L1(eps=0.2))
    assert np.all(np.asarray(beyond.status) == SmoothedVerdict.REFUTED)  # no probability certifies more than sigma


def test_bytes_are_the_floats_that_samples_show() -> None:
    """k / 255 and k times the float32 of 1 / 255 differ by a unit in the last place; all sides must read the same."""
    every = np.arange(256, dtype=np.uint8).reshape(1, 256)
    inputs = inputs_of(every, np.zeros((1, 2), np.uint32), Additive("gaussian"), 0.1)
    np.testing.assert_array_equal(inputs.values, as_float(jnp.asarray(every)))
    assert inputs.values[0, 255] == 1.0


def test_integers_and_scales_of_other_types() -> None:
    same(certified(METHODS["fixed"].replace(n=np.int64(METHODS["fixed"].n))), certified(METHODS["fixed"]))
    with pytest.raises(ValueError, match=r"n0 is np.uint8\(50\); it must be an int"):
        certified(METHODS["fixed"].replace(n0=np.uint8(50)))
    same(certified(METHODS["fixed"].replace(sigma=jnp.bfloat16(0.5))), certified(METHODS["fixed"].replace(sigma=0.5)))
    with pytest.raises(TypeError, match="a number, or one for each row, is needed"):
        certified(METHODS["fixed"].replace(sigma=0.5 + 1j))
