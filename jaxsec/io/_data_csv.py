"""CSV tables with a label column."""

import csv
import io
from pathlib import Path

import numpy as np

from ._data_error import DataError
from ._data_formats import Raw, content


def table(path: Path, label_column: str | int | None) -> Raw:
    """Numeric columns as x, one column as y. Label words become numbers in sorted order; other words are an error.

    `label_column` is a name of the header row, or a position in a file without one (-1 is the last).
    """
    try:
        text = content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}.") from None
    delimiter = "\t" if ".tsv" in path.suffixes else ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    lines = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if not lines:
        raise DataError(f"{path} is empty.")
    header = lines[0]
    if label_column is None:
        raise DataError(f"pass label_column=<the column of the class labels>; {path} starts with {header[:20]}.")
    if isinstance(label_column, str):
        names, rows, first = [n.strip() for n in header], lines[1:], 2
        if label_column not in names:
            raise DataError(f"{path} has no column {label_column!r}; its columns are {names}.")
        position = names.index(label_column)
    else:
        names, rows, first = [str(i) for i in range(len(header))], lines, 1
        if not -len(header) <= label_column < len(header):
            raise DataError(f"label_column is {label_column}; {path} has {len(header)} columns.")
        position = label_column % len(header)
    if not rows:
        raise DataError(f"{path} has a header and no rows.")
    for number, row in enumerate(rows, first):
        if len(row) != len(names):
            raise DataError(f"{path} line {number} has {len(row)} columns, the first line has {len(names)}.")
    columns = [i for i in range(len(names)) if i != position]
    x = np.empty((len(rows), len(columns)), np.float32)
    for j, i in enumerate(columns):
        x[:, j] = _numbers([row[i] for row in rows], path, names[i], first)
    y, notes = _labels([row[position].strip() for row in rows])
    return Raw(x, y, "flat", None, notes)


def _numbers(cells: list[str], path: Path, name: str, first: int) -> np.ndarray:
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        for number, cell in enumerate(cells, first):
            try:
                float(cell)
            except ValueError:
                raise DataError(
                    f"{path} line {number}, column {name!r}: {cell!r} is no number. "
                    "Encode the column (one-hot) or fill the gap before loading."
                ) from None
        raise


def _labels(cells: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        return np.array(cells, dtype=np.float64), ()
    except ValueError:
        words = sorted(set(cells))
        number = {word: k for k, word in enumerate(words)}
        return np.array([number[c] for c in cells]), (f"labels numbered in sorted order: {words[:50]}",)
