"""`check_data`: do these inputs and labels belong to this model?"""

from typing import Any

import numpy as np

from ..core import Model
from ._data import Dataset
from ._data_error import DataError
from ._data_layout import guessed


def check_data(data: Dataset, model: Model | None = None, *, accuracy: float | None = None) -> tuple[str, ...]:
    """Checks a data set by itself and against a model.

    Guarantee: what it raises for cannot be right; what it returns may be.

    Args:
      data: the data set.
      model: the model; its `info.input_shape` and `info.n_classes` are compared, or its program is tried on shapes alone.
      accuracy: the model's accuracy on these rows, if the caller has it, in [0, 1].

    Returns:
      tuple of str: warnings for the report, empty if there are none. An accuracy that a constant answer would reach is one.

    Raises:
      DataError: no rows, NaN or infinity, values outside the stated range, labels out of range, rows that do not fit the model.

    Cost: a few passes over the data on the host; the model is not run.

    Example:
      >>> import jaxsec.io
      >>> data = jaxsec.io.load_data("digits", limit=200)
      >>> jaxsec.io.check_data(data, accuracy=0.12)[0].partition(' is')[0]
      'accuracy 12.0 % on 200 rows'
    """
    if not len(data) or len(data.x) != len(data.y):
        raise DataError(f"{data.subject} has {len(data.x)} inputs and {len(data.y)} labels; both numbers must be equal and above 0.")
    _values(data)
    if model is not None:
        classes = _fits(data, model)
        _labels(data, classes)
    else:
        _labels(data, data.n_classes)
    return () if accuracy is None else _chance(data, accuracy, model)


def _values(data: Dataset) -> None:
    if not np.isfinite(data.x).all():
        rows = np.flatnonzero(~np.isfinite(data.x.reshape(len(data), -1)).all(1))
        raise DataError(f"{data.subject} has NaN or infinite inputs in {len(rows)} rows, first in row {rows[0]}; fill or drop them.")
    lo, hi = data.value_range
    slack = 1e-6 * np.maximum(np.abs(lo), np.abs(hi))
    low, high = data.x < lo - slack, data.x > hi + slack
    if low.any() or high.any():
        rows = np.flatnonzero((low | high).reshape(len(data), -1).any(1))
        found = f"{float(data.x.min()):.6g} to {float(data.x.max()):.6g}"
        raise DataError(
            f"{data.subject} has values {found}, outside its value_range {data.value_range}, in {len(rows)} rows, first in row {rows[0]}; "
            "divide by 255, or state the range the data have."
        )


def _labels(data: Dataset, classes: int) -> None:
    low, high = int(data.y.min()), int(data.y.max())
    if low >= 0 and high < classes:
        return
    hint = " They look 1-based: subtract 1." if low == 1 and high == classes else " Is this the right model for the data?"
    raise DataError(
        f"labels of {data.subject} range from {low} to {high}; the model has {classes} classes, so 0 to {classes - 1} are allowed.{hint}"
    )


def _fits(data: Dataset, model: Model) -> int:
    """Number of classes; raises if a row does not fit."""
    row, wanted = tuple(data.x.shape[1:]), model.info.input_shape
    if wanted is not None and row != tuple(wanted):
        raise DataError(
            f"rows of {data.subject} have shape {row}, the model takes {tuple(wanted)}. {_remedy(row, tuple(wanted), data.layout)}"
        )
    if model.info.n_classes is not None:
        return model.info.n_classes
    import jax

    spec: list[Any] = [jax.ShapeDtypeStruct((2, *row), np.float32)]
    try:
        if model.stochastic:
            spec.append(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2)))
        shape = jax.eval_shape(model, *spec).shape
    except Exception as error:  # the user's network fails in its own way; what counts is that this shape does not go through
        raise DataError(
            f"the model does not take rows of shape {row}: {' '.join(str(error).split())[:300].rstrip('.')}. "
            "Check the layout (flat, NCHW or NHWC), and that these data were made for this model."
        ) from error
    if len(shape) != 2 or shape[0] != 2:
        raise DataError(f"the model returns shape {shape} for a batch of 2 rows; logits [2, K] are needed.")
    return shape[1]


def _remedy(row: tuple[int, ...], wanted: tuple[int, ...], layout: str) -> str:
    if len(row) == 3 and row[2:] + row[:2] == wanted:
        return "The data are channels-last: load them with layout='NCHW'."
    if len(row) == 3 and row[1:] + row[:1] == wanted:
        return "The data are channels-first: load them with layout='NHWC'."
    if np.prod(row) == np.prod(wanted):
        kind = "NCHW" if layout == "NHWC" or guessed((1, *wanted)) == "NCHW" else "NHWC"
        kind = "flat" if sum(d != 1 for d in wanted) <= 1 else kind
        return f"The sizes agree, so only the arrangement differs: load with layout={kind!r}, or reshape the inputs to {(-1, *wanted)}."
    return "The sizes differ, so these data were not made for this model."


def _chance(data: Dataset, accuracy: float, model: Model | None) -> tuple[str, ...]:
    """A binomial test of the accuracy against always answering the most frequent class."""
    from scipy import stats

    if not 0 <= accuracy <= 1:
        raise DataError(f"accuracy is {accuracy}; allowed: 0 to 1.")
    hits = round(accuracy * len(data))
    chance = float(np.bincount(data.y).max()) / len(data)
    if chance >= 1.0 or stats.binomtest(hits, len(data), chance, alternative="greater").pvalue < 0.01:
        return ()
    lo, hi = (np.asarray(v) for v in data.value_range)
    seen = f"[{float(lo.min()):.4g}, {float(hi.max()):.4g}]"
    return (
        f"accuracy {100 * accuracy:.1f} % on {len(data)} rows is not better than always answering the "
        f"most frequent class ({100 * chance:.1f} %): "
        f"check the normalisation (inputs are in {seen}), the layout ({data.layout or 'unknown'}), and the order of the labels.",
    )
