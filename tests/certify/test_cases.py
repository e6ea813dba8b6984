"""Cases in float32: what is proved about them holds for the property as it was written."""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsec
from jaxsec.certify import verify
from jaxsec.certify._question import Question
from jaxsec.io import Case, Clause, Property

from .test_verify import random_net


def one_case(lo: np.ndarray, hi: np.ndarray, clause: Clause) -> Property:
    return Property(n_inputs=len(lo), n_outputs=clause.Cy.shape[1], cases=(Case(lo=lo, hi=hi, clauses=(clause,)),))


def copies(params: jnp.ndarray, x: jnp.ndarray) -> jnp.ndarray:
    return jnp.abs(x) @ params


def test_boxes_are_rounded_outward() -> None:
    x = np.array([0.1, 0.7, 1 / 3, 1e300])
    clause = Clause(Cx=None, Cy=np.ones((1, 2)), d=np.zeros(1))
    (case,) = Question(jaxsec.bind(copies, jnp.ones((4, 2))), one_case(-x, x, clause)).cases
    assert np.all(case.lo.astype(np.float64) <= -x) and np.all(x <= case.hi.astype(np.float64))
    assert np.all(np.abs(case.hi[:3] - x[:3]) < 1e-7) and case.hi[3] == np.inf and case.lo[3] == -np.inf


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=5, max_size=5), st.floats(-10, 10))
def test_rows_in_float32_are_never_above_the_written_ones(row: list[float], d: float) -> None:
    """For every output that the box allows, here y = (|x|, ..., |x|): what float32 proves above 0 is above 0."""
    clause = Clause(Cx=None, Cy=np.array([row]), d=np.array([d]))
    (case,) = Question(jaxsec.bind(copies, jnp.ones((1, 5))), one_case(np.ones(1), np.full(1, 2.0), clause)).cases
    for x in (1.0, 1.5, 2.0):
        y = np.full(5, x)
        assert float(case.spec[0, 0].astype(np.float64) @ y) + float(case.at[0, 0]) <= row @ y - d + 1e-15 * (np.abs(row) @ y + abs(d))


def test_coefficients_that_float32_rounds_prove_nothing() -> None:
    """0.3 + 0.3 - 0.5 - 0.100000001 is below 0, and above 0 once each is rounded."""
    row = np.array([[0.3, 0.3, -0.5, -0.100000001]])
    assert row.astype(np.float32).astype(np.float64).sum() > 0 > row.sum()
    asked = one_case(np.ones(1), np.full(1, 2.0), Clause(Cx=None, Cy=row, d=np.zeros(1)))
    assert verify(jaxsec.bind(copies, jnp.ones((1, 4))), asked, timeout=30, sound=True).verdict == "sat"


@pytest.mark.parametrize("neurons", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_rows_of_inputs_and_outputs(seed: int, neurons: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`c x + r y <= d`: the two verdicts around the least value on a grid differ."""
    if neurons:
        monkeypatch.setattr(importlib.import_module("jaxsec.certify._verify_run"), "_FEW_INPUTS", 0)
    model, c, r = random_net(seed, (2, 10, 3)), np.array([0.7, -1.2]), np.array([1.0, -0.5, 0.25])
    g = np.linspace(-1, 1, 401, dtype=np.float32)
    x = np.stack(np.meshgrid(g, g), -1).reshape(-1, 2)
    least = float((x @ c + np.asarray(model(jnp.asarray(x)), np.float64) @ r).min())
    for d, expected in ((least + 1e-3, "sat"), (least - 0.02, "unsat")):
        asked = one_case(-np.ones(2), np.ones(2), Clause(Cx=c[None], Cy=r[None], d=np.array([d])))
        found = verify(model, asked, timeout=60)
        assert found.verdict == expected
        if found.x is not None and found.y is not None:
            assert found.y.shape == (3,) and c @ found.x + r @ found.y <= d


@pytest.mark.parametrize("sound", [False, True])
def test_a_coefficient_below_the_normal_numbers_proves_nothing(sound: bool) -> None:
    """A spike of height 2e38 that random points miss: the row is below 0 there, and 0.3 if hardware takes the coefficient for 0."""
    model = jaxsec.bind(lambda p, x: 2e38 * jnp.maximum(1 - 1e6 * jnp.abs(x - p), 0), jnp.full((1, 1), 0.377123))
    asked = one_case(np.zeros(1), np.ones(1), Clause(Cx=None, Cy=np.array([[-5e-39]]), d=np.array([-0.3])))
    assert asked.violated([np.float32(0.377123)], np.asarray(model(jnp.full((1, 1), 0.377123)))[0])
    assert verify(model, asked, timeout=1, sound=sound).verdict != "unsat"


def test_a_point_counts_in_every_box_that_it_may_lie_in() -> None:
    """The float32 number nearest to 0.1 lies in a safe box, and an ulp beside an unsafe one of a single point."""
    clauses = [Clause(Cx=None, Cy=np.ones((1, 1)), d=np.array([d])) for d in (-1.0, 1.0)]
    cases = (Case(np.zeros(1), np.ones(1), (clauses[0],)), Case(np.full(1, 0.1), np.full(1, 0.1), (clauses[1],)))
    found = verify(jaxsec.bind(lambda p, x: x * p, jnp.ones((1, 1))), Property(n_inputs=1, n_outputs=1, cases=cases), timeout=30)
    assert found.verdict == "sat" and found.x is not None and found.x[0] == 0.1


def test_points_without_a_place_are_no_counterexamples() -> None:
    """Infinite and NaN points of boxes without an end; the finite one beside them counts."""
    clause = Clause(Cx=None, Cy=np.ones((1, 1)), d=np.array([5.0]))
    asked = Question(jaxsec.bind(lambda p, x: x * p, jnp.ones((1, 1))), one_case(np.zeros(1), np.full(1, np.inf), clause))
    assert asked.counterexample(np.array([[np.nan]])) is None and asked.counterexample(np.array([[np.inf], [np.nan]])) is None
    found = asked.counterexample(np.array([[np.nan], [np.inf], [9.0], [3.0]]))
    assert found is not None and found[0].tolist() == [3.0] and found[1].tolist() == [3.0]
