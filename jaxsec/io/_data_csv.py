"""CSV tables with a label column."""

import csv
import difflib
import io
from pathlib import Path

import numpy as np

from ._data_error import DataError
from ._data_formats import Raw, content, listed


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
        raise DataError(f"{path} does not say which of its {len(header)} columns holds the class labels; {_choice(header)}.")
    if isinstance(label_column, str):
        names, rows, first = [n.strip() for n in header], lines[1:], 2
        if label_column not in names:
            near = difflib.get_close_matches(label_column, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{path} has no column {label_column!r}; its columns are {listed(names)}.{hint}")
        position = names.index(label_column)
    else:
        names, rows, first = [str(i) for i in range(len(header))], lines, 1
        if not -len(header) <= label_column < len(header):
            raise DataError(
                f"label_column is {label_column}; {path} has {len(header)} columns, so {-len(header)} to {len(header) - 1} are allowed."
            )
        position = label_column % len(header)
        if len(lines) > 1 and not any(_is_number(cell) for cell in header):
            raise DataError(f"{path} has a header, so its label column is given by name: label_column={header[position].strip()!r}.")
    if not rows:
        raise DataError(f"{path} has a header and no rows.")
    for number, row in enumerate(rows, first):
        if len(row) != len(names):
            raise DataError(
                f"{path} line {number} has {len(row)} columns, the first line has {len(names)}; all need as many, parted by {delimiter!r}."
            )
    columns = [i for i in range(len(names)) if i != position]
    x = np.empty((len(rows), len(columns)), np.float32)
    for j, i in enumerate(columns):
        x[:, j] = _numbers([row[i] for row in rows], path, names[i], first)
    y, notes = _labels([row[position].strip() for row in rows])
    return Raw(x, y, "flat", None, notes)


def _choice(header: list[str]) -> str:
    """The columns, and how to name one of them; labels are usually last."""
    if any(_is_number(cell) for cell in header):
        return "without a header line it is given by position: label_column=-1 for the last, label_column=0 for the first"
    names = [n.strip() for n in header]
    return f"name it, e.g. label_column={names[-1]!r}. The columns are {listed(names)}"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(cells: list[str], path: Path, name: str, first: int) -> np.ndarray:
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        number, cell = next((i, c) for i, c in enumerate(cells, first) if not _is_number(c))
        raise DataError(
            f"{path} line {number}, column {name!r}: {cell!r} is no number. Encode the column (one-hot) or fill the gap before loading."
        ) from None


def _labels(cells: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        return np.array(cells, dtype=np.float64), ()
    except ValueError:
        words = sorted(set(cells))
        number = {word: k for k, word in enumerate(words)}
        return np.array([number[c] for c in cells]), (f"labels numbered in sorted order: {words[:50]}",)
