"""`Property`: a specification in the form that a verifier consumes, and the replay of counterexamples against it."""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Clause:
    """A conjunction of linear constraints: unsafe iff `Cx @ x + Cy @ y <= d` in every row.

    `Cx` is [m, n_inputs], or None where no row has an input (nearly always: an image has thousands); `Cy` is [m, n_outputs], `d` is [m],
    all float64. With m = 0 every output is unsafe.
    """

    Cx: np.ndarray | None
    Cy: np.ndarray
    d: np.ndarray

    def excess(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[B] largest `Cx @ x + Cy @ y - d` of a row, -inf without rows, for `x` [B, n_inputs] and `y` [B, n_outputs]."""
        left = y @ self.Cy.T if self.Cx is None else y @ self.Cy.T + x @ self.Cx.T
        return np.max(left - self.d, axis=1, initial=-np.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One box of inputs `lo <= x <= hi`, each [n_inputs] float64 and finite, with the clauses of which one suffices to be unsafe."""

    lo: np.ndarray
    hi: np.ndarray
    clauses: tuple[Clause, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Property:
    """The unsafe set of a network: pairs (x, y) of a flat input and its output that satisfy one clause of a case whose box holds x.

    A network violates the property iff some input x gives an output y with (x, y) in this set. Boxes of different cases differ, but may
    overlap. `load_vnnlib` makes it; its arrays are read-only.

    Example:
      >>> import numpy as np
      >>> from jaxsec.io import Case, Clause, Property
      >>> first_above_second = Clause(None, np.array([[-1.0, 1.0]]), np.array([0.0]))
      >>> spec = Property(1, 2, (Case(np.array([0.0]), np.array([1.0]), (first_above_second,)),))
      >>> spec.violated([0.5], [2.0, 1.0]), spec.margin([0.5], [1.0, 4.0])
      (True, 3.0)
    """

    n_inputs: int
    n_outputs: int
    cases: tuple[Case, ...]

    def violated(self, x: Any, y: Any, *, tolerance: float = 0.0) -> Any:
        """Whether (x, y) is unsafe: `margin(x, y) <= tolerance`.

        Guarantee: with `tolerance` 0, comparisons of one value with another or with a constant are exact.

        Args:
          x: an input, or [B, ...] inputs, of any shape with n_inputs elements; read in C order, as the competition does.
          y: the network's output [n_outputs], or [B, n_outputs]; its number of axes tells whether there is a batch.
          tolerance: how much each bound of the box and each row may be missed by, absolute; the competition allows 1e-4.

        Returns:
          bool, or [B] bool. NaN and infinite outputs are no counterexample.

        Raises:
          ValueError: shapes that do not fit.
        """
        finite, unsafe = np.isfinite(np.asarray(y, np.float64)), self.margin(x, y) <= tolerance
        return unsafe and bool(finite.all()) if finite.ndim == 1 else unsafe & finite.reshape(len(finite), -1).all(1)

    def margin(self, x: Any, y: Any) -> Any:
        """How far (x, y) is from being unsafe, in the units that the constraints were written in.

        Guarantee: at or below 0 exactly where (x, y) is unsafe.

        Args:
          x, y: as for `violated`.

        Returns:
          float, or [B] float64: the minimum over cases and clauses of the largest excess of a row. Where x is outside a box, the distance
          to it (largest over the inputs) counts as a row; inside, the box does not count, so that a negative margin is the depth in the
          output constraints.

        Raises:
          ValueError: shapes that do not fit.

        Edge cases: inf if there are no cases; -inf inside a clause without rows; NaN where a value is NaN, or where an infinite one meets a
        coefficient of 0.

        Source: the robustness of signal temporal logic (Fainekos and Pappas 2009), with the box left out as long as it holds.
        """
        outputs = np.asarray(y, np.float64)
        single = outputs.ndim == 1
        ys = _rows(outputs[None] if single else outputs, "y", self.n_outputs)
        inputs = np.asarray(x, np.float64)
        xs = _rows(inputs[None] if single else inputs, "x", self.n_inputs)
        if len(xs) != len(ys):
            raise ValueError(f"x has {len(xs)} rows and y has {len(ys)}; one output for each input is needed.")
        best = np.full(len(ys), np.inf)
        with np.errstate(invalid="ignore", over="ignore"):
            for case in self.cases:
                outside = np.max(np.maximum(case.lo - xs, xs - case.hi), axis=1)
                rows = np.full(len(ys), np.inf)
                for clause in case.clauses:
                    rows = np.minimum(rows, clause.excess(xs, ys))
                best = np.minimum(best, np.where(outside <= 0, rows, np.maximum(outside, rows)))
        return float(best[0]) if single else best


def _rows(values: np.ndarray, name: str, width: int) -> np.ndarray:
    """[B, width]; the rest of the shape is flattened in C order."""
    if values.ndim < 1 or math.prod(values.shape[1:]) != width:
        raise ValueError(f"{name} has rows of shape {values.shape[1:]}; the property has {width} elements there. Is it this network's?")
    return values.reshape(len(values), width)
