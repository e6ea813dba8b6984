"""From bounds and rows to arrays: clauses over the same box share a case."""

from collections.abc import Sequence

import numpy as np

from ._vnnlib_formula import FREE, Choices, Conjunction, Row, tighten
from ._vnnlib_property import Case, Clause
from ._vnnlib_scope import Scope

MOST_NUMBERS = 50_000_000  # 400 MB of float64

Key = tuple[tuple[int, tuple[float, float]], ...]


def cases(base: Conjunction, alternatives: Choices, n_inputs: int, n_outputs: int, scope: Scope) -> tuple[Case, ...]:
    """The cases of "`base`, and one of `alternatives`"; alternatives whose box is empty are left out."""
    groups: dict[Key, list[tuple[Row, ...]]] = {}
    for alternative in alternatives:
        narrower = {i: base.bounds.get(i, FREE) for i in alternative.bounds}
        if tighten(narrower, alternative.bounds) is None:
            key = tuple(sorted(item for item in narrower.items() if item[1] != base.bounds.get(item[0], FREE)))
            groups.setdefault(key, []).append(alternative.rows)
    _check_size(groups, base.rows, n_inputs, n_outputs, scope)
    lo, hi = np.full(n_inputs, FREE[0]), np.full(n_inputs, FREE[1])
    _narrow(lo, hi, base.bounds.items())
    made = []
    for key, clauses in groups.items():
        case = Case(lo.copy(), hi.copy(), tuple(_clause(base.rows + rows, n_inputs, n_outputs) for rows in clauses))
        _narrow(case.lo, case.hi, key)
        _check_bounded(case, bool(key) or len(groups) > 1, scope)
        made.append(case)
        for array in (case.lo, case.hi):
            array.setflags(write=False)
    return tuple(made)


def _narrow(lo: np.ndarray, hi: np.ndarray, bounds) -> None:
    for i, (low, high) in bounds:
        lo[i], hi[i] = low, high


def _clause(rows: Sequence[Row], n_inputs: int, n_outputs: int) -> Clause:
    Cx = np.zeros((len(rows), n_inputs)) if _has_inputs(rows) else None
    Cy = np.zeros((len(rows), n_outputs))
    d = np.array([row.bound for row in rows], np.float64)
    for k, row in enumerate(rows):
        for variable, coefficient in row.terms:
            if variable < 0:
                Cy[k, ~variable] = coefficient
            elif Cx is not None:
                Cx[k, variable] = coefficient
    for array in (Cx, Cy, d):
        if array is not None:
            array.setflags(write=False)
    return Clause(Cx, Cy, d)


def _has_inputs(rows: Sequence[Row]) -> bool:
    return any(variable >= 0 for row in rows for variable, _ in row.terms)


def _check_bounded(case: Case, one_of_several: bool, scope: Scope) -> None:
    free = np.flatnonzero(~(np.isfinite(case.lo) & np.isfinite(case.hi)))
    if not free.size:
        return
    i = int(free[0])
    sides = [side for side, end in (("lower", case.lo[i]), ("upper", case.hi[i])) if not np.isfinite(end)]
    where = " in one alternative of an 'or'" if one_of_several else ""
    raise scope.source.error(
        scope.declared_at[i],
        f"X_{i} has no {' and no '.join(sides)} bound{where}; needed is a constant bound on both sides of every input"
        f" ({free.size} of {case.lo.size} lack one); add (assert ({'>=' if sides[0] == 'lower' else '<='} X_{i} number))",
    )


def _check_size(groups: dict[Key, list[tuple[Row, ...]]], shared: tuple[Row, ...], n_inputs: int, n_outputs: int, scope: Scope) -> None:
    """Raises before memory runs out: rows over inputs are dense."""
    numbers = 2 * n_inputs * len(groups)
    shared_inputs = _has_inputs(shared)
    for clauses in groups.values():
        for rows in clauses:
            width = n_outputs + 1 + (n_inputs if shared_inputs or _has_inputs(rows) else 0)
            numbers += (len(shared) + len(rows)) * width
    if numbers > MOST_NUMBERS:
        raise scope.source.error(
            0,
            f"written out, the property has {numbers:,} numbers in {len(groups):,} boxes; allowed are {MOST_NUMBERS:,}; split it into "
            "several files, one for each part of the outer 'or'",
        )
