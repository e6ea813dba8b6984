"""The eager run of a certificate: each method on the rows that are still open, in batches; kept after each batch."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..attack._progress import Report
from ..bound._beta_crown import BetaCROWN
from ..bound._method import BoundMethod
from ..core._batch import bucket, pad_rows, take_leaves
from ..core._model import Model
from ..threat import Threat
from ._branched import branched
from ._certificate import Verdict
from ._kept import Findings, Kept
from ._rows import clean_status, least_margins

# How much dearer a method is taken to be than the one before it on the ladder: for the progress bar only.
_DEARER = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
    """A question about rows x [N, ...], y [N] on the host, and how it is worked on."""

    model: Model
    x: np.ndarray
    y: np.ndarray
    threat: Threat
    methods: tuple[BoundMethod, ...]
    sound: bool
    budget: int
    max_rows: int
    min_rows: int

    def run(self, kept: Kept, report: Report) -> Findings:
        """All methods, from where `kept` says that a former run was."""
        found = kept.load() or self._begun()
        total = sum(_DEARER**i for i in range(len(self.methods)))
        for i in range(found.stage, len(self.methods)):
            if found.stage < i:
                found.stage, found.past, found.rows = i, 0, np.flatnonzero(found.status == Verdict.OPEN)
            before, share = sum(_DEARER**j for j in range(i)) / total, _DEARER**i / total
            if i == 0 and not len(found.rows):
                self._must_be_bounded()
            while found.past < len(found.rows):
                method = self.methods[i]
                rows = found.rows[found.past : found.past + (1 if isinstance(method, BetaCROWN) else self.max_rows)]
                if isinstance(method, BetaCROWN):
                    self._branched(found, int(rows[0]), method, i)
                else:
                    self._bounded(found, rows, i)
                found.past += len(rows)
                kept.save(found)
                report(self.methods[i].name, before + share * found.past / len(found.rows), int(np.sum(found.status == Verdict.OPEN)))
        found.stage, found.past = len(self.methods), 0
        kept.save(found)
        return found

    def _begun(self) -> Findings:
        n = len(self.y)
        status = np.full(n, Verdict.OPEN, np.int32)
        for start in range(0, n, self.max_rows):
            rows = np.arange(start, min(start + self.max_rows, n))
            index = self._padded(rows)
            status[rows] = np.asarray(clean_status(self.model, self.x[index], self.y[index]))[: len(rows)]
        open_rows = np.flatnonzero(status == Verdict.OPEN)
        return Findings(np.full(n, -np.inf, self.x.dtype), np.full(n, -1, np.int32), status, open_rows)

    def _bounded(self, found: Findings, rows: np.ndarray, i: int) -> None:
        index = self._padded(rows)
        part = jax.tree.map(jnp.asarray, take_leaves(self.threat, index, len(self.y)))
        how = {"sound": self.sound, "budget": self.budget}
        low, slack = least_margins(self.model, self.x[index], self.y[index], part, self.methods[i], **how)
        low, slack = np.asarray(low)[: len(rows)], np.asarray(slack)[: len(rows)]
        found.margin[rows] = np.fmax(found.margin[rows], low)
        proved = low > slack
        found.method[rows[proved]], found.status[rows[proved]] = i, Verdict.CERTIFIED

    def _branched(self, found: Findings, row: int, method: BetaCROWN, i: int) -> None:
        threat = take_leaves(self.threat, np.array([row]), len(self.y))
        answer = branched(self.model, self.x[row], int(self.y[row]), threat, method, sound=self.sound, budget=self.budget)
        if answer.verdict == "unsat":
            found.method[row], found.status[row] = i, Verdict.CERTIFIED
            found.margin[row] = np.fmax(found.margin[row], answer.margin)
        elif answer.verdict == "sat":
            found.status[row] = Verdict.BROKEN

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        return pad_rows(rows, bucket(len(rows), self.max_rows, self.min_rows))

    def _must_be_bounded(self) -> None:
        """Raises where the model cannot be bounded: whether it can must not depend on whether a row happens to be right."""
        n = len(self.y)

        def one(leaf: Any) -> Any:
            batch = leaf.ndim and leaf.shape[0] == n
            return jax.ShapeDtypeStruct((1, *leaf.shape[1:]) if batch else leaf.shape, leaf.dtype)

        x, y, threat = one(self.x), one(self.y), jax.tree.map(one, self.threat)
        how = functools.partial(least_margins, sound=self.sound, budget=self.budget)
        jax.eval_shape(how, self.model, x, y, threat, self.methods[0])
