"""The cases of a property in float32: boxes that contain the given ones, clauses as rows that are never above the given ones."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..io import Property


@dataclasses.dataclass(frozen=True)
class Case:
    """One input box. Unsafe iff for some clause all rows of `spec[c] y + at[c] <= 0`; clauses are padded by repeating a row."""

    lo: np.ndarray  # [n] float32, rounded outward
    hi: np.ndarray
    free: np.ndarray  # which inputs vary: all others are one number, even where float32 has none so exact
    spec: np.ndarray  # [C, m, K] float32; K counts the inputs too where rows mix both
    at: np.ndarray  # [C, m] float32


def mixed(prop: Property) -> bool:
    """Whether a row of the property has inputs and outputs."""
    return any(c.Cx is not None and bool(np.any(c.Cx)) for case in prop.cases for c in case.clauses)


def cases_of(prop: Property, most: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[Case]:
    """The cases in float32. `most` gives the largest absolute outputs over a box, asked only where float32 cannot hold a coefficient."""
    found = []
    wide = prop.n_outputs + mixed(prop) * prop.n_inputs
    for case in prop.cases:
        m = max((len(c.d) for c in case.clauses), default=0)
        spec = np.zeros((len(case.clauses), max(m, 1), wide))
        at = np.full((len(case.clauses), max(m, 1)), -1.0)  # a clause without rows: its whole box is unsafe, -1 <= 0 says so
        for i, clause in enumerate(case.clauses):
            order = [j if j < len(clause.d) else 0 for j in range(m)]
            if len(clause.d):
                spec[i, :, : prop.n_outputs], at[i] = clause.Cy[order], -clause.d[order]
                if clause.Cx is not None and wide > prop.n_outputs:
                    spec[i, :, prop.n_outputs :] = clause.Cx[order]
        if not np.all(case.lo <= case.hi):
            i = int(np.flatnonzero(~(case.lo <= case.hi))[0])
            raise ValueError(
                f"input {i} of a box goes from {case.lo[i]} to {case.hi[i]}; its lower end must be a number and not above the upper."
            )
        lo, hi = _down(case.lo), -_down(-case.hi)
        # what rounding the coefficients can change is taken off the row's constant: what is proved holds for the rows as they are written
        rows = spec.astype(np.float32)
        rows = np.where(np.abs(rows) < np.finfo(np.float32).tiny, np.float32(0), rows)  # hardware may take subnormal numbers for 0
        lost = np.abs(spec - rows)
        if lost.any():
            at = np.maximum(at - np.where(lost > 0, lost * most(lo, hi), 0).sum(-1), -np.finfo(np.float32).max)
        found.append(Case(lo, hi, np.flatnonzero(case.lo < case.hi), rows, _down(at)))
    return found


def _down(x: np.ndarray) -> np.ndarray:
    """The largest float32 numbers that are not above x."""
    with np.errstate(over="ignore"):  # beyond float32 there is no end
        near = x.astype(np.float32)
    return np.where(near > x, np.nextafter(near, np.float32(-np.inf)), near)


@dataclasses.dataclass(frozen=True)
class BesideInputs:
    """A network whose outputs are followed by its inputs."""

    inner: Callable[..., jax.Array]

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        return jnp.concatenate([self.inner(params, x).reshape(len(x), -1), x.reshape(len(x), -1)], axis=1)
