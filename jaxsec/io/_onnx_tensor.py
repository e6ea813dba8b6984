"""Tensors of an ONNX graph with the batch axis set free.

A graph is read as a program for *one* row: its batch dimension, fixed or symbolic, is taken as 1, so every shape in the graph is a known
constant. `Tensor.shape` is that shape. The data of a value that depends on the input carries the free batch axis B in front, and the
graph's own leading 1 is dropped where there is one:

    graph [1, C, H, W] -> data [B, C, H, W]        graph [6, 1, 24] -> data [B, 6, 1, 24]        graph [5] -> data [B, 5]

Dropping or adding an axis of length 1 never moves data, so this form is exact for every op: it is `vmap` written by hand, without the
extra axes that `vmap` leaves in convolutions and pools. Rows cannot mix by construction. The rejected alternative, putting B into the
targets of Reshape nodes, has to guess which axis of `[6, 2, 4]` holds the batch, and mixes rows silently when it guesses wrong.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Value = Any  # Tensor, np.ndarray (known while loading) or None (an optional input left out)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value of the graph: `shape` for one row with batch 1; `data` with B in front if `rows`, else with exactly `shape`."""

    data: Any
    shape: tuple[int, ...]
    rows: bool

    @property
    def folded(self) -> bool:
        """Whether the graph's leading 1 is dropped, so that graph axis a is data axis a for every a >= 1."""
        return self.rows and is_folded(self.shape)

    @property
    def ndim(self) -> int:
        """Rank in the graph."""
        return len(self.shape)

    def open(self) -> jax.Array:
        """The data as `[B, *shape]`, with the graph's leading 1 back in its place."""
        return reshaped(self.data, (self.data.shape[0], *self.shape)) if self.rows else self.data


def is_folded(shape: Sequence[int]) -> bool:
    """Whether a row value of this graph shape is kept without its leading 1; a vector `[1]` keeps it."""
    return len(shape) >= 2 and shape[0] == 1


def reshaped(array: Any, shape: Sequence[int]) -> Any:
    """`jnp.reshape` that leaves no operation behind where the shape is right already."""
    return array if tuple(array.shape) == tuple(shape) else jnp.reshape(array, shape)


def rows_of(array: Any, shape: Sequence[int]) -> Tensor:
    """A row value of graph shape `shape` from data with B in front, in whatever arrangement of unit axes."""
    shape = tuple(int(n) for n in shape)
    kept = shape[1:] if is_folded(shape) else shape
    return Tensor(reshaped(array, (array.shape[0], *kept)), shape, True)


def constant(array: Any) -> Tensor:
    """A value that does not depend on the input: a parameter, or something made of parameters."""
    return Tensor(array, tuple(int(n) for n in array.shape), False)


def tensor(value: Value) -> Tensor:
    """`value` as a Tensor; 64-bit numbers of the file become 32-bit, which is what JAX computes with."""
    if isinstance(value, Tensor):
        return value
    if value.dtype == np.int64 or value.dtype == np.uint64:
        value = np.clip(value, -(2**31), 2**31 - 1).astype(np.int32)
    elif value.dtype.kind == "f":
        value = value.astype(np.float32)
    return constant(value)


def aligned(*values: Value) -> tuple[list[Any], tuple[int, ...], bool]:
    """Arrays that broadcast against each other as the graph's shapes do, the graph shape of the result, and whether it is per row."""
    tensors = [tensor(v) for v in values]
    shape = tuple(int(n) for n in np.broadcast_shapes(*(t.shape for t in tensors)))
    if not any(t.rows for t in tensors):
        return [_lift(t.data, len(shape)) for t in tensors], shape, False
    # The result's leading 1 is dropped: rank stays R, and a constant's own leading 1 (or its absence) lines up with B.
    rank = len(shape) if is_folded(shape) else len(shape) + 1
    arrays = []
    for t in tensors:
        if t.rows:
            full = (1,) * (len(shape) - t.ndim) + t.shape
            kept = full[1:] if is_folded(shape) else full
            arrays.append(reshaped(t.data, (t.data.shape[0], *kept)))
        else:
            arrays.append(_lift(t.data, rank))
    return arrays, shape, True


def _lift(array: Any, rank: int) -> Any:
    """Leading unit axes up to `rank`; scalars stay scalars, so that they remain literals in the traced program."""
    if math.prod(array.shape) == 1 and isinstance(array, np.ndarray | np.generic):
        return np.asarray(array).reshape(())
    return array if array.ndim in (0, rank) else reshaped(array, (1,) * (rank - array.ndim) + tuple(array.shape))


def elementwise(fn: Callable[..., Any], *values: Value) -> Tensor:
    """`fn` on broadcast values."""
    arrays, shape, rows = aligned(*values)
    out = fn(*arrays)
    if not rows:
        return constant(reshaped(out, shape))
    return rows_of(out, shape)


def over_axes(fn: Callable[..., Any], value: Tensor, axes: Sequence[int], *extra: Any) -> Tensor:
    """`fn(array, data_axes, *extra)` for graph axes `axes` (negative ones allowed); the result's shape is read off its array.

    `fn` must treat every axis that is not named as a batch axis, and keep the axes before the first named one in place.
    """
    named = tuple(normal_axis(a, value.ndim) for a in axes)
    if not value.rows:
        return constant(fn(value.data, named, *extra))
    if value.folded and 0 not in named:
        out = fn(value.data, named, *extra)
        return rows_of(out, (1, *out.shape[1:]))
    out = fn(value.open(), tuple(a + 1 for a in named), *extra)
    return rows_of(out, out.shape[1:])


def normal_axis(axis: int, rank: int) -> int:
    """A graph axis counted from the front; out of range raises `ValueError`."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} does not exist in a tensor of rank {rank}.")
    return int(axis) % rank


def merged(fn: Callable[[Any], Any], value: Tensor) -> Tensor:
    """`fn` on data `[N, ...]` whose first graph axis is a true batch axis (convolution, pooling); `fn` maps `[N, ...]` to `[N, ...]`."""
    if not value.rows:
        return constant(fn(value.data))
    if value.folded:
        out = fn(value.data)
        return rows_of(out, (1, *out.shape[1:]))
    opened = value.open()
    b, n = opened.shape[:2]
    out = fn(reshaped(opened, (b * n, *opened.shape[2:])))
    return rows_of(reshaped(out, (b, n, *out.shape[1:])), (n, *out.shape[1:]))


def host(value: Value, what: str) -> np.ndarray:
    """A value that has to be known while loading, else `ValueError`."""
    if isinstance(value, Tensor) or value is None:
        raise ValueError(f"{what} must be a constant of the file, but it depends on the input or on the weights.")
    return np.asarray(value)


def integers(value: Value, what: str) -> tuple[int, ...]:
    """A known vector of integers, such as a shape or a list of axes."""
    return tuple(int(v) for v in host(value, what).reshape(-1))
