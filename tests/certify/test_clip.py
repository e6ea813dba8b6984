"""Clipping boxes by linear bounds: nothing unsafe is lost, and what one bound proves is gone."""

from fractions import Fraction

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxsec.certify import verify
from jaxsec.certify._clip import clipped
from jaxsec.io import Case, Clause, Property

from .conftest import need, net, prop, truth
from .test_verify import question, random_net

_COUNTS = {"clauses": st.integers(1, 3), "rows": st.integers(1, 4), "inputs": st.integers(1, 6)}


@given(seed=st.integers(0, 2**32 - 1), scale=st.integers(-6, 6), **_COUNTS)
def test_no_unsafe_point_is_cut_off(seed: int, scale: int, clauses: int, rows: int, inputs: int) -> None:
    r = np.random.default_rng(seed)
    lo = (r.normal(size=(1, inputs)) * 10.0**scale).astype(np.float32)
    hi = lo + (r.random((1, inputs)) * 10.0**scale).astype(np.float32)
    slope = r.normal(size=(1, clauses, rows, inputs)).astype(np.float32) * (r.random((1, clauses, rows, inputs)) < 0.8)
    points = lo + (hi.astype(np.float64) - lo) * np.concatenate([r.random((2000, inputs)), r.integers(0, 2, (64, inputs))])
    away = np.where(slope[0] > 0, points[:, None, None] - lo, points[:, None, None] - hi)  # [P, clauses, rows, inputs]
    rise = (slope[0] * away).sum(-1)
    share = r.random((clauses, rows))  # of the points that a row leaves unsafe
    least = -np.array([[np.quantile(rise[:, c, k], share[c, k]) for k in range(rows)] for c in range(clauses)])[None]
    unsafe = (least[0] + rise <= 0).all(-1)  # [P, clauses]
    open = np.ones((1, clauses), bool)
    open[0, 0] = clauses == 1 or seed % 2 == 0
    low, high = clipped(lo, hi, least, slope, open)
    kept = points[(unsafe & open[0]).any(1)]
    assert ((kept >= low) & (kept <= high)).all()
    assert (low >= lo).all() and (high <= hi).all()


def test_one_bound_is_solved_for_every_input() -> None:
    """x0 - 2 x1 + 1.5 <= 0 on the unit square: x0 <= .5 and x1 >= .75."""
    box, slope = (np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)), np.array([1.0, -2.0]).reshape(1, 1, 1, 2)
    lo, hi = clipped(*box, np.full((1, 1, 1), -0.5), slope, np.ones((1, 1), bool))
    np.testing.assert_allclose(lo, [[0, 0.75]], atol=1e-6)
    np.testing.assert_allclose(hi, [[0.5, 1]], atol=1e-6)


def test_ends_are_rounded_outward() -> None:
    """.7 lies above the float32 nearest to it, .4 below: both of these points may be unsafe."""
    box, open = (np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)), np.ones((1, 1), bool)
    lo, hi = clipped(*box, np.array([[[-0.7, -0.6]]]), np.array([[[[1.0, 0.0], [0.0, -1.0]]]]), open)
    assert float(hi[0, 0]) >= 0.7 > float(np.float32(0.7))
    assert float(lo[0, 1]) <= 0.4 < float(np.float32(0.4))


def test_what_float64_loses_is_charged() -> None:
    """The point where two rows are 0, in exact arithmetic: an ulp of a large number, times a steep slope, moves the other input's end by
    more than float32 sees."""
    for seed in range(60):
        r = np.random.default_rng(seed)
        lo = np.array([[r.uniform(1e4, 2e4), 0]], np.float32)
        hi = lo + np.array([[r.uniform(0.01, 0.1), 1e-3]], np.float32)
        slope = np.array([[[[-r.uniform(0.5, 3), 0], [1000, 1]]]], np.float32)
        least = np.array([[[-r.uniform(0.01, 0.09), 0]]], np.float32)
        left, right = Fraction(float(lo[0, 0])), Fraction(float(hi[0, 0]))
        first = max(left, right + Fraction(float(least[0, 0, 0])) / abs(Fraction(float(slope[0, 0, 0, 0]))))
        least[0, 0, 1] = -(1000 * float(first - left) + r.uniform(1e-4, 9e-4))
        second = -Fraction(float(least[0, 0, 1])) - 1000 * (first - left)
        low, high = clipped(lo, hi, least, slope, np.ones((1, 1), bool))
        assert 0 < second < Fraction(float(hi[0, 1]))
        assert Fraction(float(low[0, 0])) <= first <= Fraction(float(high[0, 0]))
        assert Fraction(float(low[0, 1])) <= second <= Fraction(float(high[0, 1]))


@pytest.mark.parametrize("end", [np.inf, -np.inf])
def test_boxes_without_an_end_stay_whole(end: float) -> None:
    lo, hi = np.array([[min(end, 0.0), 0]], np.float32), np.array([[max(end, 0.0), 1]], np.float32)
    low, high = clipped(lo, hi, np.array([[[-np.inf]]]), np.ones((1, 1, 1, 2)), np.ones((1, 1), bool))
    assert (low == lo).all() and (high == hi).all()


def test_rows_that_contradict_each_other_leave_nothing() -> None:
    """x <= .2 and x >= .8 have no point in common; as two clauses they have two, with all between."""
    box = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    least, slope = np.array([-0.2, -0.2]), np.array([1.0, -1.0])
    lo, hi = clipped(*box, least.reshape(1, 1, 2), slope.reshape(1, 1, 2, 1), np.ones((1, 1), bool))
    assert (lo > hi).all()
    lo, hi = clipped(*box, least.reshape(1, 2, 1), slope.reshape(1, 2, 1, 1), np.ones((1, 2), bool))
    assert lo == 0 and hi == 1


@pytest.mark.parametrize("what", ["nothing known", "slope not finite", "no slope"])
def test_rows_that_say_nothing_cut_nothing(what: str) -> None:
    least = np.array([-np.inf if what == "nothing known" else -0.1]).reshape(1, 1, 1)
    slope = np.array([{"slope not finite": np.inf, "no slope": 0.0}.get(what, 1.0), 0.0], np.float32).reshape(1, 1, 1, 2)
    lo, hi = clipped(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), least, slope, np.ones((1, 1), bool))
    assert (lo == 0).all() and (hi == 1).all()


@pytest.mark.parametrize("varying", [0, 2])
def test_inputs_that_do_not_vary_are_not_split(varying: int) -> None:
    """Forty inputs of which few vary are a question of few inputs; of none, a question of one point."""
    model = random_net(0, (40, 12, 3))
    of_box = question(40, np.array([[1.0, 0.0, 0.0]]), np.zeros(1))
    x = np.linspace(-1, 1, 40)
    lo, hi = x.copy(), x.copy()
    hi[:varying] += 0.5
    y = np.asarray(model(jnp.asarray(np.stack([lo, hi]), jnp.float32)), np.float64)[:, 0].min()
    for limit, verdict in ((y - 3.0, "unsat"), (y + 0.1, "sat")):
        case = Case(lo=lo, hi=hi, clauses=(Clause(Cx=None, Cy=of_box.cases[0].clauses[0].Cy, d=np.array([limit])),))
        found = verify(model, Property(n_inputs=40, n_outputs=3, cases=(case,)), timeout=60)
        assert found.verdict == verdict
        assert found.method in ("input split", "crown", "attack")


def test_several_rows_on_a_convolutional_net_of_which_few_inputs_vary() -> None:
    """The published net on which XLA's fusion of all rows' derivatives ended the process."""
    need()
    row = truth("collins_rul_cnn")[4]
    found = verify(net("collins_rul_cnn", row["onnx"]), prop("collins_rul_cnn", row["vnnlib"]), timeout=120)
    assert found.verdict == "unsat"
