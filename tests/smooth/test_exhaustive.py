"""What all methods that count every variation share: exact counts in any batch, on any devices, after interruptions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxsec
from jaxsec.smooth import SmoothedVerdict, _sampling
from jaxsec.smooth._exhaustive import leads, share_of

from .conftest import Killed

RNG = np.random.default_rng(1)
X = RNG.integers(0, 256, (16, 4, 5, 1)).astype(np.uint8)
MODEL = jaxsec.bind(
    lambda p, x: jnp.sin(9 * x.reshape(len(x), -1) @ p) + jnp.array([[0.6, 0, 0.0]]), jnp.asarray(RNG.normal(size=(20, 3)), jnp.float32)
)
CASES = {
    "splitting": (jaxsec.SplittingNoise(sigma=0.5), jaxsec.L1(eps=8 / 255, lo=0.0, hi=1.0)),
    "blocks": (jaxsec.PatchAblation(kind="block", size=2, layout="hwc", fill=0.5), jaxsec.Patch(size=1, layout="hwc", lo=0.0, hi=1.0)),
}
each = pytest.mark.parametrize("name", CASES)


def certified(name: str, x=X, **more) -> jaxsec.SmoothedCertificate:
    method, threat = CASES[name]
    return jaxsec.certify(MODEL, x, np.zeros(len(x), int), threat=threat, method=method, **{"progress": False, **more})


def same(a: jaxsec.SmoothedCertificate, b: jaxsec.SmoothedCertificate) -> None:
    for field in ("counts", "samples", "predict", "status", "robust", "radius"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@each
def test_batch_devices_and_neighbours_do_not_matter(name: str, devices: list, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = certified(name)
    assert whole.robust.any() and not whole.robust.all() and "confidence 1" in repr(whole) and len(certified(name, X[:0]).robust) == 0
    same(whole, certified(name, max_samples=100))
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:4])
    same(whole, certified(name, jax.device_put(X, NamedSharding(mesh, PartitionSpec("rows")))))
    np.testing.assert_array_equal(certified(name, X[5:6]).counts, whole.counts[5:6])
    monkeypatch.setattr(_sampling, "_SLOT", 13)
    same(whole, certified(name, max_samples=50))


@each
def test_a_killed_run_goes_on(name: str, tmp_path, killed: Killed, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(functools.partial(certified, name, state=tmp_path, max_samples=64), 0.3)
    begun = []
    real = _sampling.Sampler._sent
    monkeypatch.setattr(_sampling.Sampler, "_sent", lambda self, p, *a: (begun.extend(v.row.index for v in p), real(self, p, *a))[1])
    again = certified(name, state=tmp_path, max_samples=64)
    assert 0 < len(set(begun)) < len(X)
    same(certified(name), again)


def test_leads_say_how_many_votes_may_change() -> None:
    """All counts of 5 votes over 3 classes, and all ways to change k of them."""
    every = np.array([c for c in itertools.product(range(6), repeat=3) if sum(c) == 5])
    for counts, lead in zip(every, leads(every), strict=True):
        moved = np.abs(every - counts).sum(1) // 2  # votes that must change between the two
        turned = every.argmax(1) != counts.argmax()
        assert lead // 2 == moved[turned].min() - 1
    assert leads(np.array([[0, 0]])).tolist() == [0] and leads(np.array([[0, 0, 4]])).tolist() == [3]


def test_shares_are_rounded_down() -> None:
    from fractions import Fraction

    votes = np.arange(256)
    assert all(Fraction(float(s)) <= Fraction(int(v), 255) for s, v in zip(share_of(votes, 255), votes, strict=True))
    assert share_of(votes, 255)[255] == 1.0 and np.all(votes / 255 - share_of(votes, 255) < 1e-15)


def test_statuses_are_final() -> None:
    found = certified("splitting")
    top = found.predict == 0
    assert np.all(found.status[~top] == SmoothedVerdict.WRONG) and np.all(found.status[top & ~found.robust] == SmoothedVerdict.REFUTED)
    assert np.all((found.status == SmoothedVerdict.CERTIFIED) == found.robust) and np.all(found.radius[found.robust] >= np.float32(8 / 255))
    half = certified("splitting", max_samples=255)
    assert half.dtype == "float32"
    low = jaxsec.certify(
        MODEL, X, np.zeros(16, int), threat=CASES["splitting"][1], method=jaxsec.SplittingNoise(sigma=0.5, dtype="bfloat16")
    )
    assert low.dtype == "bfloat16" and np.abs(low.counts - found.counts).max() < 60
