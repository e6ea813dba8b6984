"""`SegmentationSmoothing`: the settings of certified segmentation."""

from typing import Any, ClassVar

from ..core._struct import Struct, static, struct
from ..threat import named
from ._holm import CORRECTIONS
from ._method import Smoothing
from ._randomizer import Randomizer


@struct
class SegmentationSmoothing(Struct):
    """How pixels are certified: n0 samples choose each pixel's class, n others test whether its probability is above tau.

    Guarantee: as `SegmentationCertificate`; each image's error is at most alpha, over all its pixels, whatever their dependence.
    Args:
      sigma: the noise's scale in units of x, scalar or [B]. n0, n: samples. alpha: probability of any wrong pixel in an image.
      tau: in [0.5, 1): a larger one certifies a larger radius, and fewer pixels. correction: "holm" or "bonferroni".
      class_axis: of the model's output: -1 for [B, H, W, K], 1 for [B, K, H, W].
      distribution: as in `Smoothing`. norm: "l2", "l1" or "linf", of the radius. dtype: "float32" or "bfloat16" for the forward pass.
    Cost: n0 + n forward passes an image.
    Source: Fischer, Baader and Vechev 2021, "Scalable certified segmentation via randomized smoothing", SegCertify.
    """

    name: ClassVar[str] = "segmentation-smoothing"
    sigma: Any = None
    n0: int = static(default=10)
    n: int = static(default=100)
    tau: float = static(default=0.75)
    alpha: float = static(default=1e-3)
    correction: str = static(default="holm")
    class_axis: int = static(default=-1)
    distribution: str | Randomizer = static(default="gaussian")
    norm: str = static(default="l2")
    dtype: str = static(default="float32")

    def check(self) -> None:
        """Raises ValueError for settings that make no sense."""
        settings = ("sigma", "n0", "n", "alpha", "distribution", "dtype")
        Smoothing(**{name: getattr(self, name) for name in settings}).check()
        if not 0.5 <= self.tau < 1:
            raise ValueError(f"tau is {self.tau!r}; it must be at least 0.5 and below 1: what the class's probability must exceed.")
        if self.correction not in CORRECTIONS:
            raise ValueError(f"correction is {self.correction!r}; allowed are {' and '.join(CORRECTIONS)}.")
        named(self.norm, eps=0.0)
