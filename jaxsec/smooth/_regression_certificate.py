"""`RegressionCertificate`: between which values a smoothed regressor's outputs stay."""

import jax
import numpy as np

from ..core._struct import Struct, static, struct


@struct
class RegressionCertificate(Struct):
    """One row per input.

    Guarantee: for each output (`per` "output") or for all outputs of a row at once (`per` "row"), with probability at least `confidence`
      over the row's samples: at every input x' of the threat set, every q-quantile of the model's noised output is in [lower, upper]. The
      model is the one that was executed, in `dtype`.

    Attributes:
      predict: [B, ...] the samples' percentile at x, an estimate. lower, upper: [B, ...], -inf and inf where n samples bound nothing.
      nans: [B, ...] int64, samples that were NaN: counted as -inf below and inf above, so that the bounds hold whatever they stand for.
      eps: [B] float64, the radius in `norm`. samples: drawn of each row. q, per, norm, dtype: what was run.
    """

    predict: np.ndarray | jax.Array
    lower: np.ndarray | jax.Array
    upper: np.ndarray | jax.Array
    nans: np.ndarray | jax.Array
    eps: np.ndarray | jax.Array
    samples: int = static(default=0)
    confidence: float = static(default=0.999)
    q: float = static(default=0.5)
    per: str = static(default="output")
    norm: str = static(default="l2")
    dtype: str = static(default="float32")

    def __repr__(self) -> str:
        if not np.size(self.lower):
            return Struct.__repr__(self)
        width = np.asarray(self.upper, np.float64) - np.asarray(self.lower, np.float64)
        bounded = np.isfinite(width)
        median = f"median width {np.median(width[bounded]):.3g}" if bounded.any() else "none finite"
        return (
            f"RegressionCertificate({len(self.eps)} rows: {np.mean(bounded):.2%} of outputs bounded, {median}; percentile {self.q:g} at "
            f"confidence {self.confidence:g} per {self.per}; {self.samples} samples a row)"
        )
