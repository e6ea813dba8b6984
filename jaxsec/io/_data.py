"""`load_data`: inputs and labels from the usual files, with layout, value range and normalisation said and not guessed."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import _data_formats as formats
from ._data_csv import table
from ._data_error import DataError
from ._data_layout import arranged, guessed

Layout = Literal["flat", "NCHW", "NHWC"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs `x[N, ...]` float32 and labels `y[N]` int32 on the host, with what is known about them.

    `layout` is flat, NCHW or NHWC (empty if unknown). `value_range` is the box of valid inputs: two numbers, or two arrays that broadcast
    against a row where channels were normalised differently. `sha256` names the arrays as they are here. `notes` say what was done.
    """

    x: np.ndarray
    y: np.ndarray
    name: str
    n_classes: int
    layout: str
    value_range: tuple[Any, Any]
    source: str
    sha256: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Any) -> "Dataset":
        """The rows that `index` selects (slice, integers or booleans), with their own hash."""
        x, y = self.x[index], self.y[index]
        return dataclasses.replace(self, x=x, y=y, sha256=_sha256(x, y))


def load_data(
    spec: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    layout: Layout | None = None,
    stored_layout: Layout | None = None,
    value_range: tuple[float, float] | None = None,
    divide_by: float | None = None,
    mean: Any = None,
    std: Any = None,
    label_column: str | int | None = None,
    n_classes: int | None = None,
    split: Literal["train", "test"] | None = None,
    limit: int | None = None,
    x_key: str = "x",
    y_key: str = "y",
) -> Dataset:
    """Loads a labelled data set.

    Guarantee: nothing is unpickled; the same files and options give the same arrays and `sha256`; every assumption is in `notes`.

    Args:
      spec: `"digits"` (scikit-learn's, embedded), or a path: `.npz` with keys x and y, `.npy` with `labels`, IDX images (also gzipped,
        labels found by name), a CIFAR-10 binary file or folder, `.csv`/`.tsv` (also gzipped) with `label_column`.
      labels: the label file of `.npy` and IDX inputs.
      layout: the arrangement wanted: "flat", "NCHW" or "NHWC". Default: as stored; NCHW for IDX and CIFAR, flat for digits.
      stored_layout: the arrangement in an NPZ or NPY file, where the sizes do not tell.
      value_range: lowest and highest valid value, after `divide_by` and before normalisation. Default: [0, 1] if the values
        lie in it, else the range the values have.
      divide_by: divides the values. Default: 255 for the byte images of IDX and CIFAR, 16 for digits, else 1: bytes in NPZ
        and NPY stay 0..255.
      mean, std: per channel or scalar; x becomes (x - mean) / std and the range moves along. Better:
        `model.preprocessed(mean=, std=)`, which keeps the attacker's box and eps in pixel units.
      label_column: name (file with header) or position (file without) of the label in a CSV.
      n_classes: number of classes, where not every class occurs. Default: highest label + 1.
      split: "train" or "test" of digits (see `train_test`) and of a CIFAR folder (default test).
      limit: the first rows only.
      x_key, y_key: the keys in an NPZ file.

    Returns:
      Dataset: x float32, y int32 in 0..n_classes-1.

    Raises:
      DataError: missing or damaged file, labels that are no class numbers, lengths that differ, values outside `value_range`, NaN, a layout
        that does not fit.

    Example:
      >>> import jaxsec.io
      >>> data = jaxsec.io.load_data("digits", layout="NCHW", limit=5)
      >>> data.x.shape, data.y.tolist(), data.value_range
      ((5, 1, 8, 8), [0, 1, 2, 3, 4], (0.0, 1.0))
    """
    if split not in (None, "train", "test"):
        raise DataError(f"split is {split!r}; allowed: 'train', 'test' or None.")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; give at least 1 row, or None for all.")
    if layout not in (None, "flat", "NCHW", "NHWC") or stored_layout not in (None, "flat", "NCHW", "NHWC"):
        raise DataError(f"layout is {layout!r}, stored_layout {stored_layout!r}; allowed: 'flat', 'NCHW', 'NHWC' or None.")
    raw, name = _read(spec, labels, label_column, split, x_key, y_key)
    y, label_notes = _classes(raw.y, n_classes)
    if len(raw.x) != len(y) or not len(y):
        raise DataError(f"{name} has {len(raw.x)} inputs and {len(y)} labels; both numbers must be equal and above 0.")
    if raw.x.dtype.kind not in "fiub":
        raise DataError(f"the inputs of {name} are of type {raw.x.dtype}; allowed are numbers.")
    if raw.x.ndim < 2 or not raw.x[0].size:
        raise DataError(f"the inputs of {name} have shape {raw.x.shape}; each row needs at least one number: [N, D] or [N, C, H, W].")
    classes = n_classes or int(y.max()) + 1  # counted before `limit`, which may cut a class off
    x, y = raw.x[:limit], y[:limit]
    x, notes = _scaled(x, raw, divide_by)
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0][0])
        raise DataError(f"{name} has NaN or infinite inputs, first in row {row}; fill or drop such rows before loading.")
    bounds, range_notes = _range(x, value_range, raw.top if divide_by is None else None, name)
    stored = raw.layout or stored_layout or guessed(x.shape)
    default = "flat" if spec == "digits" else "NCHW" if stored == "NHW" else stored
    x = arranged(x, stored, layout or default, name)
    final = layout or default
    x, bounds, norm_notes = _normalised(x, final, bounds, mean, std)
    x = np.ascontiguousarray(x, np.float32)
    data = Dataset(x, y, name, classes, final, bounds, str(spec), "", raw.notes + notes + label_notes + range_notes + norm_notes)
    if spec == "digits" and split is not None:
        return train_test(data)[split == "test"]
    return dataclasses.replace(data, sha256=_sha256(x, y))


def train_test(data: Dataset, *, test: float = 0.25, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Splits into a training and a test part, the same on every machine and for every order of the rows.

    Guarantee: a row goes to the test part by a hash of its own content, so exact duplicates never lie on both sides.

    Args:
      data: what to split.
      test: share of the test part, in (0, 1); met on average, not exactly.
      seed: another seed gives another split.

    Returns:
      (train, test).

    Raises:
      DataError: `test` outside (0, 1), or too few rows for two parts.

    Example:
      >>> import jaxsec.io
      >>> train, test = jaxsec.io.train_test(jaxsec.io.load_data("digits"))
      >>> len(train) + len(test)
      1797
    """
    if not 0 < test < 1:
        raise DataError(f"test is {test}; give a share between 0 and 1.")
    salt = int(seed).to_bytes(8, "little", signed=True)
    rows = np.ascontiguousarray(data.x).reshape(len(data), -1)
    hashes = np.array(
        [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8, key=salt).digest(), "little") for row in rows], np.uint64
    )
    chosen = hashes < np.uint64(int(test * 2**64))
    if chosen.all() or not chosen.any():
        raise DataError(f"{len(data)} rows are too few to split with test={test}; take another share or seed.")
    return data.rows(~chosen), data.rows(chosen)


def _read(spec: Any, labels: Any, label_column: str | int | None, split: str | None, x_key: str, y_key: str) -> tuple[formats.Raw, str]:
    if spec == "digits":
        return formats.digits(), "digits"
    path = Path(spec)
    other = None if labels is None else Path(labels)
    stem = path.name.removesuffix(".gz")
    if not path.exists():
        raise DataError(
            f"no data at {path} (working folder: {Path.cwd()}); allowed: 'digits' or a path to .npz, .npy, IDX, CIFAR-10 binary, .csv."
        )
    if stem.endswith((".csv", ".tsv", ".data")):
        return table(path, label_column), stem.rpartition(".")[0]
    if stem.endswith(".npz"):
        return formats.npz(path, x_key, y_key), stem[:-4]
    if stem.endswith(".npy"):
        if other is None:
            raise DataError(f"{path} holds inputs only; pass labels=<the .npy file of the labels>.")
        return formats.Raw(formats.npy(path), formats.npy(other), "", None), stem[:-4]
    if "idx" in stem or stem.endswith("ubyte"):
        return formats.idx(path, other), stem.partition("-images")[0]
    if path.is_dir() or stem.endswith(".bin"):
        return formats.cifar(path, split or "test"), stem.removesuffix(".bin")
    raise DataError(
        f"{path.name} has no known ending; allowed: .npz, .npy, *-idx3-ubyte(.gz), .bin or folder (CIFAR-10), .csv(.gz), .tsv(.gz)."
    )


def _classes(y: np.ndarray, n_classes: int | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as class numbers; one-hot rows are read as the class they mark."""
    notes: tuple[str, ...] = ()
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all():
        y, notes = y.argmax(1), ("one-hot labels read as class numbers",)
    if y.ndim != 1 or y.dtype.kind not in "fiub":
        raise DataError(f"labels have shape {y.shape} and type {y.dtype}; allowed: one class number per row, or one-hot rows.")
    if not len(y):
        return y.astype(np.int32), notes
    if not np.isfinite(y).all() or not np.array_equal(y, np.round(y)):
        raise DataError(f"labels such as {y[np.argmax(~np.isfinite(y) | (y != np.round(y)))]} are no class numbers; allowed: 0, 1, 2, ...")
    low, high = int(y.min()), int(y.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        hint = f" They look 1-based: subtract 1 (now {low}..{high})." if low == 1 and high == n_classes else ""
        hint = " Are the two classes marked -1 and 1? Map them to 0 and 1." if low == -1 and high == 1 else hint
        raise DataError(f"labels range from {low} to {high}; allowed: 0 to {'K - 1' if n_classes is None else n_classes - 1}.{hint}")
    if high > 10_000_000:
        raise DataError(f"the highest label is {high}; class numbers are expected, is this a measured quantity?")
    return y.astype(np.int32), notes


def _scaled(x: np.ndarray, raw: formats.Raw, divide_by: float | None) -> tuple[np.ndarray, tuple[str, ...]]:
    divisor = divide_by if divide_by is not None else raw.top or 1.0
    if not divisor > 0:
        raise DataError(f"divide_by is {divide_by}; it must be above 0.")
    notes = (f"values divided by {divide_by}",) if divide_by is not None else ()
    if x.dtype == np.uint8 and divisor == 1.0:
        notes = ("bytes kept as 0..255; pass divide_by=255 for [0, 1]",)
    with np.errstate(over="ignore"):
        return x.astype(np.float32) / np.float32(divisor), notes


def _range(x: np.ndarray, given: tuple[float, float] | None, top: float | None, name: str) -> tuple[tuple[float, float], tuple[str, ...]]:
    low, high = float(x.min()), float(x.max())
    if given is not None:
        lo, hi = (float(v) for v in given)
        if not lo < hi:
            raise DataError(f"value_range is ({lo}, {hi}); the first number must be below the second.")
        if low < lo or high > hi:
            raise DataError(
                f"the values of {name} range from {low:.6g} to {high:.6g}, outside value_range ({lo}, {hi}); "
                "divide_by=255 maps bytes to [0, 1], and value_range counts before mean and std."
            )
        return (lo, hi), ()
    if top is not None:
        return (0.0, 1.0), ()
    if low >= 0 and high <= 1:
        return (0.0, 1.0), ("value range assumed to be [0, 1], in which all values lie",)
    if x.min() >= 0 and 1 < high <= 255 and np.array_equal(x, np.round(x)):
        return (0.0, 255.0), ("value range assumed to be [0, 255]: all values are whole and lie in it",)
    return (low, high), (f"value range measured on the data: [{low:.6g}, {high:.6g}]; pass value_range=(lo, hi) if you know it",)


def _normalised(
    x: np.ndarray, layout: str, bounds: tuple[float, float], mean: Any, std: Any
) -> tuple[np.ndarray, tuple[Any, Any], tuple[str, ...]]:
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


def _sha256(x: np.ndarray, y: np.ndarray) -> str:
    sha = hashlib.sha256(f"{x.shape}{x.dtype}{y.dtype}".encode())
    sha.update(np.ascontiguousarray(x).data)
    sha.update(np.ascontiguousarray(y).data)
    return sha.hexdigest()
