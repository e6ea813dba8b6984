"""What rows and labels must be to be trained on, looked at on the host: all of the arrays in memory, every batch of a stream."""

import dataclasses
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rows:
    """Checks rows and labels. classes: of the net, None where not known; threats: whose boxes the rows must lie in."""

    classes: int | None
    threats: tuple[Any, ...]

    def check(self, x: Any, y: Any, what: str) -> None:
        """ValueError or TypeError for rows or labels that training would misread; x None: labels only.

        What other hosts hold is theirs to check.
        """
        if any(isinstance(a, jax.Array) and not a.is_fully_addressable for a in (x, y)):
            return
        self._labels(np.asarray(y), what)
        if x is None:
            return
        x = np.asarray(x)
        if not np.issubdtype(x.dtype, np.floating) and x.dtype.name != "bfloat16":
            return  # bytes, which are finite and in range; other kinds have been refused
        if not np.isfinite(x).all():
            raise ValueError(f"{what} has x with values that are not finite; rows must be numbers, drop or repair them.")
        for threat in self.threats:
            threat.check(x)

    def _labels(self, y: np.ndarray, what: str) -> None:
        k = self.classes
        if y.ndim == 1:
            if not np.issubdtype(y.dtype, np.integer):
                raise TypeError(f"{what} has y [N] of dtype {y.dtype}; classes are whole numbers: convert them, or give [N, K] shares.")
            low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
            if low < 0 or (k is not None and high >= k):
                allowed = "0 and up" if k is None else f"0 to {k - 1}"
                raise ValueError(f"{what} has labels from {low} to {high}; the net has {k or 'so many'} classes, so {allowed} are allowed.")
            return
        if y.ndim != 2 or (k is not None and y.shape[1] != k):
            hint = "; squeeze it to [N]" if y.ndim == 2 and y.shape[1] == 1 else ""
            raise ValueError(f"{what} has y of shape {y.shape}; needed: classes [N], or shares [N, {k or 'K'}]{hint}.")
        shares = y.astype(np.float64)
        if not (np.isfinite(shares).all() and (shares >= 0).all() and (np.abs(shares.sum(axis=1) - 1) < 1e-3).all()):
            raise ValueError(f"{what} has y of shape {y.shape} whose rows are no shares; each must be at least 0 and sum to 1.")
