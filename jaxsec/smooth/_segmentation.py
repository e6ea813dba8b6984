"""Certified segmentation: every pixel of an image by one set of samples, with one familywise error."""

import dataclasses
import math
import os
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import __version__
from ..attack._checkpoint import held
from ..attack._progress import Report, progress
from ..core._check import check_finite
from ..core._meshes import on_any_mesh
from ..core._model import Model
from ..threat import named
from ._holm import binomial_p_values, rejected
from ._inputs import Inputs, check_call, inputs_of, output_shape, row_words, rows_of
from ._kept import Kept
from ._lockstep import Lockstep
from ._pixels import PixelHits, PixelVotes, top_of
from ._randomizer import randomizer_of
from ._sampling import as_run
from ._segmentation_certificate import SegmentationCertificate, scores
from ._segmentation_method import SegmentationSmoothing

_ROUNDED = 1e-13  # off tau, so that no radius is rounded up


@dataclasses.dataclass
class _Tally:
    """Of each image: the chosen classes and how many of the n samples agree, [N, P...] int32; `finished` images are not sampled again."""

    top: np.ndarray
    hits: np.ndarray
    finished: np.ndarray


@on_any_mesh
def certify_segmentation(
    model: Model, x: Any, y: Any = None, *, method: SegmentationSmoothing, key: Any, ignore: int | None = None,
    max_samples: int | None = None, progress: bool | Report | None = None, state: str | os.PathLike[str] | None = None,
) -> SegmentationCertificate:  # fmt: skip
    """Certifies every pixel of every image: which keep their class within a radius, all at once.

    Guarantee: as `SegmentationCertificate`. Each image's result depends on the image, its number, the key and the method alone, where the
      model's rows do not depend on the batch.
    Args:
      model: gives logits [B, ..., K], or with the classes on `method.class_axis`. x: [B, ...] float32, or uint8 that is read as 1/255 of
        it. y: [B, ...] integer labels of the pixels, for accuracy and IoU, which no certificate depends on; or None.
      key: PRNG key; image r samples from `fold_in(key, r)`. ignore: the label of pixels that y says nothing about, e.g. 255.
      max_samples: noised copies in one forward pass; by default what fits a CPU's caches.
      progress: as in `certify`. state: a folder; finished images are kept there, and the same call goes on after a kill.
    Returns: SegmentationCertificate.
    Raises: ValueError, TypeError: unusable inputs, or a call under `jit`.
    Cost: n0 + n forward passes an image; integers of [P, K] on the device for n0 of them, of [P] for n.
    Edge cases: pixels with logits that are not finite vote for no class. With so few samples that nothing could be certified, a ValueError:
      with m pixels the least p-value, tau^n, must be at most alpha / m. All pixels are tested, ignored ones too.
    Source: Fischer et al. 2021: `radius = sigma Phi^-1(tau)`, theorem 5.1; Holm 1979.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> def bright(params, x):  # [B, H, W] -> [B, H, W, 2]
      ...     return jnp.stack([params - x, x - params], -1)
      >>> x = jnp.array([[[0.0, 1.0], [0.5, 1.0]]])
      >>> method = SegmentationSmoothing(sigma=0.25, n=100)
      >>> found = certify_segmentation(jaxsec.bind(bright, jnp.float32(0.5)), x, method=method, key=jax.random.key(0))
      >>> found.predict.tolist(), found.radius.round(3).tolist()
      ([[[0, 1], [-1, 1]]], [0.169])
    """
    check_call("certify_segmentation", max_samples, model, x, y)
    if not isinstance(method, SegmentationSmoothing):
        raise TypeError(f"method is {type(method).__name__}; needed: SegmentationSmoothing(sigma=...).")
    method.check()
    inputs = inputs_of(x, row_words(key, np.arange(rows_of(x))), randomizer_of(method.distribution), method.sigma)
    reach = inputs.randomizer.reach(named(method.norm, eps=0.0), inputs.sigma.astype(np.float64), np.shape(x)[1:])
    radius = reach.radius(np.full(len(inputs.x), method.tau * (1 - _ROUNDED)), np.arange(len(inputs.x)))
    check_finite(inputs.values)
    shape, classes = _pixels_of(model, inputs, method.class_axis)
    labels = None if y is None else _labels(y, (len(inputs.x), *shape), classes, ignore)
    _check_samples(method, int(np.prod(shape)))
    tally = _sampled(model, inputs, method, shape, classes, max_samples, progress, state)
    p_values = binomial_p_values(tally.hits, method.n, method.tau)
    flat = (len(inputs.x), int(np.prod(shape)))
    certified = rejected(p_values.reshape(flat), method.alpha, method.correction).reshape(p_values.shape)
    predict = np.where(certified, tally.top, -1)
    accuracy, iou = (None, None) if labels is None else scores(predict.reshape(flat), labels.reshape(flat), ignore, classes)
    return SegmentationCertificate(
        predict=predict, radius=radius, p_values=p_values, hits=tally.hits, abstain=(predict < 0).reshape(flat).mean(1),
        accuracy=accuracy, iou=iou, samples=method.n0 + method.n, confidence=1 - method.alpha, tau=method.tau,
        correction=method.correction, distribution=inputs.randomizer.name, norm=reach.norm, dtype=method.dtype,
    )  # fmt: skip


def _sampled(
    model: Model, inputs: Inputs, method: SegmentationSmoothing, shape: tuple[int, ...], classes: int, max_samples: int | None,
    progress_to: bool | Report | None, state: str | os.PathLike[str] | None,
) -> _Tally:  # fmt: skip
    run = Lockstep(as_run(model, method.dtype), inputs, inputs.batch(model, max_samples), jnp.dtype(method.dtype))
    settings = repr((__version__, method.name, method.n0, method.n, method.class_axis, inputs.randomizer, method.dtype))
    rows = len(inputs.x)
    with held(state), progress(progress_to, "open") as report:
        kept = Kept(state, "" if state is None else inputs.identity(model, settings, run.dtype), _Tally, "segment")
        blank = np.zeros((rows, *shape), np.int32)
        tally: _Tally = kept.load() or _Tally(blank, blank.copy(), np.zeros(rows, bool))

        def work(index: np.ndarray) -> Any:
            slots = len(index)
            counts, hits = inputs.placed(jnp.zeros((slots, *shape, classes), jnp.int32), jnp.zeros((slots, *shape), jnp.int32))
            top = top_of(run.folded(PixelVotes(method.class_axis), counts, index, 0, method.n0))
            return run.folded(PixelHits(method.class_axis), (top, hits), index, method.n0, method.n)

        def land(index: np.ndarray, found: Any) -> None:
            tally.top[index], tally.hits[index] = (np.asarray(v)[: len(index)] for v in found)

        def tell() -> None:
            report(method.name, float(tally.finished.mean()), int((~tally.finished).sum()))
            kept.tick(tally)

        run.run(tally.finished, work, land, tell)
        kept.save(tally)
    return tally


def _check_samples(method: SegmentationSmoothing, pixels: int) -> None:
    """ValueError where not even votes of one accord on every pixel would certify one."""
    least = binomial_p_values(np.full((1, pixels), method.n), method.n, method.tau)
    if pixels and not rejected(least, method.alpha, method.correction).any():
        needed = math.floor(math.log(method.alpha / pixels) / math.log(method.tau)) + 1
        raise ValueError(
            f"n is {method.n}, too few samples to certify any of {pixels} pixels with tau {method.tau:g} and alpha {method.alpha:g}: "
            f"tau^n must be at most alpha / {pixels}. Give n of at least {needed}."
        )


def _pixels_of(model: Model, inputs: Inputs, class_axis: int) -> tuple[tuple[int, ...], int]:
    """(shape of the pixels, K) of the model's output."""
    needed = "logits of every pixel, e.g. [B, H, W, K], are needed. For one class a row use jaxsec.certify."
    shape = (2, *output_shape(model, inputs, 3, needed))
    axis = class_axis % len(shape) if -len(shape) <= class_axis < len(shape) else 0
    if axis == 0 or shape[axis] < 2:
        raise ValueError(
            f"class_axis is {class_axis}, and the model gives {('B', *shape[1:])}; name the axis with the K >= 2 classes, which is not the "
            "batch: -1 for [B, H, W, K], 1 for [B, K, H, W]."
        )
    return (*shape[1:axis], *shape[axis + 1 :]), shape[axis]


def _labels(y: Any, shape: tuple[int, ...], classes: int, ignore: int | None) -> np.ndarray:
    y = np.asarray(y)
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"y has dtype {y.dtype}; integer class labels are needed.")
    if y.shape != shape:
        raise ValueError(
            f"y has shape {y.shape}; one label for each pixel is needed: {shape}. Where the model's classes are not its last axis, say "
            "SegmentationSmoothing(class_axis=...), e.g. 1 for NCHW."
        )
    known = y if ignore is None else y[y != ignore]
    if known.size and (known.min() < 0 or known.max() >= classes):
        hint = "" if ignore is not None else " Pixels without a label need ignore=, e.g. ignore=255."
        raise ValueError(f"y has labels from {known.min()} to {known.max()}; the model has {classes} classes, 0 to {classes - 1}.{hint}")
    return y.astype(np.int64)
