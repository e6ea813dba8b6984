"""With `sound=True` bounds contain what float32 computes, also where a known function stands for the program's own operations."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.bound import CROWN, IBP, BoundMethod, _rules_norm, _softmax, bound
from jaxsec.bound._backward import backward
from jaxsec.bound._crown import tightened
from jaxsec.bound._graph import Ref, trace
from jaxsec.bound._lines import lines_of
from jaxsec.bound._method import by_intervals
from jaxsec.bound._problem import Problem, identity
from jaxsec.bound._region import Region
from jaxsec.bound._rounding import charges

from . import oracle
from .test_rules_composites import CENTRE, NORMS, SOFTMAX
from .test_rules_elementwise import ALONE, HI, LO, POSITIVE
from .test_rules_reduce import RULES


def sound(fn, box):
    """((lo, hi) of intervals, (lo, hi) by linear bounds) in float32."""
    graph = trace(fn, jax.ShapeDtypeStruct(box[0].shape, jnp.float32))
    value = graph.outputs[0]
    assert isinstance(value, Ref)
    eye = identity(graph.nodes[value.index].shape, jnp.float32)
    forms = jnp.concatenate([eye, -eye])
    problem = Problem(graph, value.index, Region([box]), forms, jnp.zeros(len(forms), jnp.float32), True, 1, 1 << 30)
    low = problem.lower(tightened(problem))
    return problem.intervals()[value.index], (low[: len(eye)], -low[len(eye) :])


def contained(fns, centres, widths):
    """By one compiled program for all boxes."""
    bounds = jax.jit(lambda box: [sound(fn, box) for fn in fns.values()], compiler_options=oracle.QUICK)
    values = jax.jit(jax.vmap(lambda x: [fn(x) for fn in fns.values()]))
    for centre, width in itertools.product(centres, np.float32(widths)):
        box = tuple(centre.astype(np.float32) + s * width for s in (-1, 1))
        x = np.clip(oracle.points([box], 200, 0)[0].astype(np.float32), *box)
        with jax.numpy_rank_promotion("allow"):
            found = zip(fns, bounds(tuple(map(jnp.asarray, box))), values(x), strict=True)
        for name, ends, y in found:
            y = np.asarray(y).reshape(200, -1)
            for label, (lo, hi) in zip(("interval", "crown"), ends, strict=True):
                lo, hi = np.ravel(lo), np.ravel(hi)
                assert ((y >= lo) & (y <= hi)).all(), f"{name} {label} {width}: {lo} {hi} against {y.min(0)} {y.max(0)}"


def named(fns, names):
    return {name: fns[name] for name in names.split()}


def test_truth_values():
    names = "bool_beside_known bool_padded bool_written bool_rolled"
    contained(named(RULES, names), [np.zeros((3, 3))], [0.0, 0.1])


def test_forms_on_truth_values_round_as_any():
    """A form on what was laid out a thousand times is a sum of a thousand, whatever it is of."""
    n = 1000
    graph = trace(lambda x: jnp.broadcast_to(x > 0, (n, 3)).astype(x.dtype), jax.ShapeDtypeStruct((3,), jnp.float32))
    value = graph.outputs[0]
    assert isinstance(value, Ref)
    eye = jnp.ones((1, n, 3), jnp.float32)
    problem = Problem(graph, value.index, Region([(-jnp.ones(3), jnp.ones(3))]), eye, jnp.zeros(1), True, 1, 1 << 30)
    ranges = problem.intervals()
    charged = charges(graph, value.index, ranges, {}).of
    truths = [i for i, node in enumerate(graph.nodes) if node.dtype == bool]
    unit = float(np.finfo(np.float32).eps) / 2
    assert truths and all(np.min(charged[i]) >= 4 * unit for i in truths)
    assert max(float(np.max(charged[i])) for i in truths) >= n * unit


def test_elementwise():
    names = "gelu_tanh torch_gelu quick_gelu tanh_silu user_mish onnx_hard_swish user_elu user_sigmoid user_softplus celu_2 logaddexp kinked_at_1 clip"
    contained(named(ALONE, names), [(LO + HI) / 2], [0.0, 1e-6, 0.1])
    contained(named(POSITIVE, "by_sqrt power_-0.7"), [np.geomspace(0.1, 100, 12)], [0.0, 1e-3])


@pytest.mark.parametrize("pairs", [2048, 0], ids=["pairs", "shifted"])
def test_softmax(pairs, monkeypatch):
    monkeypatch.setattr(_softmax, "PAIRS", pairs)
    contained(named(SOFTMAX, "softmax log_softmax logsumexp attention"), [CENTRE, 3 * CENTRE + 50], [0.0, 1e-6, 0.05])


def test_norms():
    """Far from 0 the difference of the means has lost most of its digits."""
    contained(named(NORMS, "layer layer_fast layer_by_division groups"), [CENTRE, CENTRE + 100], [0.0, 1e-6, 0.05])


@pytest.mark.parametrize("fn, stop", [(lambda x: jnp.maximum(x, 0), True), (jnp.floor, False)], ids=["stopped at a kink", "opaque"])
def test_a_walk_that_ends_at_ranges_pays_for_its_sum(fn, stop) -> None:
    """At least what the sum of 50,000 numbers loses if they are added one after the other, with nothing else charged."""
    n = 50_000
    graph = trace(fn, jax.ShapeDtypeStruct((n,), jnp.float32))
    form, value = (np.random.default_rng(seed).uniform(1, 1000, n).astype(np.float32) for seed in (0, 1))
    ranges = [(jnp.asarray(value), jnp.asarray(value))] * len(graph.nodes)
    out = graph.outputs[0].index
    charged = charges(graph, out, ranges, lines_of(graph, out, ranges, sound=True))
    only = dataclasses.replace(charged, of={} if stop else {out: charged.of[out]})
    with jax.numpy_rank_promotion("allow"):
        plain, less = (
            backward(graph, out, jnp.asarray(form)[None], jnp.zeros(1), ranges, {}, charged=c, stop=stop)[1] for c in (None, only)
        )
    exact = form.astype(np.float64) @ value.astype(np.float64)
    one_by_one = np.cumsum(form * value, dtype=np.float32)[-1]
    assert float(plain[0] - less[0]) >= abs(one_by_one - exact) > 0


@pytest.mark.parametrize("method", [IBP(), CROWN()], ids=["ibp", "crown"])
def test_a_softmax_without_a_maximum_is_nothing_where_its_exponentials_leave_float32(method: BoundMethod) -> None:
    """It vanishes or overflows there, and the program returns 0, 1 or NaN; with the maximum taken off it is the function it says."""

    def naive(x: jax.Array) -> jax.Array:
        return jnp.exp(x) / jnp.sum(jnp.exp(x))

    for middle in ([-88.0, -87.3], [89.0, 0.0], [-70.0, -70.0]):
        box = tuple(jnp.asarray(middle, jnp.float32) + d for d in (-0.001, 0.001))
        found = bound(naive, box, method=method, sound=True)
        assert not np.isfinite(np.asarray(found.lo)).any() and not np.isfinite(np.asarray(found.hi)).any()
        shifted = bound(jax.nn.softmax, box, method=method, sound=True)
        assert np.all(np.asarray(shifted.lo) <= jax.nn.softmax(jnp.asarray(middle))) and np.all(np.asarray(shifted.hi) < 1.01)
    tame = bound(naive, (jnp.asarray([-50.0, -50.0]), jnp.asarray([-49.9, -49.9])), method=method, sound=True)
    assert np.all(np.asarray(tame.lo) > 0.4) and np.all(np.asarray(tame.hi) < 0.6)


@pytest.mark.parametrize("method", [IBP(), CROWN()], ids=["ibp", "crown"])
def test_softmax_and_logsumexp_of_wide_or_large_logits_keep_their_ends(method: BoundMethod) -> None:
    """Sums of exponentials that are not negative stay so, though the error bound of one of e^80 is greater than all the others."""
    wide = (jnp.full(5, -40.0), jnp.full(5, 40.0))
    found = bound(jax.nn.softmax, wide, method=method, sound=True)
    assert np.all(np.asarray(found.lo) > -1e-4) and np.all(np.asarray(found.hi) < 1 + 1e-4)
    many = tuple(jnp.broadcast_to(v[:1], (40, 60)) for v in wide)  # too many for pairs
    found = bound(lambda x: jax.nn.log_softmax(x, -1), many, method=method, sound=True)
    assert np.all(np.asarray(found.lo) > -85) and np.all(np.asarray(found.hi) < 0.1)  # exactly -84.1 to 0
    large = (jnp.full(5, 195.0), jnp.full(5, 205.0))
    found = bound(jax.nn.logsumexp, large, method=method, sound=True)
    assert 190 < found.lo <= 195 + np.log(5) and 205 + np.log(5) <= found.hi < 215


def test_a_maximum_of_another_row_is_not_the_own() -> None:
    """e^100 overflows in the first row, whose program returns NaN."""

    def turned(x: jax.Array) -> jax.Array:
        e = jnp.exp(x - jnp.max(x, -1, keepdims=True)[::-1])
        return e / jnp.sum(e, -1, keepdims=True)

    x = jnp.asarray([[100.0, 100.0], [0.0, 0.0]])
    assert np.isnan(np.asarray(turned(x))[0]).all()
    found = bound(turned, (x, x), method=IBP(), sound=True)
    assert not np.isfinite(np.asarray(found.lo)[0]).any() and not np.isfinite(np.asarray(found.hi)[0]).any()


@pytest.mark.parametrize("sound", [False, True])
def test_slopes_in_front_of_sums_of_exponentials_are_not_flushed_away(sound: bool) -> None:
    """A sum of 2e37 has a logarithm of slope 5e-38: times a coefficient of 0.2 float32 has no number for it, and CROWN lost all of 0.2."""
    x = jnp.asarray(np.r_[np.full(5, 84.8), np.full(55, -84.8 / 11)], jnp.float32)
    found = bound(jax.nn.softmax, (x, x), method=CROWN(), sound=sound)
    assert found.lo[0] - 1e-5 <= 0.2 <= found.hi[0] + 1e-5 and found.hi[0] - found.lo[0] < 1e-3
    r = np.random.default_rng(0)
    run = jax.jit(lambda lo, hi: bound(lambda x: jax.nn.softmax(jnp.tile(x, 5)), (lo, hi), method=CROWN(), sound=sound))
    for _ in range(60):
        middle = r.uniform(-1, 1, 12) * r.uniform(60, 120) / 2
        lo, hi = np.float32(middle - 0.05), np.float32(middle + 0.05)
        box = run(lo, hi)
        drawn = np.tile(r.uniform(lo, hi, (20, 12)), (1, 5))
        p = np.exp(drawn - drawn.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        assert (np.asarray(box.lo) <= p + 1e-5).all() and (p - 1e-5 <= np.asarray(box.hi)).all()


@pytest.mark.parametrize("sound", [False, True])
def test_what_underflows_to_zero_is_not_zero(sound: bool) -> None:
    """e^-200 over a sum of e^-200 is 1 as a real function; the machine's 0 / 0 is no number."""

    def f(x: jax.Array) -> jax.Array:
        e = jnp.exp(x - jnp.max(x))
        return e / jnp.sum(e[:3])

    x = jnp.asarray([-200.0, -300.0, -300.0, 0.0])
    for method in (IBP(), CROWN()):
        found = bound(f, (x, x), method=method, sound=sound)
        assert found.lo[0] <= 1 <= found.hi[0]


@pytest.mark.parametrize("method", [IBP(), CROWN()], ids=["ibp", "crown"])
def test_averages_by_weights_that_overflow_have_no_hull(method: BoundMethod) -> None:
    """The sum of exponentials is infinite, every weight 0, and so is the average of numbers from 1 to 2."""

    def f(x: jax.Array) -> jax.Array:
        e = jnp.exp(x[:4])
        return jnp.tanh((e / jnp.sum(e, -1, keepdims=True)) @ x[4:].reshape(4, 1))

    lo, hi = (jnp.asarray(np.r_[np.full(4, a), np.full(4, b)], jnp.float32) for a, b in ((80.0, 1.0), (88.6, 2.0)))
    value = f(jnp.asarray(np.r_[np.full(4, 88.5), np.full(4, 1.0)], jnp.float32))
    assert value[0] == 0
    found = bound(f, (lo, hi), method=method, sound=True)
    assert found.lo[0] <= 0 <= found.hi[0]


@pytest.mark.parametrize("method", [IBP(), CROWN()], ids=["ibp", "crown"])
def test_a_maximum_with_zero_says_nothing_of_what_others_read(method: BoundMethod) -> None:
    """A variance as a difference of means of squares is -0.25 in float32 at numbers of 1000; only its maximum with 0 is never negative."""

    def f(x: jax.Array) -> jax.Array:
        v = jnp.mean(x * x) - jnp.mean(x) ** 2
        return jnp.stack([v, jnp.maximum(v, 0)])

    lo, hi = jnp.full(8, 1000.0), jnp.full(8, 1000.01)
    drawn = 1000 + np.random.default_rng(0).uniform(0, 0.01, (400, 8))
    values = np.asarray(jax.vmap(f)(jnp.asarray(drawn, jnp.float32)))
    found = bound(f, (lo, hi), method=method, sound=True)
    assert values[:, 0].min() < -0.1 and found.lo[0] <= values[:, 0].min() and found.hi[0] >= values[:, 0].max()
    assert found.lo[1] >= -1e-5


def test_a_maximum_that_is_not_finite_tames_nothing() -> None:
    """Logits e^100 are infinite, and the program returns NaN though it takes the maximum off."""
    found = bound(lambda x: jax.nn.softmax(jnp.exp(x)), (jnp.zeros(3), jnp.full(3, 100.0)), sound=True)
    assert not np.isfinite(np.asarray(found.lo)).any() and not np.isfinite(np.asarray(found.hi)).any()
    found = bound(lambda x: jax.nn.softmax(jnp.exp(x)), (jnp.zeros(3), jnp.full(3, 3.0)), sound=True)
    assert np.asarray(found.lo).min() > -1e-3 and np.asarray(found.hi).max() < 1.001


def test_a_mean_of_squares_that_overflow_is_not_infinite() -> None:
    """Exactly it is 4e38, which float32 has no number for, and the quotient is 1, not 0."""
    found = bound(lambda x: x * jax.lax.rsqrt(jnp.mean(x * x) + 1e-5), (jnp.full(3, 2e19), jnp.full(3, 2.1e19)), method=IBP())
    assert np.all(np.asarray(found.lo) <= 1) and np.all(np.asarray(found.hi) >= 1)
    found = bound(lambda x: jax.lax.rsqrt(jnp.sum(x * x)), (jnp.full(3, 2e19), jnp.full(3, 2.1e19)), method=IBP())
    assert np.all(np.asarray(found.lo) <= 2.7e-20) and np.all(np.asarray(found.hi) >= 2.9e-20)


def test_a_norm_of_squares_that_overflow_has_no_least_share() -> None:
    """Of 2e19 and 3e19 the shares are 0.78 and 1.18, and nothing says that one is at its greatest."""
    box = (jnp.asarray([2e19, 3e19]), jnp.asarray([2.1e19, 3.1e19]))
    lo, hi = (np.asarray(v) for v in _rules_norm._limits((0,), 0.5, 1e-5, False)(box, jnp.zeros(())))
    assert np.all(lo <= np.array([0.78, 1.18])) and np.all(hi >= np.array([0.79, 1.19]))


@pytest.mark.parametrize("sound", [False, True], ids=["default", "sound"])
@pytest.mark.parametrize("method", [IBP(), CROWN()], ids=["ibp", "crown"])
def test_logsumexp_keeps_shifts_of_its_logits(method: BoundMethod, sound: bool) -> None:
    """Softmax does not change when all logits do; logsumexp does, by as much. log sum exp(z - z_y) is the cross-entropy."""
    lse = jax.nn.logsumexp
    lo = jnp.asarray([0.5, 1.0, -1.0, 0.3])
    grid = lo[None] + 0.1 * jnp.asarray(list(itertools.product([0.0, 0.5, 1.0], repeat=4)))
    shifted = {
        "first": lambda x: lse(x - x[:1]),
        "own": lambda x: lse(x - lse(x)),
        "maximum": lambda x: lse(x - jnp.max(x)),
        "twice": lambda x: lse(2 * x - lse(2 * x)),
        "number": lambda x: lse(x - 2.0),
        "below": lambda x: lse(x[:1] - x),
    }
    for name, fn in shifted.items():
        found, y = bound(fn, (lo, lo + 0.1), method=method, sound=sound), np.asarray(jax.vmap(fn)(grid))
        assert found.lo <= y.min() + 1e-6 and found.hi >= y.max() - 1e-6, name


def test_a_shift_of_more_axes_than_the_total_is_no_logsumexp() -> None:
    b = jnp.arange(4.0)
    found = bound(lambda x: jnp.log(jnp.exp(x - x[:1]).sum()) + x[:1] * b, (jnp.zeros(4), jnp.zeros(4)))
    np.testing.assert_allclose(np.asarray([found.lo, found.hi]), np.log(4), rtol=1e-5)


def test_a_maximum_along_another_axis_tames_nothing() -> None:
    """x less its greatest of each column, summed along rows: e^100 overflows."""

    def crossed(x: jax.Array) -> jax.Array:
        e = jnp.exp(x - jnp.max(x, 0)[:, None])
        return e / jnp.sum(e, 1, keepdims=True)

    x = jnp.asarray([[0.0, 100.0], [-100.0, -100.0]])
    assert np.isnan(np.asarray(crossed(x))).any()
    found = bound(crossed, (x, x), method=IBP(), sound=True)
    assert not np.isfinite(np.asarray(found.lo)[0]).any() and not np.isfinite(np.asarray(found.hi)[0]).any()


def test_a_large_mask_is_one_only_far_below_the_logits() -> None:
    """-1e31 hides nothing among logits of -2e31."""

    def masked(x: jax.Array) -> jax.Array:
        return jax.nn.softmax(jnp.where(jnp.arange(3) == 0, -1e31, x * 1e31))

    for end, hidden in ((-2.0, False), (0.0, True)):
        box = (jnp.full(3, end - 0.5), jnp.full(3, end))
        found = bound(masked, box, method=IBP(), sound=True)
        y = np.asarray(masked(box[0]))
        assert np.all(np.asarray(found.lo) <= y + 1e-6) and np.all(np.asarray(found.hi) >= y - 1e-6)
        assert (y[0] == 0) == hidden


def test_the_own_range_of_a_hinted_end_pays_for_its_sum() -> None:
    """IBP of a sum of log-softmax: the float32 sum over 4000 ends rounds, and what it may lose is taken off."""
    n = 4000
    form = np.random.default_rng(0).uniform(0.5, 1.5, (1, n)).astype(np.float32)
    graph = trace(jax.nn.log_softmax, jax.ShapeDtypeStruct((n,), jnp.float32))
    value = graph.outputs[0]
    assert isinstance(value, Ref)
    problem = Problem(graph, value.index, Region([(jnp.zeros(n), jnp.zeros(n))]), jnp.asarray(form), jnp.zeros(1), True, 1, 1 << 30)
    ranges = problem.intervals()
    end = form[0].astype(np.float64) * np.asarray(ranges[value.index][0], np.float64)
    unit = float(np.finfo(np.float32).eps) / 2
    with jax.numpy_rank_promotion("allow"):
        found = float(by_intervals(problem, ranges)[0])
    assert end.sum() - found >= n * unit * np.abs(end).sum()
