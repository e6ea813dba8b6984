"""`verify` against brute force, the field's own ground truth, and questions with known answers."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.certify import verify
from jaxsec.certify._question import Question
from jaxsec.certify._search import auto_pgd, search
from jaxsec.certify._split_inputs import InputSplit
from jaxsec.certify._split_neurons import NeuronSplit
from jaxsec.io import Case, Clause, Property

from .conftest import need, net, prop, truth, witnesses


def small(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b[None])
    return x @ params[-1][0] + params[-1][1][None]


def random_net(seed: int, sizes: tuple[int, ...]) -> jaxsec.Model:
    r = np.random.default_rng(seed)
    params = [
        (jnp.asarray(r.normal(size=(a, b)) / np.sqrt(a), jnp.float32), jnp.asarray(r.normal(size=b) * 0.3, jnp.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return jaxsec.bind(small, params)


def question(n: int, rows: np.ndarray, limit: np.ndarray, radius: float = 1.0) -> Property:
    """Unsafe iff `rows y <= limit`, on the box of that radius around 0."""
    return Property(
        n_inputs=n,
        n_outputs=rows.shape[1],
        cases=(Case(lo=np.full(n, -radius), hi=np.full(n, radius), clauses=(Clause(Cx=None, Cy=rows, d=limit),)),),
    )


def least_on_grid(model: jaxsec.Model, row: np.ndarray, steps: int = 401) -> float:
    g = np.linspace(-1, 1, steps, dtype=np.float32)
    x = np.stack(np.meshgrid(g, g), -1).reshape(-1, 2)
    return float((np.asarray(model(jnp.asarray(x)), np.float64) @ row).min())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("inside", [True, False])
def test_verdicts_are_those_of_a_fine_grid(seed: int, inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least value on a grid, a little more and a little less: the two verdicts differ. Both ways of splitting."""
    model = random_net(seed, (2, 12, 12, 3))
    row = np.array([1.0, -0.5, 0.25])
    least = least_on_grid(model, row)
    if inside:
        monkeypatch.setattr(importlib.import_module("jaxsec.certify._verify_run"), "_FEW_INPUTS", 0)
    safe = verify(model, question(2, row[None], np.array([least - 0.02])), timeout=120)
    assert safe.verdict == "unsat", safe
    unsafe = verify(model, question(2, row[None], np.array([least + 0.01])), timeout=120)
    assert unsafe.verdict == "sat", unsafe
    assert unsafe.x is not None and unsafe.y is not None and np.abs(unsafe.x).max() <= 1
    np.testing.assert_allclose(np.asarray(model(jnp.asarray(unsafe.x[None], jnp.float32)))[0], unsafe.y, rtol=1e-5, atol=1e-5)
    assert unsafe.y @ row <= least + 0.01 and unsafe.margin <= 0


@pytest.mark.parametrize("inside", [True, False])
def test_splitting_alone_finds_no_proof_where_there_is_none(inside: bool) -> None:
    """Without the attack: rounds of a splitter on an unsafe box never close it."""
    model = random_net(7, (2, 8, 8, 2))
    row = np.array([1.0, -1.0])
    asked = Question(model, question(2, row[None], np.array([least_on_grid(model, row) + 0.05])))
    split = (NeuronSplit if inside else InputSplit)(asked, asked.cases[0], sound=False, budget=1 << 28)
    if isinstance(split, NeuronSplit):
        assert not split.root(0).all()
    for _ in range(12):
        if not len(split.pool):
            break
        split.round()
    assert len(split.pool) or (isinstance(split, NeuronSplit) and split.stuck)


@pytest.mark.parametrize("margin", [-0.02, 0.02], ids=["safe", "unsafe"])
def test_a_tree_goes_on_from_refined_ranges(margin: float) -> None:
    """Two clauses that a tree has opened, and ranges refined beside it: it closes where both hold, and nowhere else."""
    model = random_net(5, (2, 10, 10, 10, 3))
    rows = np.array([[1.0, -0.5, 0.25], [0.5, 1.0, -1.0]])
    limits = [least_on_grid(model, row) + margin for row in rows]
    clauses = tuple(Clause(Cx=None, Cy=row[None], d=np.array([limit])) for row, limit in zip(rows, limits, strict=True))
    asked = Question(model, Property(n_inputs=2, n_outputs=3, cases=(Case(lo=-np.ones(2), hi=np.ones(2), clauses=clauses),)))
    split = NeuronSplit(asked, asked.cases[0], sound=False, budget=1 << 28)
    assert not split.root(20).all()
    split.round()
    tree, stuck, before = split.pool, split.stuck, [(lo.copy(), hi.copy()) for lo, hi in split.known]
    ends = list(split.refinements())
    assert sum(ends) == 2 and ends[-1]  # of three layers the first is exact
    for end, sign in ((0, 1), (1, -1)):  # both ends have moved inward
        assert sum(float(sign * (k[end] - b[end]).sum()) for b, k in zip(before, split.known, strict=True)) > 0.05
    split.root(20)
    fresh = split.pool
    split.pool.bound[:] = 100.0
    split.resume(tree, 3)
    assert split.pool is fresh and split.stuck == 0, "a root that is nearer to its end than the old tree"
    split.pool.bound[:] = -100.0
    split.resume(tree, 3)
    assert split.pool is tree and len(tree) and split.stuck == 3, "leaves that nothing decided stay open"
    split.stuck = stuck
    lanes, _ = tree.rows
    for (lo, hi), (least, most) in zip(lanes.known, split.known, strict=True):
        assert (lo[tree.at] >= least).all() and (hi[tree.at] <= most).all()
    while len(split.pool) and split.done < 2000:
        split.round()
    assert (len(split.pool) + split.stuck == 0) == (margin < 0)


def test_all_rows_of_a_clause_must_hold() -> None:
    """y0 >= y1 and y0 <= y1 - 1 cannot both hold, though each can."""
    model = random_net(3, (2, 8, 2))
    rows = np.array([[-1.0, 1.0], [1.0, -1.0]])
    assert verify(model, question(2, rows, np.array([0.0, -1.0])), timeout=120).verdict == "unsat"


def test_a_property_with_nothing_unsafe_is_unsat_and_an_unsafe_box_is_sat() -> None:
    model = random_net(0, (2, 4, 2))
    assert verify(model, Property(n_inputs=2, n_outputs=2, cases=()), timeout=10).verdict == "unsat"
    whole = Case(lo=np.zeros(2), hi=np.ones(2), clauses=(Clause(Cx=None, Cy=np.zeros((0, 2)), d=np.zeros(0)),))
    assert verify(model, Property(n_inputs=2, n_outputs=2, cases=(whole,)), timeout=60).verdict == "sat"


def test_no_time_is_a_timeout_and_no_verdict() -> None:
    model = random_net(1, (2, 12, 12, 3))
    row = np.array([1.0, -0.5, 0.25])
    found = verify(model, question(2, row[None], np.array([least_on_grid(model, row) - 1e-3])), timeout=0)
    assert found.verdict == "timeout" and found.x is None


def test_counts_that_do_not_fit_are_named() -> None:
    model = random_net(1, (2, 4, 3))
    with pytest.raises(ValueError, match="3 outputs, the property declares 2"):
        verify(model, question(2, np.ones((1, 2)), np.zeros(1)), timeout=1)


FAMILIES = ("acasxu", "rl_benchmarks", "reach_prob_density", "mnist_fc")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_never_unsat_where_a_witness_is_known(family: str) -> None:
    """Bounds alone, without the attack: one round of the splitter leaves the box of every witness open, and contains f(witness)."""
    need()
    for key, x in list(witnesses(family).items())[:: 4 if family in ("acasxu", "rl_benchmarks") else 2]:
        line = truth(family)[int(key)]
        assert line["verdict"] == "sat"
        asked = Question(net(family, line["onnx"]), prop(family, line["vnnlib"]))
        boxes = [c for c in asked.cases if np.all(x >= c.lo - 1e-4) and np.all(x <= c.hi + 1e-4)]
        assert boxes
        case = boxes[0]
        split = (InputSplit if len(case.lo) <= 16 else NeuronSplit)(asked, case, sound=False, budget=1 << 28)
        if isinstance(split, NeuronSplit):
            assert not split.root(0).all(), key
        else:
            split.round()
            assert len(split.pool), key


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_counterexample_where_the_property_holds(family: str) -> None:
    need()
    lines = [line for line in truth(family) if line["verdict"] == "unsat"]
    for line in lines[:: max(1, len(lines) // 8)]:
        asked = Question(net(family, line["onnx"]), prop(family, line["vnnlib"]))
        for case in asked.cases:
            assert search(asked, case, jax.random.key(0), rounds=2, out_of_time=lambda: False) is None, line


@pytest.mark.slow
@pytest.mark.parametrize("family, idx", [("acasxu", 45), ("acasxu", 183), ("rl_benchmarks", 0), ("mnist_fc", 0), ("mnist_fc", 2)])
def test_published_verdicts(family: str, idx: int) -> None:
    need()
    line = truth(family)[idx]
    found = verify(net(family, line["onnx"]), prop(family, line["vnnlib"]), timeout=110)
    assert found.verdict == line["verdict"], found


@pytest.mark.parametrize("seed", range(3))
def test_the_engines_own_attack_finds_what_a_grid_finds(seed: int) -> None:
    """Auto-PGD against a clause of two rows beside one that nothing violates; its point is replayed."""
    model = random_net(seed, (2, 12, 12, 3))
    row = np.array([1.0, -0.5, 0.25])
    least = least_on_grid(model, row)
    rows = np.stack([row, -row])
    for limit, found in ((least + 0.05, True), (least - 0.05, False)):
        clauses = (Clause(Cx=None, Cy=rows, d=np.array([limit, 100.0])), Clause(Cx=None, Cy=row[None], d=np.array([least - 50.0])))
        asked = Question(model, Property(n_inputs=2, n_outputs=3, cases=(Case(lo=-np.ones(2), hi=np.ones(2), clauses=clauses),)))
        point = auto_pgd(asked, asked.cases[0], jax.random.key(0))
        assert (point is not None) == found
        if point is not None:
            assert row @ point[1] <= limit


def test_auto_pgd_leaves_boxes_without_an_end_alone() -> None:
    asked = Question(random_net(0, (2, 4, 1)), question(2, np.ones((1, 1)), np.array([1e6]), radius=np.inf))
    assert auto_pgd(asked, asked.cases[0], jax.random.key(0)) is None


def bent(params, x):
    for w, b in params[:-1]:
        x = jnp.tanh(2 * (x @ w) + b[None])
    return x @ params[-1][0] + params[-1][1][None]


def test_cuts_of_curves_prove_what_their_lines_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tanh network between whose least value and alpha-CROWN's bound a limit lies; and one that lies above the least value."""
    monkeypatch.setattr(importlib.import_module("jaxsec.certify._verify_run"), "_FEW_INPUTS", 0)
    model = jaxsec.bind(bent, random_net(1, (2, 6, 3)).params)
    row = np.array([1.0, -0.5, 0.25])
    least = least_on_grid(model, row)
    proved = verify(model, question(2, row[None], np.array([least - 0.03])), timeout=300)
    assert proved.verdict == "unsat" and proved.method == "beta-crown" and proved.branches > 2, proved
    asked = Question(model, question(2, row[None], np.array([least + 0.03])))
    split = NeuronSplit(asked, asked.cases[0], sound=False, budget=1 << 28)
    assert not split.root(20).all()
    for _ in range(12):
        split.round()
    assert len(split.pool)


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("hi", [1e39, np.inf])
def test_a_box_without_an_end_is_not_proved(hi: float, sound: bool) -> None:
    """1e39 is no float32 number; the tent is 1 at 5 and 0 at both ends of what random points see."""
    model = jaxsec.bind(lambda p, x: jax.nn.relu(x - jnp.asarray([[4.0, 5.0, 6.0]])) @ p, jnp.asarray([[1.0], [-2.0], [1.0]]))
    case = Case(lo=np.zeros(1), hi=np.array([hi]), clauses=(Clause(Cx=None, Cy=np.array([[-1.0]]), d=np.array([-0.5])),))
    assert verify(model, Property(n_inputs=1, n_outputs=1, cases=(case,)), timeout=60, sound=sound).verdict != "unsat"


def test_ends_that_are_no_numbers_are_named() -> None:
    case = Case(lo=np.array([np.nan, 0.0]), hi=np.ones(2), clauses=(Clause(Cx=None, Cy=np.ones((1, 1)), d=np.zeros(1)),))
    with pytest.raises(ValueError, match=r"input 0 of a box goes from nan to 1\.0"):
        verify(random_net(0, (2, 4, 1)), Property(n_inputs=2, n_outputs=1, cases=(case,)), timeout=60)


def test_a_case_without_clauses_is_safe() -> None:
    prop = Property(n_inputs=2, n_outputs=1, cases=(Case(lo=np.zeros(2), hi=np.ones(2), clauses=()),))
    assert verify(random_net(0, (2, 4, 1)), prop, timeout=60).verdict == "unsat"


def test_a_loop_without_a_reverse_derivative_is_verified_without_one() -> None:
    """`lax.while_loop` has bounds where its trip count is known, and no reverse mode: points at random take the descent's place."""

    def twice(p, x):
        return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jax.nn.relu(s[1] @ p)), (0, x))[1]

    model = jaxsec.bind(twice, jnp.eye(2))
    for limit, verdict in ((-1.5, "unsat"), (0.5, "sat")):
        assert verify(model, question(2, np.array([[1.0, 0.0]]), np.array([limit])), timeout=60).verdict == verdict
