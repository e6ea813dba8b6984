"""Readers of data files: NPZ, NPY, IDX, CIFAR-10 binary and the digits of scikit-learn. Nothing is unpickled."""

import dataclasses
import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ._data_error import DataError


@dataclasses.dataclass(frozen=True)
class Raw:
    """Arrays as a file has them: `layout` is flat, NHW, NCHW, NHWC, or empty where the file does not say; `top` is the value of white.

    `labels` is the file of the labels where they have one of their own.
    """

    x: np.ndarray
    y: np.ndarray
    layout: str
    top: float | None
    notes: tuple[str, ...] = ()
    labels: str = ""


def present(path: Path) -> None:
    """Raises where there is no file with something in it."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; a file is needed.")
    if not path.is_file():
        raise DataError(f"there is no file {path} (working folder: {Path.cwd()}).")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty (0 bytes); write or copy it again.")


def content(path: Path) -> bytes:
    """A file's bytes, unpacked if it is gzipped."""
    present(path)
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is gzipped, but damaged: {str(error).rstrip('.')}. Copy or pack it again.") from None


def npz(path: Path, x_key: str, y_key: str, labels: Path | None = None) -> Raw:
    """Inputs and labels of an NPZ file; the labels from a file of their own where the NPZ has none."""
    present(path)
    try:
        # Opened here: NumPy leaves the file open when it is no archive.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise DataError(f"{path} holds a single array; name it .npy, and pass labels=<the .npy file of the labels>.")
            with file:
                if labels is None:
                    _keys(path, {"x_key": x_key, "y_key": y_key}, file.files)
                    return Raw(file[x_key], file[y_key], "", None)
                if y_key in file.files:
                    raise DataError(f"labels={str(labels)!r} was given, but {path} (key {y_key!r}) holds its own labels; leave it out.")
                _keys(path, {"x_key": x_key}, file.files)
                return Raw(file[x_key], label_file(labels, y_key), "", None, (), str(labels))
    except (DataError, PermissionError):
        raise
    except Exception as error:  # zip, header and pickle faults: all mean that this is no NPZ of plain arrays
        raise DataError(f"{path} is no NPZ file of plain arrays: {_plain(error)}") from None


def _keys(path: Path, wanted: dict[str, str], found: list[str]) -> None:
    """Raises where a wanted key is missing; the message names one that is there for each, the remaining ones in turn."""
    missing = {option: key for option, key in wanted.items() if key not in found}
    if not missing:
        return
    names = ", ".join(repr(key) for key in missing.values())
    if len(found) < len(wanted):
        raise DataError(
            f"{path} has no key {names}; it has {found}. Two arrays are needed, the inputs and their labels; labels of another file are "
            "given with labels=<the .npy or .npz file of the labels>."
        )
    free = [key for key in found if key not in wanted.values()]
    chosen = " and ".join(f"{option}={key!r}" for option, key in zip(missing, free, strict=False)) or "x_key and y_key"
    raise DataError(f"{path} has no key {names}; it has {listed(found)}. Say which holds what, e.g. {chosen}.")


def label_file(path: Path, y_key: str) -> np.ndarray:
    """The labels in a file of their own: NPY, or NPZ with `y_key` or a single array."""
    if path.suffix != ".npz":
        return npy(path)
    present(path)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if len(file.files) > 1 or not file.files:
                _keys(path, {"y_key": y_key}, file.files)
            return file[y_key if y_key in file.files else file.files[0]]
    except (DataError, PermissionError):
        raise
    except Exception as error:
        raise DataError(f"{path} is no NPZ file of plain arrays: {_plain(error)}") from None


def _plain(error: Exception) -> str:
    """NumPy's message; that about pickles, which no option of ours allows, in other words."""
    text = str(error).rstrip(".")
    if "contains pickled" in text:  # what NumPy takes any file for that is neither a ZIP nor an NPY
        return "it is no ZIP archive of arrays at all. Was it written by numpy.savez?"
    return "it holds Python objects, which are not read; save arrays of numbers." if "allow_pickle" in text else f"{text}. Save it again."


def listed(names: list[str], most: int = 10) -> str:
    """The first names, how many more there are, and the last."""
    shown = ", ".join(repr(n) for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more, the last {names[-1]!r}"


def npy(path: Path) -> np.ndarray:
    """One array of an NPY file."""
    present(path)
    try:
        array = np.load(path, allow_pickle=False)
    except PermissionError:
        raise
    except Exception as error:
        raise DataError(f"{path} is no NPY file of a plain array: {_plain(error)}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path} is an NPZ archive, not one array; for inputs and labels in one file name it .npz and give it alone.")
    return array


# Type codes of the IDX format, third byte of the magic number; all numbers are big-endian.
_IDX = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx_array(path: Path) -> np.ndarray:
    """One IDX file, the format of MNIST and its relatives."""
    data = content(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX:
        raise DataError(f"{path} is no IDX file: it starts with {data[:4]!r}, expected two zero bytes, a type code and the number of axes.")
    dtype, ndim = np.dtype(_IDX[data[2]]), data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    body = data[4 + 4 * ndim :]
    if len(body) != dtype.itemsize * math.prod(shape):
        raise DataError(f"{path} is damaged: shape {shape} needs {dtype.itemsize * math.prod(shape)} bytes of data, it has {len(body)}.")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def idx(path: Path, labels: Path | None) -> Raw:
    """Images and labels; the label file is found by its usual name."""
    found = labels is None
    if labels is None:
        labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
        if labels == path or not labels.is_file():
            raise DataError(f"{path} holds images only; pass labels=<the IDX file of the labels> (looked for {labels.name}).")
    x, y = idx_array(path), idx_array(labels)
    top = 255.0 if x.dtype == np.uint8 else None
    notes = ("IDX bytes 0..255 divided by 255",) if top else ()
    notes += (f"labels from {labels.name}, found beside the images",) if found else ()
    return Raw(x, y, "NHW" if x.ndim == 3 else "", top, notes, str(labels))


_CIFAR_RECORD = 1 + 3 * 32 * 32


def cifar(path: Path, split: str) -> Raw:
    """CIFAR-10 binary: one batch file, or the folder with data_batch_1..5.bin and test_batch.bin."""
    if path.is_dir():
        names = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
        files = [path / n for n in names]
        missing = [f.name for f in files if not f.is_file()]
        if missing:
            raise DataError(
                f"{path} is a folder without {', '.join(missing)}; a folder is read as the CIFAR-10 binary version, its {split} part. "
                "For other data name the file."
            )
    else:
        files = [path]
    data = b"".join(content(f) for f in files)
    if not data or len(data) % _CIFAR_RECORD:
        raise DataError(
            f"{path} has {len(data)} bytes, no multiple of {_CIFAR_RECORD}: not the CIFAR-10 binary version (one label byte, 3072 pixels), "
            "or cut short: copy or download it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_RECORD)
    return Raw(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0], "NCHW", 255.0, ("CIFAR bytes 0..255 divided by 255",))


def digits() -> Raw:
    """The 1797 digits of 8x8 pixels that come with scikit-learn, values 0 to 16."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the embedded digits need scikit-learn: pip install 'jaxsec[audit]'.") from error
    data: Any = load_digits()
    return Raw(np.asarray(data.images), np.asarray(data.target), "NHW", 16.0, ("digits 0..16 divided by 16",))
