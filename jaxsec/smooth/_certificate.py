"""`SmoothedCertificate`: for every row what the samples prove about the smoothed classifier."""

import enum

import jax
import numpy as np

from ..core._struct import Struct, static, struct


class SmoothedVerdict(enum.IntEnum):
    """Why a row ended as it did."""

    CERTIFIED = 0
    OPEN = 1
    WRONG = 2
    REFUTED = 3

    @property
    def message(self) -> str:
        """One sentence for people."""
        return _MESSAGES[self]


_MESSAGES = {
    SmoothedVerdict.CERTIFIED: "the smoothed classifier gives the label everywhere in the ball, with the stated confidence",
    SmoothedVerdict.OPEN: "the samples do not decide whether this radius can be certified",
    SmoothedVerdict.WRONG: "the class that the samples chose is not the label",
    SmoothedVerdict.REFUTED: "the label's probability is too low to certify this radius; the classifier may be robust all the same",
}


@struct
class SmoothedCertificate(Struct):
    """One row per input.

    Guarantee: for each row, with probability at least `confidence` over its samples: where `predict` is a class, the smoothed classifier
      gives that class at every input within `radius` of x. `robust`: that class is y, and the radius is at least eps. The classifier is
      the model as it was executed: in `dtype`, in the order of summation of the device that ran it.

    Attributes:
      robust: [B] bool. radius: [B] float64 in the threat's norm (`Patch`: side of a square, in pixels), 0 where it abstains.
      predict: [B] int, -1 where it abstains.
      p_lower: [B] float64, what the class's probability is at least. counts: [B, K] int32, votes of the counted samples.
      samples: [B] int64, samples drawn, those that chose the class included. status: [B] `SmoothedVerdict`.
      confidence: of each row; 1 where all samples there are were counted (`SplittingNoise`, `PatchAblation`): nothing is estimated then,
        p_lower is the share of votes, and the counts name a class for every row. method, distribution, norm, dtype: what was run.
    """

    robust: np.ndarray | jax.Array
    radius: np.ndarray | jax.Array
    predict: np.ndarray | jax.Array
    p_lower: np.ndarray | jax.Array
    counts: np.ndarray | jax.Array
    samples: np.ndarray | jax.Array
    status: np.ndarray | jax.Array
    confidence: float = static(default=0.999)
    method: str = static(default="smoothing")
    distribution: str = static(default="gaussian")
    norm: str = static(default="l2")
    dtype: str = static(default="float32")

    def __repr__(self) -> str:
        if not len(self.robust):
            return Struct.__repr__(self)
        status = np.asarray(self.status)
        seen = ", ".join(f"{int(np.sum(status == v))} {v.name.lower()}" for v in SmoothedVerdict if v)
        share = f"certified accuracy {np.mean(self.robust):.2%} at confidence {self.confidence:g}"
        return f"SmoothedCertificate({len(self.robust)} rows: {share}, {seen}; {np.mean(self.samples):.0f} samples a row)"
