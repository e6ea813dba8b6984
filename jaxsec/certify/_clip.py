"""What linear bounds prove of a box is cut off it: only the part where a counterexample may still be is split again."""

import numpy as np

_PASSES = 3
# What the sums below may lose in float64, with much to spare.
_LOST = 1e-12


def clipped(lo: np.ndarray, hi: np.ndarray, least: np.ndarray, slope: np.ndarray, open: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest boxes, up to rounding and `_PASSES`, around the points of boxes lo, hi [n, inputs] that may be unsafe.

    least: [n, clauses, rows] values below the linear bound of every row everywhere on its box, attained up to rounding at the best corner;
    slope: [n, clauses, rows, inputs] of these bounds. A point is unsafe for a clause only where all of its rows are at most 0. So every
    row says of every input how far from the best corner it may be, given where the others may be (feasibility-based bound tightening,
    Belotti et al. 2009; for verification Zhou et al. 2025). open: [n, clauses] which clauses count; boxes are the hull over those.

    Guarantee: nothing unsafe is cut off; ends are rounded outward. A box with lo > hi holds nothing unsafe. Boxes without an end
      stay whole.
    """
    bounded = (np.isfinite(lo) & np.isfinite(hi)).all(-1, keepdims=True)
    given, (lo, hi) = (lo, hi), (np.where(bounded, v, 0) for v in (lo, hi))
    slope = slope.astype(np.float64)
    size, up = np.abs(slope), slope > 0
    low = np.repeat(lo.astype(np.float64)[:, None], open.shape[1], 1)  # [n, clauses, inputs]
    high = np.repeat(hi.astype(np.float64)[:, None], open.shape[1], 1)
    first, last = low[:, :, None], high[:, :, None]
    usable = np.isfinite(least) & np.isfinite(slope).all(-1)
    slack, size = np.where(usable, -least.astype(np.float64), np.inf), np.where(usable[..., None], size, 0.0)
    lost = _LOST * (size * np.maximum(np.abs(low), np.abs(high))[:, :, None]).sum(-1)  # ends are float64 numbers too
    for _ in range(_PASSES):
        gained = (size * np.where(up, low[:, :, None] - first, last - high[:, :, None])).sum(-1)
        room = slack - gained + _LOST * (np.abs(slack) + gained) + lost  # how far below 0 the rows may be on the boxes as they are
        reach = np.divide(room[..., None], size, out=np.full_like(size, np.inf), where=size > 0)
        reach = np.where(room[..., None] < 0, -1.0, reach)  # a row above 0 everywhere: crossed ends, an empty box
        farthest = low + np.where(up, reach, np.inf).min(2)
        nearest = high - np.where(up, np.inf, reach).min(2)
        low, high = np.maximum(low, nearest), np.minimum(high, farthest)
    out = ~open | (low > high).any(-1)
    below = np.where(out[..., None], -np.inf, high).max(1, initial=-np.inf).astype(np.float32)
    above = np.where(out[..., None], np.inf, low).min(1, initial=np.inf).astype(np.float32)
    low = np.maximum(lo, np.nextafter(above, np.float32(-np.inf)))
    high = np.minimum(hi, np.nextafter(below, np.float32(np.inf)))
    return np.where(bounded, low, given[0]), np.where(bounded, high, given[1])
