"""Open subproblems of branch and bound on the host: rows of a few large arrays, of which a round takes some and puts back others."""

from typing import Any

import jax
import numpy as np


class Pool:
    """Rows of a tree of arrays, each with a bound. A round costs what it takes and puts, however many rows wait."""

    def __init__(self) -> None:
        self._rows: Any = None  # tree of [capacity, ...]
        self._free: list[int] = []
        self.at = np.zeros(0, int)  # where the waiting rows are
        self.bound = np.zeros(0, np.float32)  # of each of them

    def __len__(self) -> int:
        return len(self.at)

    def put(self, rows: Any, bound: np.ndarray) -> None:
        """Adds rows, a tree of [n, ...] arrays with bounds [n]."""
        n = len(bound)
        if not n:
            return
        if len(self._free) < n:
            self._grow(rows, n)
        where = np.array(self._free[-n:])
        del self._free[-n:]
        jax.tree.map(lambda kept, new: kept.__setitem__(where, new), self._rows, rows)
        self.at, self.bound = np.concatenate([self.at, where]), np.concatenate([self.bound, bound])

    def take(self, n: int, newest: bool = False) -> Any:
        """Removes the n rows of the lowest bounds, or those put last; a tree of copies."""
        chosen = np.arange(len(self.at))[::-1][:n] if newest else np.argsort(self.bound, kind="stable")[:n]
        where = self.at[chosen]
        rest = np.ones(len(self.at), bool)
        rest[chosen] = False
        self.at, self.bound = self.at[rest], self.bound[rest]
        self._free.extend(where.tolist())
        return jax.tree.map(lambda v: v[where], self._rows)

    @property
    def size(self) -> int:
        """Bytes of the waiting rows."""
        return len(self) * sum(v[:1].nbytes for v in jax.tree.leaves(self._rows))

    @property
    def rows(self) -> Any:
        """All rows in place, of which those `at` wait."""
        return self._rows

    def keep(self, which: np.ndarray) -> None:
        """Drops the waiting rows that are not in the mask."""
        self._free.extend(self.at[~which].tolist())
        self.at, self.bound = self.at[which], self.bound[which]

    def _grow(self, rows: Any, n: int) -> None:
        old = 0 if self._rows is None else len(jax.tree.leaves(self._rows)[0])
        new = max(2 * old, old + n, 64)
        kept = self._rows

        def grown(like: Any, before: Any = None) -> np.ndarray:
            like = np.asarray(like)
            room = np.empty((new, *like.shape[1:]), like.dtype)
            if before is not None:
                room[:old] = before
            return room

        self._rows = jax.tree.map(grown, rows) if kept is None else jax.tree.map(grown, rows, kept)
        self._free.extend(range(new - 1, old - 1, -1))
