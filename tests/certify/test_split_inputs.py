"""The input splitter without an attack beside it: an unsafe point is in an open box as long as it runs, whatever the question."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.certify import _split_inputs, verify
from jaxsec.certify._question import Question
from jaxsec.certify._split_inputs import InputSplit
from jaxsec.io import Case, Clause, Property

from .test_verify import random_net

_FIXED = np.array([0.1, 0.7, -0.3])  # no float32 numbers: their boxes are an ulp wide


def asked(clauses: list[tuple[np.ndarray, np.ndarray]]) -> Question:
    """Two inputs in [-1, 1] and three that do not vary."""
    lo, hi = np.concatenate([[-1, -1], _FIXED]), np.concatenate([[1, 1], _FIXED])
    case = Case(lo=lo, hi=hi, clauses=tuple(Clause(Cx=None, Cy=rows, d=limits) for rows, limits in clauses))
    return Question(random_net(5, (5, 12, 12, 3)), Property(n_inputs=5, n_outputs=3, cases=(case,)))


def points(question: Question) -> tuple[np.ndarray, np.ndarray]:
    """Points of the float32 box, the fixed inputs at either end, and their outputs."""
    case, r = question.cases[0], np.random.default_rng(0)
    free = np.concatenate([r.uniform(-1, 1, (4000, 2)), r.integers(0, 2, (96, 2)) * 2 - 1])
    ends = np.where(r.integers(0, 2, (len(free), 3)), case.lo[2:], case.hi[2:])
    x = np.concatenate([free, ends], 1).astype(np.float32)
    return x, np.asarray(question.model(jnp.asarray(x)), np.float64)


_ROW = np.array([1.0, -0.5, 0.25])


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("what", ["one row", "two rows", "a clause that is proved beside it", "two clauses"])
def test_an_unsafe_point_is_in_an_open_box(what: str, sound: bool) -> None:
    y = points(asked([(_ROW[None], np.zeros(1))]))[1]
    least = np.quantile(y @ _ROW, 0.02)
    other = np.quantile(-y[y @ _ROW <= least, 1], 0.7)
    clauses = {
        "one row": [(_ROW[None], np.array([least]))],
        "two rows": [(np.stack([_ROW, [0, -1, 0]]), np.array([least, other]))],
        "a clause that is proved beside it": [(_ROW[None], np.array([least - 50])), (_ROW[None], np.array([least]))],
        "two clauses": [(_ROW[None], np.array([least])), (-_ROW[None], np.array([-np.quantile(y @ _ROW, 0.97)]))],
    }[what]
    question = asked(clauses)
    x, y = points(question)
    unsafe = x[np.any([np.all(y @ rows.T <= limits, axis=1) for rows, limits in clauses], axis=0)]
    assert len(unsafe) > 20
    split = InputSplit(question, question.cases[0], sound=sound, budget=1 << 28)
    for _ in range(8):
        split.round()
        waiting: Any = split.pool.take(len(split.pool))
        inside = (unsafe[:, None] >= waiting.lo) & (unsafe[:, None] <= waiting.hi)
        assert inside.all(-1).any(1).all()
        split.pool.put(waiting, np.zeros(len(waiting.lo), np.float32))
    area = np.prod(waiting.hi[:, :2] - waiting.lo[:, :2], axis=1).sum()
    assert area < 3.0  # of 4: something was proved and clipped


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("value", [1e-7, 1e-5])
def test_a_bound_counts_above_its_tolerance_only(value: float, sound: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear bound of 1e-7 summed from numbers of size 1 proves nothing unless it is rigorous, and cuts nothing at its best corner."""
    bounded = _split_inputs._bounded

    def of_size_one(*args: Any, **how: Any) -> Any:
        found = bounded(*args, **how)
        level = jnp.full_like(found.lower, value)
        return found._replace(lower=level, linear=level, size=jnp.ones_like(found.size), slope=jnp.ones_like(found.slope))

    monkeypatch.setattr(_split_inputs, "_bounded", of_size_one)
    question = asked([(_ROW[None], np.zeros(1))])
    split = InputSplit(question, question.cases[0], sound=sound, budget=1 << 28)
    split.round()
    assert (len(split.pool) == 0) == (sound or value == 1e-5)


def test_intervals_prove_and_do_not_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound by intervals has no slope: what the linear bound is not sure of stays, however near the other is to a proof."""
    bounded = _split_inputs._bounded

    def nearly(*args: Any, **how: Any) -> Any:
        found = bounded(*args, **how)
        slope = jnp.ones_like(found.slope)
        return found._replace(lower=jnp.full_like(found.lower, -0.01), linear=jnp.full_like(found.lower, -10.0), slope=slope)

    monkeypatch.setattr(_split_inputs, "_bounded", nearly)
    question = asked([(_ROW[None], np.zeros(1))])
    split = InputSplit(question, question.cases[0], sound=True, budget=1 << 28)
    split.round()
    waiting = split.pool.take(2)
    assert waiting.lo[:, :2].min(0).tolist() == [-1, -1] and waiting.hi[:, :2].max(0).tolist() == [1, 1]


def test_one_point_that_nothing_decides_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = _split_inputs._bounded
    below = jnp.full((32, 1), -1.0)
    monkeypatch.setattr(_split_inputs, "_bounded", lambda *a, **k: bounded(*a, **k)._replace(lower=below, linear=below))
    case = Case(lo=np.full(5, 0.5), hi=np.full(5, 0.5), clauses=(Clause(Cx=None, Cy=_ROW[None], d=np.array([-100.0])),))
    found = verify(random_net(5, (5, 12, 12, 3)), Property(n_inputs=5, n_outputs=3, cases=(case,)), timeout=60)
    assert found.verdict == "unknown" and "nothing left to cut" in found.note


def test_a_row_on_inputs_alone_does_not_draw_the_cuts() -> None:
    """It holds on the whole box, so the tree must be no larger than without it."""
    model, r = random_net(3, (3, 12, 12, 3)), np.array([[1.0, -0.5, 0.25]])
    x = np.random.default_rng(0).uniform(-1, 1, (100_000, 3)).astype(np.float32)
    d = np.array([float((np.asarray(model(jnp.asarray(x)), np.float64) @ r[0]).min()) - 0.05])
    both = Clause(Cx=np.array([[0.0, 0, 0], [1, 1, 0]]), Cy=np.concatenate([r, 0 * r]), d=np.array([d[0], 2.001]))
    branches = []
    for clause in (Clause(Cx=None, Cy=r, d=d), both):
        case = Case(lo=-np.ones(3), hi=np.ones(3), clauses=(clause,))
        found = verify(model, Property(n_inputs=3, n_outputs=3, cases=(case,)), timeout=60)
        assert found.verdict == "unsat" and found.method == "input split"
        branches.append(found.branches)
    assert branches[1] <= 1.2 * branches[0] + 10, branches
