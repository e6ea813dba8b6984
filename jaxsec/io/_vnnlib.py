"""`load_vnnlib`: a VNNLIB 1.0 file of the VNN-COMP competition as a `Property`."""

import os

from ._vnnlib_cases import cases
from ._vnnlib_commands import run
from ._vnnlib_formula import Conjunction, product
from ._vnnlib_property import Property
from ._vnnlib_scope import INPUTS, OUTPUTS
from ._vnnlib_source import read_source


def load_vnnlib(path: str | os.PathLike[str], *, n_inputs: int | None = None, n_outputs: int | None = None) -> Property:
    """Reads a VNNLIB 1.0 property, plain or gzipped.

    Guarantee: the asserts describe the unsafe set, and so does the result: (x, y) satisfies all asserts, with `<` and `>` read as `<=` and
    `>=`, iff it lies in a case's box and fulfils one of its clauses, up to one rounding of each number. Arithmetic in the file is exact;
    each number of the result is the float64 nearest to its exact value, so `0.1` means the float64 that every checker of the competition
    reads too. Nothing is rounded outward: a tool that needs the decimals themselves must widen by one unit in the last place.

    Strict comparisons are closed because a verifier's "unsat" then holds for the strict set too, which is smaller; a "sat" on the very
    border does not count for the strict one, so look at the margin when you replay it.

    Args:
      path: the file. Understood are `declare-const` and `declare-fun` of X_i (inputs) and Y_j (outputs) as Real; `assert`;
        `and`, `or` of any depth and number of arguments; `<= >= < > =`, also chained; `+ - * /` as long as terms stay linear; comments.
        `set-logic`, `check-sat`, `get-model` and the like are skipped.
      n_inputs, n_outputs: the network's number of inputs and outputs (elements of one row), checked if given.

    Returns:
      Property: constant bounds on single inputs have become boxes, in every clause; clauses with the same box share a case. Alternatives
      with an empty box or a false comparison of constants are left out.

    Raises:
      FileNotFoundError: no such file.
      VNNLIBError: anything that cannot be read or does not fit, as `file:line:column: what; what is allowed; remedy`.

    Cost: one pass; about 0.06 s for a CIFAR file (3,072 inputs, 9 clauses). Memory grows with the disjunctive normal form: at most 100,000
    clauses, 10 million constraints and 50 million numbers; beyond that an error.

    Edge cases: `cases` is empty if every alternative is contradictory: then no network violates the property. Bounds that contradict each
    other outside any `or` are an error. An alternative without outputs makes its whole box unsafe.

    Source: VNN-LIB 1.0 (Demarchi, Guidotti, Pulina, Tacchella 2023) and the rules of VNN-COMP 2021 to 2024; wider than both in chained
    comparisons, division, and rows that mix inputs and outputs.

    Example:
      >>> import pathlib, tempfile, jaxsec.io
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "prop.vnnlib"
      >>> _ = file.write_text('''
      ... (declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
      ... (assert (<= 0 X_0 1)) (assert (or (<= Y_0 Y_1) (>= (* 2 Y_0) 3)))
      ... ''')
      >>> spec = jaxsec.io.load_vnnlib(file)
      >>> spec.n_inputs, spec.n_outputs, len(spec.cases), len(spec.cases[0].clauses)
      (1, 2, 1, 2)
      >>> spec.cases[0].clauses[1].Cy.tolist(), spec.cases[0].clauses[1].d.tolist()
      ([[-2.0, 0.0]], [-3.0])
      >>> spec.violated([0.5], [1.0, 0.9]), spec.margin([0.5], [1.0, 0.75])
      (False, 0.25)
    """
    source = read_source(path, "a VNNLIB property")
    scope, asserts = run(source)
    inputs = scope.require(INPUTS, "input", n_inputs)
    outputs = scope.require(OUTPUTS, "output", n_outputs)
    if not scope.outputs_asserted:
        raise source.error(
            scope.declared_at[~0], "no assert has an output; needed is one constraint on some Y_j; is the end of the file missing?"
        )
    base = Conjunction(asserts.bounds, tuple(asserts.rows))
    return Property(inputs, outputs, cases(base, product(asserts.choices, 0, source), inputs, outputs, scope))
