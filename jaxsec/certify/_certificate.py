"""`Certificate`: for every row whether no input of its threat set changes the class, by which method, and in which arithmetic."""

import enum

import jax
import numpy as np
from jax.core import Tracer

from ..core._struct import Struct, static, struct


class Verdict(enum.IntEnum):
    """Why a row ended as it did."""

    CERTIFIED = 0
    OPEN = 1
    WRONG_BEFORE = 2
    NONFINITE = 3
    BROKEN = 4

    @property
    def message(self) -> str:
        """One sentence for people."""
        return _MESSAGES[self]


_MESSAGES = {
    Verdict.CERTIFIED: "a bound proves that no input of the threat set changes the class",
    Verdict.OPEN: "no method of the list proved it; this does not mean that an adversarial input exists",
    Verdict.WRONG_BEFORE: "the clean input is not classified as its label, so there is nothing to certify",
    Verdict.BROKEN: "branch and bound found an adversarial input of the set, replayed on the model and in float64",
    Verdict.NONFINITE: "the clean logits or the bounds are NaN or infinite",
}


@struct
class Certificate(Struct):
    """One row per input.

    Guarantee: where `robust`, every input of the row's threat set is classified as y: `margin`, a lower bound of
      `logit[y] - logit[j]` over the set and all j, is above 0 (at least 0 where branch and bound proved its sign and no more). With
      precision "sound" that holds for the network as float32 hardware evaluates it; with "highest" up to float32 rounding, for which
      margins must exceed a tolerance of 4e-6 of the logits' size (branch and bound: of the numbers a bound was summed from).

    Attributes:
      robust: [B] bool. margin: [B] the best lower bound of the least margin; -inf where nothing was bounded.
      method: [B] int32 index into `methods` of the first that proved the row; -1 where none did.
      status: [B] int32 `Verdict`.
      methods: names, in the order they were run. precision: "highest" or "sound".
    """

    robust: jax.Array
    margin: jax.Array
    method: jax.Array
    status: jax.Array
    methods: tuple[str, ...] = static(default=())
    precision: str = static(default="highest")

    def __repr__(self) -> str:
        if isinstance(self.robust, Tracer) or not len(self.robust):
            return Struct.__repr__(self)
        robust, method, status = (np.asarray(v) for v in (self.robust, self.method, self.status))
        by = ", ".join(f"{name} {int(np.sum(method == i))}" for i, name in enumerate(self.methods))
        wrong = int(np.sum(status == Verdict.WRONG_BEFORE))
        broken = int(np.sum(status == Verdict.BROKEN))
        rest = int(np.sum(~robust)) - wrong - broken
        seen = f"{broken} broken, " if broken else ""
        share = f"certified accuracy {robust.mean():.2%} (by {by})"
        return f"Certificate({len(robust)} rows: {share}, {wrong} wrong before, {seen}{rest} open; {self.precision})"
