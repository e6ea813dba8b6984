"""Properties of the competition: the published files and their counterexamples, a second evaluator, and every fault with its place."""

import csv
import gzip
import itertools
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsec.io import Case, Clause, Instance, Property, VNNLIBError, load, load_instances, load_vnnlib, read_result, write_result

FAMILIES = {  # name: (files, shapes of (n_inputs, n_outputs), counterexamples)
    "acasxu": (10, {(5, 5)}, 47),
    "collins_rul_cnn": (41, {(400, 1), (800, 1)}, 45),
    "dist_shift": (72, {(792, 10)}, 5),
    "mnist_fc": (30, {(784, 10)}, 18),
    "reach_prob_density": (36, {(3, 3), (5, 5), (14, 14)}, 14),
    "rl_benchmarks": (296, {(4, 2), (8, 4), (8, 8)}, 103),
    "sri_resnet_a": (72, {(3072, 10)}, 12),
    "verivital_2021": (60, {(784, 10)}, 0),
}
HEAD = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n"
BOX = "(assert (<= -1 X_0 1))\n"


@pytest.fixture
def vnncomp(shared_data):
    folder = shared_data / "vnncomp"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/vnncomp beside the repository")
    return folder


@pytest.fixture
def parse(tmp_path):
    def parsed(text, **counts):
        file = tmp_path / "p.vnnlib"
        file.write_text(text)
        return load_vnnlib(file, **counts)

    return parsed


@pytest.mark.parametrize("family", FAMILIES)
def test_published_files_and_counterexamples(family, vnncomp):
    """Every file is read; every re-checked counterexample has the right number of inputs and lies in a box, within the tolerance."""
    n_files, shapes, n_witnesses = FAMILIES[family]
    specs = {file: load_vnnlib(file) for file in sorted((vnncomp / family).glob("**/*.vnnlib.gz"))}
    assert len(specs) == n_files
    assert {(spec.n_inputs, spec.n_outputs) for spec in specs.values()} == shapes
    for file, spec in specs.items():
        assert spec.cases, file
        for case in spec.cases:
            assert np.all(case.lo <= case.hi) and np.isfinite(case.lo).all() and np.isfinite(case.hi).all()
            assert all(clause.Cx is None and len(clause.Cy) == len(clause.d) > 0 for clause in case.clauses)
    with open(vnncomp / family / "ground_truth.csv", newline="") as file:
        questions = {row["idx"]: row["vnnlib"] for row in csv.DictReader(file)}
    seen = 0
    if n_witnesses:
        with np.load(vnncomp / family / "witnesses.npz") as witnesses:
            for idx in witnesses:
                spec, x = specs[vnncomp / family / f"{questions[idx]}.gz"], witnesses[idx]
                assert x.shape == (spec.n_inputs,), (family, idx)
                assert any(np.all((case.lo - 1e-4 <= x) & (x <= case.hi + 1e-4)) for case in spec.cases), (family, idx)
                seen += 1
    assert seen == n_witnesses


def test_published_counterexamples_replay(vnncomp):
    """Files, networks and counterexamples of three nets together: what the network answers is unsafe, within the tolerance."""
    pytest.importorskip("onnx")
    folder = vnncomp / "rl_benchmarks"
    with open(folder / "ground_truth.csv", newline="") as file:
        questions = {row["idx"]: row for row in csv.DictReader(file)}
    with np.load(folder / "witnesses.npz") as witnesses:
        for net in ("cartpole", "lunarlander", "dubinsrejoin"):
            model = load(folder / f"onnx/{net}.onnx.gz", keep_softmax=True)
            asked = [idx for idx in witnesses if net in questions[idx]["onnx"]]
            x = np.stack([witnesses[idx] for idx in asked])
            y = np.asarray(model(x.reshape(-1, *model.info.input_shape).astype(np.float32)))
            specs = [load_vnnlib(folder / f"{questions[idx]['vnnlib']}.gz", n_inputs=x.shape[1], n_outputs=y.shape[1]) for idx in asked]
            assert all(spec.violated(*row, tolerance=1e-4) for spec, *row in zip(specs, x, y, strict=True)), net


def test_published_canonical_forms(vnncomp):
    shape = {file.name: [len(case.clauses) for case in load_vnnlib(file).cases] for file in (vnncomp / "acasxu").glob("vnnlib/*.gz")}
    expected = {1: [1], 2: [1], 3: [1], 4: [1], 5: [4], 6: [4, 4], 7: [2], 8: [3], 9: [4], 10: [4]}
    assert shape == {f"prop_{k}.vnnlib.gz": v for k, v in expected.items()}
    six, seven = (load_vnnlib(vnncomp / f"acasxu/vnnlib/prop_{k}.vnnlib.gz") for k in (6, 7))
    assert [case.lo[1] for case in six.cases] == [0.11140846, -0.499999896]
    assert [case.hi[0] for case in six.cases] == [0.700434925] * 2
    np.testing.assert_array_equal(seven.cases[0].clauses[0].Cy, [[-1, 0, 0, 1, 0], [0, -1, 0, 1, 0], [0, 0, -1, 1, 0]])
    [case] = load_vnnlib(vnncomp / "mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz", n_inputs=784, n_outputs=10).cases
    assert [len(clause.d) for clause in case.clauses] == [1] * 9 and case.hi[783] == 0.029999999329447746
    # The label is 4: unsafe wherever another output reaches it.
    spec, x = load_vnnlib(vnncomp / "mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz"), 0.5 * (case.lo + case.hi)
    y = np.zeros((2, 10))
    y[:, 4], y[1, 7] = 1.0, 1.5
    assert spec.violated(np.stack([x, x]), y).tolist() == [False, True]
    assert spec.margin(np.stack([x, x]), y).tolist() == [1.0, -0.5]


def test_a_cifar_file_takes_well_under_a_second(vnncomp):
    file = min((vnncomp / "sri_resnet_a").glob("vnnlib/*.gz"))
    times = []
    for _ in range(3):
        start = time.process_time()
        load_vnnlib(file)
        times.append(time.process_time() - start)
    assert min(times) < 1.0  # 0.06 s on the 2-core machine


# A formula is a nested tuple, ("and", f, g) or ("<=", ("+", "X_0", "1"), "Y_0"); constants are dyadic, so that float64 sums are exact.

VARIABLES = ("X_0", "X_1", "Y_0", "Y_1")
NUMBERS = ("0", "1", "2.5", "-3", "5e-1", ".25", "2.", ("-", "1"), ("/", "3", "4"), ("-", "4", "1", "0.5"), ("+", "1"), ("*", "2", "-0.75"))
numbers = st.sampled_from(NUMBERS)
terms = st.recursive(
    st.one_of(numbers, st.sampled_from(VARIABLES)),
    lambda t: st.one_of(
        st.lists(t, min_size=1, max_size=3).map(lambda a: ("+", *a)),
        st.lists(t, min_size=1, max_size=3).map(lambda a: ("-", *a)),
        st.tuples(numbers, t).map(lambda a: ("*", *a)),
        st.tuples(t, numbers).map(lambda a: ("*", *a)),
        st.tuples(t, st.sampled_from(("2", "-4", "0.5"))).map(lambda a: ("/", *a)),
    ),
    max_leaves=4,
)
operators = st.sampled_from(("<=", ">=", "<", ">", "="))
comparisons = st.one_of(
    st.tuples(operators, st.sampled_from(VARIABLES), numbers),
    st.tuples(operators, terms, terms),
    st.tuples(operators, numbers, terms, numbers),
)
formulas = st.recursive(
    comparisons,
    lambda f: st.tuples(st.sampled_from(("and", "or")), st.lists(f, min_size=1, max_size=3)).map(lambda a: (a[0], *a[1])),
    max_leaves=9,
)
grid = st.integers(-16, 16).map(lambda k: k / 4)


def text_of(node):
    return node if isinstance(node, str) else f"({' '.join(map(text_of, node))})"


def naive(node, point):
    """The value of a term or formula at a point, with strict comparisons closed: by the definition, in fractions."""
    if isinstance(node, str):
        return point[node] if node in point else Fraction(node)
    op, *args = node
    values = [naive(arg, point) for arg in args]
    if op in ("and", "or"):
        return all(values) if op == "and" else any(values)
    if op in ("<", "<=", ">", ">=", "="):
        pairs = list(itertools.pairwise(values))
        return all(a <= b if op[0] == "<" else a >= b if op[0] == ">" else a == b for a, b in pairs)
    if op == "-" and len(values) == 1:
        return -values[0]
    result = values[0]
    for value in values[1:]:
        result = {"+": result + value, "-": result - value, "*": result * value}[op] if op != "/" else result / value
    return result


@settings(max_examples=200, deadline=None)
@given(asserts=st.lists(formulas, min_size=1, max_size=3), points=st.lists(st.tuples(grid, grid, grid, grid), min_size=8, max_size=8))
def test_meaning_of_random_formulas(asserts, points, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "random.vnnlib"
    lines = [f"(declare-const {name} Real)" for name in VARIABLES]
    lines += ["(assert (and (>= X_0 -3) (<= X_0 3) (<= -2 X_1 3.5)))", "(assert (<= (* 0 Y_0) 0))"]
    file.write_text("\n".join([*lines, *(f"(assert {text_of(f)})" for f in asserts)]))

    def holds(point):
        named = {name: Fraction(value) for name, value in zip(VARIABLES, point, strict=True)}
        return -3 <= point[0] <= 3 and -2 <= point[1] <= 3.5 and all(naive(f, named) for f in asserts)

    expected = [holds(point) for point in points]
    try:
        spec = load_vnnlib(file)
    except VNNLIBError as error:
        assert "can never hold" in str(error) or "above its upper bound" in str(error)
        assert not any(expected)
        return
    x, y = np.array(points)[:, :2], np.array(points)[:, 2:]
    margins = spec.margin(x, y)
    assert spec.violated(x, y).tolist() == expected == (margins <= 0).tolist()
    assert [spec.violated(*row) for row in zip(x, y, strict=True)] == expected
    assert [spec.margin(*row) for row in zip(x, y, strict=True)] == margins.tolist()
    assert (spec.violated(x, y, tolerance=0.5) == (margins <= 0.5)).all()
    assert len({(case.lo.tobytes(), case.hi.tobytes()) for case in spec.cases}) == len(spec.cases)
    for case in spec.cases:
        assert (case.lo <= case.hi).all() and case.clauses and not case.lo.flags.writeable
        assert all(clause.Cx is None or clause.Cx.any() for clause in case.clauses)


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(("{!r}", "{:.3f}", "{:.40e}", "{:.12g}")))
def test_decimals_are_the_nearest_float64(value, form):
    text = form.format(value)
    if np.isinf(float(text)):
        return
    from jaxsec.io._vnnlib_source import Source
    from jaxsec.io._vnnlib_terms import nearest, number
    from jaxsec.io._vnnlib_tokens import Atom

    source = Source("p", text)
    assert nearest(number(Atom(text, 0), source), 0, source) == float(text)


def test_arithmetic_is_exact_until_the_end(parse):
    spec = parse(HEAD + "(assert (<= (- X_0 0.1) 0.2)) (assert (>= (* 3 X_0) (- 1))) (assert (<= (* (/ 1 3) Y_0) (+ 0.1 0.2)))")
    [case] = spec.cases
    assert case.hi.tolist() == [0.3] and case.lo.tolist() == [-1 / 3]  # 0.1 + 0.2 is 0.30000000000000004 in floats
    assert case.clauses[0].Cy.tolist() == [[1 / 3]] and case.clauses[0].d.tolist() == [0.3]


@pytest.mark.parametrize("number", ["0.1", "-0.0", "1e-5", "-3", "+2.5", "3.", ".5", "1e300", "4.9e-324", "1e-400", "0e99999999", "9" * 80])
def test_the_short_way_of_a_bound_gives_the_same(number, parse):
    forms = (f"(>= X_0 {number})", f"(<= {number} X_0)", f"(>= (+ X_0 0) {number})")
    lows = {parse(f"{HEAD}(assert {form}) (assert (<= X_0 1e308)) (assert (<= Y_0 0))").cases[0].lo.tobytes() for form in forms}
    assert lows == {np.array([float(number) + 0.0]).tobytes()}


def test_shapes_of_the_canonical_form(parse):
    two = "(declare-fun X_0 () Real)\n(declare-fun X_1 () Real)\n(declare-fun Y_0 () Real)\n(set-logic QF_LRA)\n"
    # One box: several asserts, boxes inside the clauses that do not narrow it.
    spec = parse(
        two + "(assert (and (<= 0 X_0 1) (<= 0 X_1 1))) (assert (or (<= Y_0 0) (and (<= X_0 2) (>= Y_0 3)))) (check-sat) (get-model)"
    )
    assert [len(case.clauses) for case in spec.cases] == [2]
    # A clause that narrows the box is a case of its own; one that empties it is dropped.
    spec = parse(
        two
        + "(assert (<= 0 X_0 1)) (assert (<= 0 X_1 1)) (assert (or (<= Y_0 0) (and (<= X_0 0.5) (>= Y_0 3)) (and (>= X_0 2) (>= Y_0 5))))"
    )
    assert [(case.hi.tolist(), len(case.clauses)) for case in spec.cases] == [([1, 1], 1), ([0.5, 1], 1)]
    # Whole boxes in the clauses, merged where equal, in whatever order they are written.
    a, b = "(<= 0 X_0 1) (<= 0 X_1 1)", "(>= X_1 0) (<= X_1 1) (>= X_0 0) (<= X_0 1)"
    spec = parse(two + f"(assert (or (and {a} (<= Y_0 0)) (and (<= 2 X_0 3) (= X_1 7) (<= Y_0 1)) (and {b} (>= Y_0 9))))")
    assert [(case.lo.tolist(), len(case.clauses)) for case in spec.cases] == [([0, 0], 2), ([2, 7], 1)]
    # Rows that mix inputs and outputs; an alternative without outputs has no rows.
    spec = parse(two + f"(assert (and {a})) (assert (or (<= (+ X_0 X_1) Y_0) (<= X_0 0.5)))")
    assert [clause.Cx.tolist() for clause in spec.cases[0].clauses] == [[[1, 1]]] and spec.cases[0].clauses[0].Cy.tolist() == [[-1]]
    assert spec.cases[1].clauses[0].d.shape == (0,) and spec.cases[1].clauses[0].Cy.shape == (0, 1)
    assert spec.margin([0.25, 0], [0]) == -np.inf and spec.margin([0.75, 0], [0]) == 0.25
    # All alternatives are contradictory: nothing is unsafe.
    spec = parse(two + f"(assert (and {a})) (assert (or (and (<= X_0 -1) (<= Y_0 0)) (< 2 1)))")
    assert spec.cases == () and spec.margin([0, 0], [0]) == np.inf and not spec.violated([0, 0], [0])


def test_margin_outside_the_box_and_strange_values(parse):
    spec = parse(HEAD + BOX + "(assert (<= Y_0 0))")
    assert spec.margin([1.0], [-5]) == -5  # on the border the box does not count
    assert spec.margin([1.5], [-5]) == 0.5 and spec.violated([1.5], [-5], tolerance=0.5) and not spec.violated([1.5], [-5])
    x, y = np.array([[0.0], [np.nan], [0.0], [np.inf], [0.0]]), np.array([[np.nan], [-1], [np.inf], [-1], [-1]])
    assert spec.violated(x, y).tolist() == [False, False, False, False, True]
    assert spec.margin(np.zeros((0, 1)), np.zeros((0, 1))).shape == (0,)
    assert spec.margin(np.zeros((2, 1, 1, 1), np.float32), np.ones((2, 1))).tolist() == [1, 1]
    assert spec.margin(np.zeros(1), np.ones(1)) == 1.0
    for wrong in (([0, 0], [0]), ([0], [0, 0]), (np.zeros((3, 1)), np.zeros((2, 1))), ([0], 0.0)):
        with pytest.raises(ValueError, match="rows"):
            spec.margin(*wrong)


def test_any_depth_and_the_limits(parse):
    deep = 20_000
    assert len(parse(HEAD + BOX + f"(assert {'(and ' * deep}(<= Y_0 0){')' * deep})").cases[0].clauses) == 1
    assert len(parse(HEAD + BOX + f"(assert {'(or (<= Y_0 1) (and ' * 300}(<= Y_0 0){'))' * 300})").cases[0].clauses) == 301
    assert parse(HEAD + BOX + f"(assert (<= {'(- ' * deep}Y_0{')' * deep} 0))").cases[0].clauses[0].Cy.tolist() == [[1]]
    either = "(assert (or (<= Y_0 1) (>= Y_0 2)))"
    assert len(parse(HEAD + BOX + either * 12).cases[0].clauses) == 4096
    with pytest.raises(VNNLIBError, match=r":1:1: written out, .* over 100,000 clauses .*; split it"):
        parse(HEAD + BOX + either * 17)
    with pytest.raises(VNNLIBError, match=r":4:13: written out, .* over 100,000 clauses"):
        parse(HEAD + BOX + f"(assert (or (and {' '.join(['(or (<= Y_0 1) (>= Y_0 2))'] * 17)}) (<= Y_0 3)))")
    halves = "(assert (or (<= X_0 0) (>= X_0 0.5)))"  # contradictions are dropped on the way, so this is no blow-up
    assert len(parse(HEAD + BOX + halves * 40 + "(assert (<= Y_0 0))").cases) == 2
    many = "".join(f"(declare-const X_{i} Real)(assert (<= 0 X_{i} 1))" for i in range(2000))
    cases = " ".join(f"(and (<= X_{i} 0.5) (>= X_{i + 1} 0.{k}))" for i in range(1999) for k in range(9))
    with pytest.raises(VNNLIBError, match=r"numbers in 17,991 boxes; allowed are 50,000,000"):
        parse(f"{many}(declare-const Y_0 Real)(assert (<= Y_0 0))(assert (or {cases}))")
    with pytest.raises(VNNLIBError, match="over 65536 bits"):
        parse(HEAD + BOX + f"(assert (<= (* Y_0 {'1e-299 ' * 70}) 0))")


FAULTS = {  # name: (text, line, column, part of the message)
    "empty": ("", 1, 1, "the file is empty"),
    "only comments": ("; nothing\n", 1, 1, "no input is declared"),
    "no output": ("(declare-const X_0 Real)(assert (<= X_0 1))", 1, 1, "no output is declared; needed is Y_0"),
    "no output constraint": (HEAD + BOX, 2, 16, "no assert has an output"),
    "unknown symbol": (HEAD + "(assert (<= X_0\n   foo))", 4, 4, "unknown symbol 'foo'"),
    "negated name": (HEAD + "(assert (<= -X_0 1))", 3, 13, "write (- X_0)"),
    "infinity": (HEAD + "(assert (<= X_0 inf))", 3, 17, "give a finite number"),
    "undeclared": (HEAD + "(assert (<= X_1 1))", 3, 13, "X_1 is not declared; allowed are variables declared above, of inputs and outputs"),
    "declared later": ("(declare-const X_0 Real)\n(assert (<= Y_0 1))(declare-const Y_0 Real)", 2, 13, "Y_0 is not declared"),
    "duplicate": (HEAD + " (declare-fun X_0 () Real)", 3, 15, "X_0 is declared again (first in line 1)"),
    "gap": (HEAD + "(declare-const X_2 Real)\n(assert (<= Y_0 1))", 3, 16, "X_2 is declared, but X_1 is not"),
    "gap of outputs": (HEAD + "(declare-const Y_3 Real)\n(assert (<= Y_0 1))", 3, 16, "Y_3 is declared, but Y_1 is not"),
    "other name": ("(declare-const x_0 Real)", 1, 16, "'x_0' is no variable"),
    "leading zero": ("(declare-const X_01 Real)", 1, 16, "'X_01' is no variable"),
    "other type": ("(declare-const X_0 Int)", 1, 20, "type 'Int'; allowed is Real"),
    "short declaration": ("(declare-const X_0)", 1, 1, "allowed is (declare-const X_0 Real)"),
    "declaration with arguments": ("(declare-fun X_0 (Real) Real)", 1, 1, "allowed is (declare-fun X_0 () Real)"),
    "never closed": (HEAD + "(assert (<= X_0 1)\n(assert (>= X_0 0))", 3, 1, "this '(' is never closed (1 open at the end)"),
    "closed twice": (HEAD + "(assert (<= X_0 1)))", 3, 20, "')' closes nothing"),
    "missing parenthesis made up for": (HEAD + "(assert (and (<= X_0 1)\n(assert (<= X_0 2))))", 4, 2, "a ')' is missing"),
    "outside": (HEAD + "assert", 3, 1, "'assert' stands outside parentheses"),
    "open string": ('(set-info :source "abc)', 1, 19, "opens a text that never ends"),
    "unknown command": (HEAD + "(asert (<= X_0 1))", 3, 2, "unknown command 'asert'; allowed are declare-const"),
    "forgotten assert": (HEAD + "(<= X_0 1)", 3, 2, "write (assert (<= ...))"),
    "version 2": ("(vnnlib-version <2.0>)", 1, 2, "looks like VNNLIB 2.0"),
    "no command": ("()", 1, 1, "a command is missing"),
    "unknown operator": (HEAD + "(assert (=> (<= X_0 1) (<= Y_0 1)))", 3, 10, "unknown operator '=>'; allowed are and or <="),
    "no operator": (HEAD + "(assert ((<= X_0 1)))", 3, 9, "an operator is missing"),
    "arity of a comparison": (HEAD + "(assert (<= X_0))", 3, 9, "(<= ...) has 1 argument; allowed: at least 2"),
    "arity of or": (HEAD + "(assert (or))", 3, 9, "(or ...) has 0 arguments"),
    "arity of a division": (HEAD + "(assert (<= (/ 1 2 3) Y_0))", 3, 13, "allowed: exactly 2"),
    "arity of assert": (HEAD + "(assert (<= X_0 1) (<= Y_0 1))", 3, 1, "(assert ...) has 2 arguments"),
    "product": (HEAD + "(assert (<= (* X_0 Y_0) 1))", 3, 13, "a product of variables"),
    "divisor": (HEAD + "(assert (<= (/ 1 X_0) 1))", 3, 13, "a variable in a divisor"),
    "division by zero": (HEAD + "(assert (<= (/ X_0 0.0) 1))", 3, 13, "a division by 0"),
    "number": (HEAD + "(assert (<= X_0 1.2.3))", 3, 17, "'1.2.3' is no number"),
    "number with a comma": (HEAD + "(assert (<= X_0 -1,5))", 3, 17, "'-1,5' is no number"),
    "number beyond float64": (HEAD + "(assert (<= X_0 1e999))", 3, 17, "beyond float64"),
    "quotient beyond float64": (HEAD + "(assert (<= (* 1e-200 X_0) 1e200))", 3, 9, "beyond float64"),
    "term for a formula": (HEAD + "(assert (and (<= Y_0 1) X_0))", 3, 25, "a number or term stands where a formula must"),
    "assert of a term": (HEAD + "(assert (+ Y_0 1))", 3, 9, "a number or term stands where a formula must"),
    "formula for a term": (HEAD + "(assert (<= (<= Y_0 1) 1))", 3, 13, "a formula stands in (<= ...)"),
    "lo above hi": (
        HEAD + BOX + "(assert (<= Y_0 0))\n(assert (<= X_0 -2))",
        5,
        9,
        "bound -1.0 above its upper bound -2.0 (the other one is in line 3)",
    ),
    "lo above hi in and": (
        HEAD + "(assert (and (<= Y_0 0) (>= X_0 2)\n (<= X_0 1)))",
        4,
        2,
        "bound 2.0 above its upper bound 1.0 (the other one is in line 3)",
    ),
    "never true": (HEAD + BOX + "(assert (<= 2 1))", 4, 9, "can never hold"),
    "no upper bound": (HEAD + "(assert (>= X_0 1))(assert (<= Y_0 0))", 1, 16, "X_0 has no upper bound;"),
    "no bounds": ("(declare-const Y_0 Real)\n(declare-const X_0 Real)(assert (<= Y_0 0))", 2, 16, "X_0 has no lower and no upper bound"),
    "no bound in a clause": (
        HEAD + "(assert (>= X_0 0))(assert (or (<= Y_0 0) (and (<= Y_0 1) (<= X_0 3))))",
        1,
        16,
        "no upper bound in one alternative of an 'or'",
    ),
    "windows lines": (HEAD.replace("\n", "\r\n") + "(assert\r\n (<= X_0 foo))", 4, 10, "unknown symbol 'foo'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_say_where_and_what(name, tmp_path):
    text, line, column, part = FAULTS[name]
    file = tmp_path / "p.vnnlib"
    file.write_bytes(text.encode())
    with pytest.raises(VNNLIBError) as caught:
        load_vnnlib(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}:{column}: ") and part in message
    assert message.count("; ") >= 2, "what; what is allowed; remedy"


def test_counts_that_differ_from_the_network(parse):
    text = HEAD + "(declare-const X_1 Real)(assert (<= Y_0 0 X_0 0 X_1 0))"
    assert parse(text.replace("(<= Y_0 0 X_0 0 X_1 0)", "(and (= X_0 X_1 0) (= X_0 0) (<= Y_0 1))"), n_inputs=2, n_outputs=1).n_inputs == 2
    with pytest.raises(VNNLIBError, match=r":3:16: the network has 1 input, the property declares 2: .*; take the property"):
        parse(text, n_inputs=1)
    with pytest.raises(VNNLIBError, match=r":2:16: the network has 5 outputs, the property declares 1"):
        parse(text, n_outputs=5)


def test_files_that_are_no_text(tmp_path):
    good = (HEAD + BOX + "(assert (<= Y_0 0))").encode()
    file = tmp_path / "p.vnnlib.gz"
    for content in (good, gzip.compress(good)[:-9], gzip.compress(good)[:40] + b"rubbish" * 9):
        file.write_bytes(content)
        with pytest.raises(VNNLIBError, match=r"p.vnnlib.gz:1:1: gzipped, but damaged"):
            load_vnnlib(file)
    plain = tmp_path / "p.vnnlib"
    for content, where, part in (
        (good[:30] + b"\xff\xfe", "2:6", "byte 0xff"),
        ("(declare".encode("utf-16-le"), "1:2", "byte 0x00"),
        (bytes(range(256)), "2:118", "byte 0x80"),
    ):
        plain.write_bytes(content)
        with pytest.raises(VNNLIBError, match=rf":{where}: not text \({part}\)"):
            load_vnnlib(plain)
    plain.write_bytes(b"\xef\xbb\xbf" + good.replace(b"\n", b"\r\n"))
    assert load_vnnlib(plain).n_inputs == 1
    plain.write_bytes(gzip.compress(good))  # told by the content, not by the name
    assert load_vnnlib(plain).n_inputs == 1
    with pytest.raises(VNNLIBError, match=r":1:1: cannot be read"):
        load_vnnlib(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_vnnlib(tmp_path / "none.vnnlib")


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet='()andorXY_01 .-+*/<>=;"|\n\tdeclare-const assert Real\x00é', max_size=80), after_a_good_start=st.booleans())
def test_rubbish_raises_nothing_else(text, after_a_good_start, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "rubbish.vnnlib"
    file.write_text(HEAD + BOX + text if after_a_good_start else text)
    for read in (load_vnnlib, read_result, load_instances):
        try:
            read(file)
        except VNNLIBError as error:
            assert str(error).startswith(f"{file}:")


@settings(max_examples=100, deadline=None)
@given(
    x=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    y=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=3),
)
def test_results_come_back(x, y, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "result.txt"
    write_result(file, "sat", (np.array(x).reshape(1, -1), np.array(y, np.float32)))
    verdict, (x_back, y_back) = read_result(file)
    assert verdict == "sat" and x_back.tolist() == x and y_back.tolist() == y
    assert x_back.dtype == y_back.dtype == np.float64


def test_results(tmp_path):
    file = tmp_path / "result.txt"
    for verdict in ("unsat", "timeout", "unknown", "error"):
        write_result(file, verdict)
        assert file.read_text() == f"{verdict}\n" and read_result(file) == (verdict, None)
    write_result(file, "sat", ([0.1, 2], [-3]))
    assert file.read_text() == "sat\n((X_0 0.1)\n (X_1 2.0)\n (Y_0 -3.0))\n" and list(tmp_path.iterdir()) == [file]
    packed = tmp_path / "result.txt.gz"
    packed.write_bytes(gzip.compress(b"sat\r\n((Y_0 (- 3))\r\n(X_1  1e-5) (X_0 (/ 1 4)))"))
    assert [v.tolist() for v in read_result(packed)[1]] == [[0.25, 1e-5], [-3]]
    file.write_text("sat")
    assert read_result(file) == ("sat", None)
    for arguments, part in (
        (("holds",), "allowed: sat, unsat, timeout, unknown, error"),
        (("sat",), "counterexample is missing"),
        (("unsat", ([0], [0])), "counterexample is given"),
        (("sat", ([np.nan], [0])), "the X of the counterexample has 1 number, NaN or infinity"),
        (("sat", ([0], [])), "the Y of the counterexample is empty"),
    ):
        with pytest.raises(ValueError, match=part):
            write_result(file, *arguments)
    assert file.read_text() == "sat"  # a refused write leaves what was there
    for text, place, part in (
        ("violated\n", "1:1", "the first line is 'violated'; allowed: sat"),
        ("unsat\n((X_0 1))", "2:1", "a counterexample for 'unsat'"),
        ("sat\n((X_0 1))\n((Y_0 1))", "3:1", "a second list"),
        ("sat\n((X_0 1) (X_2 1))", "2:11", "X_2 is declared, but X_1 is not"),
        ("sat\n((X_0 1) (X_0 1))", "2:11", "X_0 is declared again"),
        ("sat\n((Y_0 1))", "2:1", "without inputs"),
        ("sat\n(X_0 1)", "2:2", "'X_0' is no pair"),
        ("sat\n((X_0 1 2))", "2:2", "this form is no pair"),
        ("sat\n((X_0 nan))", "2:7", "give a finite number"),
        ("sat\n((X_0 (<= 1 2)))", "2:7", "is a formula"),
        ("sat\n((X_0 1)", "2:1", "never closed"),
    ):
        file.write_text(text)
        with pytest.raises(VNNLIBError) as caught:
            read_result(file)
        assert str(caught.value).startswith(f"{file}:{place}: ") and part in str(caught.value)


def test_instances(tmp_path):
    (tmp_path / "onnx").mkdir()
    for name in ("onnx/a.onnx", "onnx/b.onnx.gz", "p.vnnlib", "p.vnnlib.gz"):
        (tmp_path / name).write_bytes(b"")
    file = tmp_path / "instances.csv"
    lines = ["onnx/a.onnx,p.vnnlib,116", "./onnx/b.onnx, p.vnnlib , 1.5", "", f"{tmp_path}/onnx/a.onnx,p.vnnlib.gz,1e3"]
    expected = [
        Instance(tmp_path / "onnx/a.onnx", tmp_path / "p.vnnlib", 116.0, 2),
        Instance(tmp_path / "onnx/b.onnx.gz", tmp_path / "p.vnnlib", 1.5, 3),
        Instance(tmp_path / "onnx/a.onnx", tmp_path / "p.vnnlib.gz", 1000.0, 5),
    ]
    file.write_bytes("\r\n".join(["ONNX, vnnlib, timeout", *lines]).encode())
    assert load_instances(file) == expected
    file.write_text("\n".join(lines) + "\n")
    assert [instance.line for instance in load_instances(file)] == [1, 2, 4]
    for text, place, part in (
        ("onnx/a.onnx,p.vnnlib\n", "1:1", "a line of 2 fields; allowed: 3"),
        ("\nonnx/c.onnx,p.vnnlib,1", "2:1", "there is no onnx file"),
        ("onnx/a.onnx,q.vnnlib,1", "1:13", "there is no vnnlib file"),
        ("onnx/a.onnx,,1", "1:13", "the vnnlib field is empty"),
        ("onnx/a.onnx,p.vnnlib,soon", "1:22", "the timeout is 'soon'; allowed are seconds above 0"),
        ("onnx/a.onnx,p.vnnlib,-1", "1:22", "the timeout is '-1'"),
        ("onnx/a.onnx,p.vnnlib,1\nonnx,vnnlib,timeout", "2:1", "there is no onnx file"),
        ("onnx,vnnlib,timeout\n", "1:1", "no instances"),
    ):
        file.write_text(text)
        with pytest.raises(VNNLIBError) as caught:
            load_instances(file)
        assert str(caught.value).startswith(f"{file}:{place}: ") and part in str(caught.value)
    with pytest.raises(FileNotFoundError):
        load_instances(tmp_path / "none.csv")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_outputs_that_are_no_numbers_are_no_counterexample(value: float) -> None:
    prop = Property(1, 1, (Case(np.zeros(1), np.ones(1), (Clause(None, np.array([[-1.0]]), np.array([-0.5])),)),))
    assert not prop.violated([1.0], [value])
    assert prop.violated([[1.0], [1.0]], [[value], [2.0]]).tolist() == [False, True]
