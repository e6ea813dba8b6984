"""`SegmentationCertificate`: what samples prove about every pixel of an image at once."""

import jax
import numpy as np

from ..core._struct import Struct, static, struct


@struct
class SegmentationCertificate(Struct):
    """One row per image.

    Guarantee: for each image, with probability at least `confidence` over its samples, all its pixels at once: where `predict` is a class,
      the smoothed segmentation gives the pixel that class at every image within `radius` of x.

    Attributes:
      predict: [B, ...] int32, -1 where a pixel abstains. radius: [B] float64 in `norm`, one for all of an image's certified pixels.
      p_values: [B, ...] float64, of "the chosen class has a probability of at most tau". hits: [B, ...] int32 of n samples.
      abstain: [B] float64, share of pixels. accuracy: [B] float64, share of the labelled pixels whose certified class is the label, NaN
        where none is labelled; iou: [B] float64, mean over the classes that occur among labels or certified classes; both None without y.
      samples: drawn of each image. confidence: of each image. tau, correction, distribution, norm, dtype: what was run.
    """

    predict: np.ndarray | jax.Array
    radius: np.ndarray | jax.Array
    p_values: np.ndarray | jax.Array
    hits: np.ndarray | jax.Array
    abstain: np.ndarray | jax.Array
    accuracy: np.ndarray | jax.Array | None
    iou: np.ndarray | jax.Array | None
    samples: int = static(default=0)
    confidence: float = static(default=0.999)
    tau: float = static(default=0.75)
    correction: str = static(default="holm")
    distribution: str = static(default="gaussian")
    norm: str = static(default="l2")
    dtype: str = static(default="float32")

    def __repr__(self) -> str:
        if not len(self.radius):
            return Struct.__repr__(self)
        scores = "" if self.accuracy is None or self.iou is None else f"certified accuracy {_mean(self.accuracy)}, mIoU {_mean(self.iou)}, "
        share = f"{scores}{_mean(self.abstain)} of pixels abstain"
        return (
            f"SegmentationCertificate({len(self.radius)} images: {share}; {self.norm} radius {np.mean(self.radius):.3g} at confidence "
            f"{self.confidence:g}; {self.samples} samples an image)"
        )


def _mean(values: np.ndarray | jax.Array) -> str:
    known = np.asarray(values)[~np.isnan(np.asarray(values))]
    return f"{known.mean():.2%}" if known.size else "unknown"


def scores(predict: np.ndarray, y: np.ndarray, ignore: int | None, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(accuracy, mean IoU) [B] float64 of certified classes [B, P] against labels, without the pixels labelled `ignore`."""
    accuracy, iou = np.full(len(y), np.nan), np.full(len(y), np.nan)
    for row, (found, label) in enumerate(zip(predict, y, strict=True)):
        labelled = np.ones(label.shape, bool) if ignore is None else label != ignore
        if not labelled.any():
            continue
        found, label = found[labelled], label[labelled]
        right = np.bincount(label[found == label], minlength=classes)
        either = np.bincount(label, minlength=classes) + np.bincount(found[found >= 0], minlength=classes) - right
        accuracy[row] = right.sum() / label.size
        iou[row] = np.mean(right[either > 0] / either[either > 0])
    return accuracy, iou
