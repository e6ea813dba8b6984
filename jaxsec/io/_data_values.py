"""What the numbers of a data set mean: class labels, scale, range, normalisation. Each function returns sentences about what it assumed."""

from typing import Any

import numpy as np

from ._data_error import DataError
from ._data_formats import Raw

MEASURED = "value range measured on the data"


def classes(y: np.ndarray, n_classes: int | None, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as class numbers; one-hot rows are read as the class they mark."""
    notes: tuple[str, ...] = ()
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all():
        y, notes = y.argmax(1), ("one-hot labels read as class numbers",)
    if y.ndim != 1 or y.dtype.kind not in "fiub":
        raise DataError(
            f"labels of {name} have shape {y.shape} and type {y.dtype}; allowed: one class number per row, or one-hot rows. Names of "
            "classes are numbered with numpy.unique(y, return_inverse=True)[1], in the order that the model was trained with."
        )
    if not len(y):
        return y.astype(np.int32), notes
    if not np.isfinite(y).all() or not np.array_equal(y, np.round(y)):
        wrong = y[np.argmax(~np.isfinite(y) | (y != np.round(y)))]
        raise DataError(f"labels of {name} such as {wrong:.6g} are no class numbers; allowed: 0, 1, 2, ... Is this a measured quantity?")
    low, high = int(y.min()), int(y.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        hint = f" They look 1-based: subtract 1 (now {low}..{high})." if low == 1 and high == n_classes else ""
        hint = " Are the two classes marked -1 and 1? Map them to 0 and 1." if low == -1 and high == 1 else hint
        most = "K - 1 for K classes" if n_classes is None else n_classes - 1
        beyond = (y < 0) if n_classes is None else (y < 0) | (y >= n_classes)
        hint = hint or " Drop such rows, or take the model that these labels belong to."
        raise DataError(
            f"labels of {name} range from {low} to {high}; allowed: 0 to {most}. First in row {int(np.argmax(beyond))}, in "
            f"{int(beyond.sum())} of {len(y)} rows.{hint}"
        )
    if high > 10_000_000:
        raise DataError(f"the highest label is {high}; class numbers are expected, is this a measured quantity?")
    return y.astype(np.int32), notes


def scaled(x: np.ndarray, raw: Raw, divide_by: float | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """`x` as float32, divided as asked or as its format wants."""
    divisor = divide_by if divide_by is not None else raw.top or 1.0
    if not divisor > 0:
        raise DataError(f"divide_by is {divide_by}; it must be above 0.")
    notes = (f"values divided by {divide_by}",) if divide_by is not None else ()
    if x.dtype == np.uint8 and divisor == 1.0:
        notes = ("bytes kept as 0..255; pass divide_by=255 for [0, 1]",)
    with np.errstate(over="ignore"):
        return x.astype(np.float32) / np.float32(divisor), notes


def box(x: np.ndarray, given: tuple[float, float] | None, top: float | None, name: str) -> tuple[tuple[float, float], tuple[str, ...]]:
    """The lowest and highest valid value: as stated, as the format says, or assumed from the values."""
    low, high = float(x.min()), float(x.max())
    if given is not None:
        lo, hi = (float(v) for v in given)
        if not lo < hi:
            raise DataError(f"value_range is ({lo:g}, {hi:g}); the first number must be below the second.")
        if low < lo or high > hi:
            raise DataError(
                f"the values of {name} range from {low:.6g} to {high:.6g}, outside value_range=({lo:g}, {hi:g}); give the range "
                f"that they have{', or divide_by=255, which maps bytes to [0, 1]' if low >= 0 and high > 1 else ''}."
            )
        return (lo, hi), ()
    if top is not None:
        return (0.0, 1.0), ()
    if low >= 0 and high <= 1:
        return (0.0, 1.0), ("value range assumed to be [0, 1], in which all values lie",)
    if x.min() >= 0 and 1 < high <= 255 and np.array_equal(x, np.round(x)):
        return (0.0, 255.0), ("value range assumed to be [0, 255]: all values are whole and lie in it",)
    return (low, high), (f"{MEASURED}: [{low:.6g}, {high:.6g}]; pass value_range=(lo, hi) if you know it",)


def normalised(
    x: np.ndarray, layout: str, bounds: tuple[float, float], mean: Any, std: Any
) -> tuple[np.ndarray, tuple[Any, Any], tuple[str, ...]]:
    """(x - mean) / std per channel, and where the ends of the range go."""
    if mean is None and std is None:
        return x, bounds, ()
    center, spread = (np.asarray(d if v is None else v, np.float32) for v, d in ((mean, 0.0), (std, 1.0)))
    if not (np.isfinite(center).all() and np.isfinite(spread).all() and (spread > 0).all()):
        raise DataError(f"mean is {mean}, std is {std}; every entry must be finite and every std above 0.")
    axis = {"NCHW": 1, "NHWC": x.ndim - 1, "flat": 1}.get(layout)
    for label, v in (("mean", center), ("std", spread)):
        if v.ndim > 1 or (v.ndim == 1 and (axis is None or v.shape[0] != x.shape[axis])):
            channels = "unknown" if axis is None else x.shape[axis]
            raise DataError(
                f"{label} has shape {v.shape}; allowed: a scalar or one number per channel ({channels} in layout {layout or 'unknown'!r})."
            )
    shape = [1] * (x.ndim - 1)
    if center.ndim or spread.ndim:
        assert axis is not None  # checked above
        shape[axis - 1] = -1
    center, spread = (v.reshape(shape) if v.ndim else v for v in (center, spread))
    ends = tuple((np.float32(b) - center) / spread for b in bounds)
    ends = tuple(float(e) if e.ndim == 0 else e for e in ends)
    note = "inputs normalised as (x - mean) / std; eps counts in normalised units"
    return (x - center) / spread, (ends[0], ends[1]), (note,)
