"""Boxes whose edges are known between bounds: the least intersection over union with a given box; float64 on the host."""

import itertools

import numpy as np

_ROUNDED = 1e-12  # off the result, so that it is not rounded up


def least_iou(reference: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The least intersection over union that any box with edges between `lower` and `upper` has with `reference`.

    Guarantee: exact, less 1e-12 of it. The box and the reference are (x1, y1, x2, y2); one without area has an IoU of 0.
    Args: reference: [..., 4], finite: the smoothed boxes that were reported, or the true ones. lower, upper: [..., 4] as
      `certify_regression` gives them for a model that makes [B, M, 4] boxes; they may be infinite.
    Returns: [...] float64 in [0, 1]; 0 where a bound is infinite or NaN.
    Raises: ValueError: shapes that do not fit, a lower bound above its upper one, a reference that is not finite.
    Cost: 16 corners of the bounds.
    Edge cases: with `per="output"` each edge's bounds hold with confidence 1 - alpha, a box's four with 1 - 4 alpha; `per="row"` makes
      one statement of all boxes.
    Source: Chiang et al. 2020, section 5. With three edges fixed the IoU first rises and then falls in the fourth: while it cuts into
      the reference, growing adds as much to the intersection as to the box, beyond it to the box alone. So its least value over an
      interval is at an end, and over all four at a corner.

    Example:
      >>> box = np.array([0.0, 0.0, 2.0, 1.0])
      >>> round(float(least_iou(box, box - 0.0, box + np.array([0.0, 0.0, 2.0, 0.0]))), 6)
      0.5
    """
    reference, lower, upper = (np.asarray(v, np.float64) for v in (reference, lower, upper))
    if not (reference.shape[-1:] == lower.shape[-1:] == upper.shape[-1:] == (4,)) or lower.shape != upper.shape:
        raise ValueError(f"reference, lower and upper have shapes {reference.shape}, {lower.shape} and {upper.shape}; [..., 4] is needed.")
    if not np.isfinite(reference).all():
        raise ValueError("reference has values that are not finite; leave out boxes that were not found.")
    if np.any(lower > upper):
        raise ValueError("lower is above upper in some edges; give certify_regression's lower and upper.")
    known = np.all(np.isfinite(lower) & np.isfinite(upper), -1)
    lower, upper = np.where(known[..., None], lower, 0), np.where(known[..., None], upper, 0)
    least = np.ones(np.broadcast_shapes(reference.shape, lower.shape)[:-1])
    for corner in itertools.product((False, True), repeat=4):
        least = np.minimum(least, iou(reference, np.where(np.array(corner), upper, lower)))
    return np.where(known, least * (1 - _ROUNDED), 0.0)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (x1, y1, x2, y2) [..., 4] -> [...]; 0 where one has no area.

    Example:
      >>> float(iou(np.array([0.0, 0.0, 2.0, 1.0]), np.array([1.0, 0.0, 3.0, 1.0]))) == 1 / 3
      True
    """
    both = _area(np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], -1))
    either = _area(a) + _area(b) - both
    return np.divide(both, either, out=np.zeros(np.shape(both)), where=either > 0)


def _area(box: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(box[..., 2:] - box[..., :2], 0), -1)
