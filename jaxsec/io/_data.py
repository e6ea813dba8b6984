"""`load_data`: inputs and labels from the usual files, with layout, value range and normalisation said and not guessed."""

import dataclasses
import hashlib
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import _data_formats as formats
from . import _data_values as values
from ._data_csv import table
from ._data_error import DataError
from ._data_layout import arranged, guessed

Layout = Literal["flat", "NCHW", "NHWC"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs `x[N, ...]` float32 and labels `y[N]` int32 on the host, with what is known about them.

    `layout` is flat, NCHW or NHWC (empty if unknown). `value_range` is the box of valid inputs: two numbers, or two arrays that broadcast
    against a row where channels were normalised differently. `sha256` names the arrays as they are here. `notes` say what was done.
    `labels` is the file of the labels where they have one; `range_measured` is true where the range is no more than what the values span.
    `available` is the number of rows before a limit cut them.
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
    labels: str = ""
    range_measured: bool = False
    available: int = 0

    @property
    def subject(self) -> str:
        """What messages call the data: as they were asked for."""
        return self.source or self.name

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Any) -> "Dataset":
        """The rows that `index` selects (slice, integers or booleans), with their own hash."""
        x, y = self.x[index], self.y[index]
        return dataclasses.replace(self, x=x, y=y, sha256=_sha256(x, y), available=len(x))

    def first(self, limit: int | None) -> "Dataset":
        """The first rows, all of them with None; `available` still counts those of this data set."""
        return self if limit is None else dataclasses.replace(self.rows(slice(limit)), available=len(self))

    def shaped(self, row: tuple[int, ...]) -> "Dataset":
        """The same numbers in rows of shape `row`, with their own hash and a note."""
        said = f"rows of shape {self.x.shape[1:]} were given the shape {tuple(row)} that the model takes"
        x = self.x.reshape(-1, *row)
        return dataclasses.replace(self, x=x, sha256=_sha256(x, self.y), notes=(*self.notes, said))


def load_data(
    spec: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    layout: Layout | None = None,
    stored_layout: Literal["NCHW", "NHWC"] | None = None,
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
      labels: the label file of `.npy` and IDX inputs, and of an `.npz` without labels: an `.npy`, an `.npz`, or IDX for IDX.
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
    if layout not in (None, "flat", "NCHW", "NHWC"):
        raise DataError(f"layout is {layout!r}; allowed: 'flat', 'NCHW', 'NHWC' or None.")
    if stored_layout not in (None, "NCHW", "NHWC"):
        raise DataError(f"stored_layout is {stored_layout!r}; allowed: 'NCHW', 'NHWC' or None: flat rows are known by their shape.")
    raw, name = _read(spec, labels, label_column, split, x_key, y_key)
    typed = str(spec)
    if raw.x.ndim < 2 or not math.prod(raw.x.shape[1:]):
        raise DataError(f"the inputs of {typed} have shape {raw.x.shape}; each row needs at least one number: [N, D] or [N, C, H, W].")
    y, label_notes = values.classes(raw.y, n_classes, raw.labels or typed)
    if len(raw.x) != len(y) or not len(y):
        raise DataError(
            f"{typed} has {len(raw.x)} inputs and {len(y)} labels; both numbers must be equal and above 0. Are they of the same split?"
        )
    if raw.x.dtype.kind not in "fiub":
        raise DataError(f"the inputs of {typed} are of type {raw.x.dtype}; allowed are numbers.")
    classes = n_classes or int(y.max()) + 1  # counted before `limit`, which may cut a class off
    x, y = raw.x[:limit], y[:limit]
    x, notes = values.scaled(x, raw, divide_by)
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0][0])
        raise DataError(f"{typed} has NaN or infinite inputs, first in row {row}; fill or drop such rows before loading.")
    bounds, range_notes = values.box(x, value_range, raw.top if divide_by is None else None, typed)
    stored = raw.layout or stored_layout or guessed(x.shape)
    default = "flat" if spec == "digits" else "NCHW" if stored == "NHW" else stored
    if layout == "flat" and x.ndim > 2:
        notes += (f"images of shape {x.shape[1:]} are read as flat rows; layout='NCHW' or layout='NHWC' keeps them images",)
    x = arranged(x, stored, layout or default, typed)
    final = layout or default
    x, bounds, norm_notes = values.normalised(x, final, bounds, mean, std)
    x = np.ascontiguousarray(x, np.float32)
    said = raw.notes + notes + label_notes + range_notes + norm_notes
    measured = any(note.startswith(values.MEASURED) for note in range_notes)
    data = Dataset(x, y, name, classes, final, bounds, typed, "", said, raw.labels, measured, len(raw.y))
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
    path, kind = Path(spec), _kind(spec)
    if labels is not None and kind not in ("npz", "npy", "idx"):
        raise DataError(f"labels={str(labels)!r} was given, but {path.name} holds its own labels; leave it out.")
    if label_column is not None and kind != "table":
        raise DataError(f"label_column={label_column!r} is for tables, and {path.name} is none; leave it out.")
    other, stem = None if labels is None else Path(labels), path.name.removesuffix(".gz")
    if kind == "digits":
        return formats.digits(), "digits"
    if kind == "table":
        return table(path, label_column), stem.rpartition(".")[0]
    if kind == "npz":
        return formats.npz(path, x_key, y_key, other), stem[:-4]
    if kind == "npy":
        if other is None:
            raise DataError(f"{path} holds inputs only; pass labels=<the .npy file of the labels>.")
        return formats.Raw(formats.npy(path), formats.label_file(other, y_key), "", None, (), str(other)), stem[:-4]
    if kind == "idx":
        return formats.idx(path, other), stem.partition("-images")[0]
    return formats.cifar(path, split or "test"), stem.removesuffix(".bin")


def _kind(spec: Any) -> str:
    """What reads it: digits, table, npz, npy, idx or cifar, told by the name."""
    if spec == "digits":
        return "digits"
    path = Path(spec)
    stem = path.name.removesuffix(".gz")
    if not path.exists():
        raise DataError(
            f"there are no data at {path} (working folder: {Path.cwd()}); allowed: 'digits' or a path to .npz, .npy, IDX, CIFAR-10 binary, "
            ".csv."
        )
    if stem.endswith((".csv", ".tsv", ".data")):
        return "table"
    if stem.endswith((".npz", ".npy")):
        return stem[-3:]
    if "idx" in stem or stem.endswith("ubyte"):
        return "idx"
    if path.is_dir() or stem.endswith(".bin"):
        return "cifar"
    raise DataError(
        f"{path.name} has no known ending; allowed: .npz, .npy, *-idx3-ubyte(.gz), .bin or folder (CIFAR-10), .csv(.gz), .tsv(.gz)."
    )


def _sha256(x: np.ndarray, y: np.ndarray) -> str:
    sha = hashlib.sha256(f"{x.shape}{x.dtype}{y.dtype}".encode())
    sha.update(np.ascontiguousarray(x).data)
    sha.update(np.ascontiguousarray(y).data)
    return sha.hexdigest()
