"""Leaves: with every sign known the linear program decides, and its proof is checked by the bound's own arithmetic."""

import functools
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound._beta_cuts import child
from jaxsec.bound._branch_neuron import bound_root
from jaxsec.certify import _leaves as leaves
from jaxsec.certify import verify
from jaxsec.certify._question import Question
from jaxsec.io import Case, Clause, Property

from .test_verify import least_on_grid, question, random_net

ROW = np.array([1.0, -0.5])
root = jax.jit(bound_root, static_argnums=1, static_argnames=("steps", "open", "sound", "budget"))


def every_leaf(asked: Question):
    """(lane with all six signs decided, signs) for all of them."""
    case = asked.cases[0]
    known = jax.tree.map(lambda v: v[0], asked.unknown())
    found = root(asked.model, asked.shape, case.lo, case.hi, known, case.spec, case.at, steps=0, open=16, sound=False, budget=1 << 26)
    first = jax.tree.map(lambda v: np.asarray(v)[0], found.lanes)
    for signs in itertools.product([False, True], repeat=6):
        lane = first
        for element, side in enumerate(signs):
            lane = child(lane, jnp.asarray(element), jnp.asarray(0.0), side)
        yield jax.tree.map(np.asarray, lane), signs


def grid_leaves(model, steps: int = 601) -> dict[tuple[bool, ...], float]:
    """The least value of the form on a fine grid, for every pattern of signs that a grid point has."""
    g = np.linspace(-1, 1, steps, dtype=np.float32)
    x = np.stack(np.meshgrid(g, g), -1).reshape(-1, 2).astype(np.float64)
    (w, b), (w2, b2), (v, c) = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in model.params]
    one = x @ w + b
    two = np.maximum(one, 0) @ w2 + b2
    y = (np.maximum(two, 0) @ v + c) @ ROW
    found: dict[tuple[bool, ...], float] = {}
    for pattern, value in zip((np.concatenate([one, two], 1) >= 0).tolist(), y, strict=True):
        found[tuple(pattern)] = min(found.get(tuple(pattern), np.inf), value)
    return found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sound", [False, True])
def test_every_leaf_is_decided_as_on_a_grid(seed: int, sound: bool) -> None:
    model = random_net(seed, (2, 3, 3, 2))
    grid = grid_leaves(model)
    middle = float(np.median(list(grid.values())))
    asked = Question(model, question(2, ROW[None], np.array([middle])))
    case, proved, open_ = asked.cases[0], 0, 0
    for lane, signs in every_leaf(asked):
        leaf = leaves.decided(asked, case, lane, case.spec[0], case.at[0], sound=sound, budget=1 << 26)
        least = grid.get(signs)
        if least is not None and least <= middle:
            assert not leaf.proved, signs
            open_ += 1
            assert leaf.point is not None
            assert float(np.asarray(model(jnp.asarray(leaf.point[None], jnp.float32)))[0] @ ROW) <= middle + 1e-5
        elif least is None or least > middle + 0.05:  # between them the grid is too coarse to tell
            assert leaf.proved or (least is None and leaf.point is not None), (signs, least)
            proved += leaf.proved
    assert proved >= 8 and open_ >= 1


def test_leaves_finish_what_multipliers_leave_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one step of ascent a subproblem a bound seldom closes what is cut to the end; the verdict is reached all the same."""
    neurons = importlib.import_module("jaxsec.certify._split_neurons")
    monkeypatch.setattr(importlib.import_module("jaxsec.certify._verify_run"), "_FEW_INPUTS", 0)
    grow = neurons._grow
    monkeypatch.setattr(neurons, "_grow", lambda *args, steps, **how: grow(*args, steps=1, **how))
    model = random_net(1, (2, 6, 6, 3))
    row = np.array([1.0, -0.5, 0.25])
    asked = question(2, row[None], np.array([least_on_grid(model, row) - 2e-3]))
    closed: list[bool] = []
    decided = neurons.decided

    @functools.wraps(decided)
    def counted(*args, **how):
        leaf = decided(*args, **how)
        closed.append(leaf.proved)
        return leaf

    monkeypatch.setattr(neurons, "decided", counted)
    assert verify(model, asked, timeout=900).verdict == "unsat"
    assert closed and all(closed)
    monkeypatch.setattr(neurons, "decided", lambda *args, **how: leaves.Leaf(False, None))
    assert verify(model, asked, timeout=900).verdict == "unknown"


def test_rows_that_cancel_prove_nothing_by_their_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """`7 y <= 7 P` and `3 y >= 3 P` hold at an input whose value is P: weights that make the two rows cancel leave rounding only."""
    r = np.random.default_rng(0)
    w = (r.normal(size=(17, 1)) * 2e4).astype(np.float32)
    model = jaxsec.bind(lifted, w)
    value = lambda x: float(model(jnp.asarray(x[None]))[0, 0])  # noqa: E731
    x = next(x for x in r.uniform(-0.2, 0.7, (500, 17)).astype(np.float32) if value(x) == round(value(x)))
    p = value(x)
    clause = Clause(Cx=None, Cy=np.array([[7.0], [-3.0]]), d=np.array([7 * p, -3 * p]))
    prop = Property(n_inputs=17, n_outputs=1, cases=(Case(lo=np.full(17, -0.37), hi=np.full(17, 0.91), clauses=(clause,)),))
    monkeypatch.setattr(importlib.import_module("jaxsec.certify._verify_run"), "search", lambda *args, **how: None)
    for sound in (False, True):
        assert verify(model, prop, timeout=30, sound=sound).verdict != "unsat"


def lifted(w, x):
    return jax.nn.relu(x @ w + 1e6)


def test_an_affine_network_with_many_inputs_has_nothing_to_cut() -> None:
    """Neither row alone is proved, both together are empty: a leaf from the start."""
    clause = Clause(Cx=None, Cy=np.array([[7.0], [-7.0]]), d=np.array([0.7, -1.4]))
    prop = Property(n_inputs=17, n_outputs=1, cases=(Case(lo=np.zeros(17), hi=np.ones(17), clauses=(clause,)),))
    assert verify(jaxsec.bind(affine, jnp.ones((17, 1))), prop, timeout=30).verdict == "unsat"


def affine(w, x):
    return x @ w
