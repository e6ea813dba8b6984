"""Rows into batches of a few sizes, so that few programs are compiled."""

from typing import Any

import jax
import numpy as np


def bucket(n: int, largest: int, smallest: int = 1) -> int:
    """The size of a batch for `n <= largest` rows: a power of two where that is between `smallest` and `largest`."""
    return min(max(1 << max(n - 1, 0).bit_length(), smallest), largest)


def pad_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """Indices padded to `size` by repeating the first one: a real row, so that padding cannot make NaN or slow paths."""
    return np.concatenate([rows, np.full(size - len(rows), rows[0], rows.dtype)])


def take_leaves(tree: Any, rows: Any, n: int) -> Any:
    """The rows of those leaves that have a batch axis of `n`; leaves shared by all rows (scalars, one row's shape) stay."""
    return jax.tree.map(lambda leaf: leaf[rows] if leaf.ndim and leaf.shape[0] == n else leaf, tree)


def take_rows(tree: Any, rows: jax.Array) -> Any:
    """The rows of every leaf."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)
