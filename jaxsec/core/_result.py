"""What the verbs return: `Status` per row, `Flag` per finding about the evaluation itself, `AttackResult`."""

import dataclasses
import enum

import jax
import numpy as np
from jax.core import Tracer

from ._struct import Struct, static, struct


class Status(enum.IntEnum):
    """Why a row ended as it did; the text says cause and remedy."""

    ROBUST = 0
    ADVERSARIAL = 1
    WRONG_BEFORE = 2
    INFEASIBLE = 3
    UNVERIFIED = 4
    NONFINITE = 5

    @property
    def message(self) -> str:
        """One sentence for people."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.ROBUST: "no adversarial input was found; this is no proof that there is none",
    Status.ADVERSARIAL: "an adversarial input was found, is inside the threat set and was verified on a second evaluation",
    Status.WRONG_BEFORE: "the clean input was already wrong (or, for a targeted goal, already the target); it is returned unchanged",
    Status.INFEASIBLE: "the method returned an input outside the threat set: a defect of the method, never counted as success",
    Status.UNVERIFIED: "the method reported a success that a second evaluation did not confirm: the model is unstable or randomised",
    Status.NONFINITE: "the clean logits are NaN or infinite: the row was not attacked; check normalisation and weights",
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A finding about the evaluation, not about the model's robustness: read it before the number.

    `severity` is "info", "warning" or "error" (an error means that the robust accuracy must not be quoted);
    `value` and `n` are the measured quantity and the rows it was measured on.
    """

    name: str
    severity: str
    message: str
    value: float = float("nan")
    n: int = 0


@struct
class AttackResult(Struct):
    """One row per input.

    Guarantee: where `success`, `x` is inside the threat set and the model gets it wrong, both checked by the front door
    on the returned array. `1 - success.mean()` is robust accuracy: rows wrong before count as successes at distance 0.

    Attributes:
      x: [B, ...] the adversarial input, or the strongest attempt where none was found.
      success: [B] bool.
      loss: [B] the largest objective value seen in the last stage that worked on the row (units of that stage's loss).
      distance: [B] distance to the clean input in the threat's norm.
      queries: [B] int32 forward evaluations spent on the row; `gradients` counts the backward ones.
      first_step: [B] int32 steps of the successful stage until the first success; -1 where there was none, 0 for wrong before.
      stage: [B] int32 index into `stages` of the stage that broke the row; -1 where none did.
      status: [B] int32 `Status`.
      zero_gradients, bad_gradients: [B] int32 gradient evaluations that were all zero / not finite.
      rising: [B] bool, the objective still rose by more than 5 % in the last tenth of the last gradient stage.
      stages: names of the stages, in order.
      flags: findings about the evaluation (empty under a trace).
    """

    x: jax.Array
    success: jax.Array
    loss: jax.Array
    distance: jax.Array
    queries: jax.Array
    gradients: jax.Array
    first_step: jax.Array
    stage: jax.Array
    status: jax.Array
    zero_gradients: jax.Array
    bad_gradients: jax.Array
    rising: jax.Array
    stages: tuple[str, ...] = static(default=())
    flags: tuple[Flag, ...] = static(default=())

    def __repr__(self) -> str:
        if isinstance(self.success, Tracer) or not len(self.success):
            return Struct.__repr__(self)
        success, stage = np.asarray(self.success), np.asarray(self.stage)
        by = [f"{name} {int(np.sum(stage == s))}" for s, name in enumerate(self.stages)]
        before = int(np.sum(np.asarray(self.status) == Status.WRONG_BEFORE))
        rows = f"{len(success)} rows: {before} wrong before, broken by {', '.join(by)}; robust accuracy at most {1 - success.mean():.2%}"
        flags = ", ".join(f"{f.name} ({f.severity})" for f in self.flags)
        return f"AttackResult({rows}; flags: {flags or 'none'})"
