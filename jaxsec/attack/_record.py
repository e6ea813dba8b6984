"""The growing result of a run, on the host: one row per input, merged from the rounds of each stage."""

import dataclasses

import numpy as np

from ..core._result import AttackResult, Flag, Status
from ._method import Method, Track


@dataclasses.dataclass
class Record:
    """NumPy arrays [N]; the fields of `AttackResult`."""

    x: np.ndarray
    success: np.ndarray
    loss: np.ndarray
    queries: np.ndarray
    gradients: np.ndarray
    first_step: np.ndarray
    stage: np.ndarray
    status: np.ndarray
    zero_gradients: np.ndarray
    bad_gradients: np.ndarray
    rising: np.ndarray

    @classmethod
    def start(cls, x: np.ndarray, wrong: np.ndarray, finite: np.ndarray, queries: int) -> "Record":
        """After the clean pass: rows wrong before are solved at distance 0, rows with non-finite logits are set aside."""
        n = len(x)
        zero = np.zeros(n, np.int32)
        status = np.where(wrong, Status.WRONG_BEFORE, np.where(finite, Status.ROBUST, Status.NONFINITE)).astype(np.int32)
        return cls(
            x=x.copy(),
            success=wrong.copy(),
            loss=np.full(n, -np.inf, np.float32),
            queries=zero + queries,
            gradients=zero.copy(),
            first_step=np.where(wrong, 0, -1).astype(np.int32),
            stage=zero - 1,
            status=status,
            zero_gradients=zero.copy(),
            bad_gradients=zero.copy(),
            rising=np.zeros(n, bool),
        )

    def live(self) -> np.ndarray:
        """Indices still to attack."""
        return np.flatnonzero(~self.success & (self.status != Status.NONFINITE))

    def merge(self, rows: np.ndarray, track: Track, stage: int, inside: np.ndarray, wrong: np.ndarray, method: Method, check: int) -> None:
        """Enters a finished round of `rows`; `inside` and `wrong` are the front door's own checks of `track.x`, at `check` queries each."""
        claimed = np.asarray(track.success)
        good = (claimed | np.asarray(track.candidate)) & inside & wrong
        self.queries[rows] += np.asarray(track.queries) + check
        self.gradients[rows] += np.asarray(track.gradients)
        self.zero_gradients[rows] += np.asarray(track.zero_gradients)
        self.bad_gradients[rows] += np.asarray(track.bad_gradients)
        loss, late = np.asarray(track.loss), np.asarray(track.late)
        self.loss[rows] = loss
        if method.ascends:
            with np.errstate(invalid="ignore"):
                self.rising[rows] = ~good & np.isfinite(late) & (loss - late > 0.05 * np.abs(loss) + 1e-6)
        self.success[rows] |= good
        self.first_step[rows] = np.where(good, np.where(claimed, np.asarray(track.first_step), method.total_steps), self.first_step[rows])
        self.stage[rows] = np.where(good, stage, self.stage[rows])
        failed = np.where(claimed & ~inside, Status.INFEASIBLE, np.where(claimed & ~wrong, Status.UNVERIFIED, self.status[rows]))
        self.status[rows] = np.where(good, Status.ADVERSARIAL, failed)
        keep = good | inside  # an infeasible attempt is not shown as one
        self.x[rows] = np.where(keep.reshape(-1, *[1] * (self.x.ndim - 1)), np.asarray(track.x), self.x[rows])

    def result(self, distance: np.ndarray, stages: tuple[str, ...], flags: tuple[Flag, ...]) -> AttackResult:
        """The public result; arrays stay NumPy, which JAX takes as they are."""
        import jax.numpy as jnp

        fields = {f.name: jnp.asarray(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return AttackResult(**fields, distance=jnp.asarray(distance), stages=stages, flags=flags)
