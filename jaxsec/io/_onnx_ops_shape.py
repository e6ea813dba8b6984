"""ONNX ops that move data without changing it: reshape, transpose, slice, gather, join, split, repeat."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, constant, host, integers, is_folded, normal_axis, over_axes, reshaped, rows_of, tensor


def to_shape(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same numbers in another graph shape; one reshape at most, because unit axes are free."""
    if math.prod(shape) != math.prod(t.shape):
        raise ValueError(f"{math.prod(t.shape)} numbers of shape {t.shape} do not fit into shape {shape}.")
    return rows_of(t.data, shape) if t.rows else constant(reshaped(t.data, shape))


@op("Reshape", static=(1,))
def _reshape(step: Step, x: Value, shape: Value = None) -> Tensor:
    x = tensor(x)
    target = list(step.attr("shape", ()) if shape is None else integers(shape, "the target shape"))
    if not step.attr("allowzero", 0):
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return to_shape(x, _resolved(target, x.shape, step.attr("jaxsec_batch", 1)))


def _resolved(target: list[int], shape: tuple[int, ...], exported: int) -> tuple[int, ...]:
    """-1 resolved; `exported` is the batch size the file was written with and which a target may repeat in front."""
    total = math.prod(shape)
    known = math.prod(n for n in target if n != -1)
    if exported > 1 and target and target[0] == exported and (known == exported * total or -1 in target):
        target, known = [1, *target[1:]], known // exported
    if -1 in target:
        if target.count(-1) > 1 or known == 0 or total % known:
            raise ValueError(f"shape {shape} cannot become {target}.")
        target = [total // known if n == -1 else n for n in target]
    return tuple(target)


@op("Flatten")
def _flatten(step: Step, x: Value) -> Tensor:
    x = tensor(x)
    axis = int(step.attr("axis", 1))
    axis = axis + x.ndim if axis < 0 else axis
    return to_shape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@op("Squeeze", static=(1,))
def _squeeze(step: Step, x: Value, axes: Value = None) -> Tensor:
    x = tensor(x)
    named = step.attr("axes") if axes is None else integers(axes, "axes")
    drop = {i for i, n in enumerate(x.shape) if n == 1} if named is None else {normal_axis(a, x.ndim) for a in named}
    if any(x.shape[a] != 1 for a in drop):
        raise ValueError(f"axes {sorted(drop)} of shape {x.shape} are not all of length 1.")
    return to_shape(x, tuple(n for i, n in enumerate(x.shape) if i not in drop))


@op("Unsqueeze", static=(1,))
def _unsqueeze(step: Step, x: Value, axes: Value = None) -> Tensor:
    x = tensor(x)
    named = tuple(step.attr("axes")) if axes is None else integers(axes, "axes")
    rank = x.ndim + len(named)
    new = {normal_axis(a, rank) for a in named}
    old = iter(x.shape)
    return to_shape(x, tuple(1 if i in new else next(old) for i in range(rank)))


@op("Transpose")
def _transpose(step: Step, x: Value) -> Tensor:
    x = tensor(x)
    perm = tuple(int(p) for p in step.attr("perm", range(x.ndim)[::-1]))
    if sorted(perm) != list(range(x.ndim)):
        raise ValueError(f"perm {perm} is no order of {x.ndim} axes.")
    shape = tuple(x.shape[p] for p in perm)
    if not x.rows:
        return constant(jnp.transpose(x.data, perm))
    if x.folded and perm[0] == 0:
        return rows_of(jnp.transpose(x.data, perm), shape)
    return rows_of(jnp.transpose(x.open(), (0, *(p + 1 for p in perm))), shape)


@op("Expand", static=(1,))
def _expand(step: Step, x: Value, shape: Value) -> Tensor:
    x = tensor(x)
    target, exported = list(integers(shape, "shape")), step.attr("jaxsec_batch", 1)
    if exported > 1 and target and target[0] == exported:
        target[0] = 1
    out = tuple(int(n) for n in np.broadcast_shapes(x.shape, tuple(target)))
    if not x.rows:
        return constant(jnp.broadcast_to(reshaped(x.data, (1,) * (len(out) - x.ndim) + x.shape), out))
    opened = reshaped(x.data, (x.data.shape[0], *(1,) * (len(out) - x.ndim), *x.shape))
    return rows_of(jnp.broadcast_to(opened, (x.data.shape[0], *out)), out)


@op("Concat")
def _concat(step: Step, *inputs: Value) -> Tensor:
    tensors = [tensor(v) for v in inputs]
    axis = normal_axis(int(step.attr("axis", 1)), tensors[0].ndim)
    rows = [t for t in tensors if t.rows]
    if not rows:
        return constant(jnp.concatenate([t.data for t in tensors], axis))
    b = rows[0].data.shape[0]
    fold = axis > 0 and all(is_folded(t.shape) for t in tensors)

    def piece(t: Tensor) -> Any:
        kept = t.shape[1:] if fold else t.shape
        return reshaped(t.data, (b, *kept)) if t.rows else jnp.broadcast_to(reshaped(t.data, (1, *kept)), (b, *kept))

    out = jnp.concatenate([piece(t) for t in tensors], axis if fold else axis + 1)
    return rows_of(out, (1, *out.shape[1:]) if fold else out.shape[1:])


@op("Split", static=(1,))
def _split(step: Step, x: Value, sizes: Value = None) -> tuple[Tensor, ...]:
    x = tensor(x)
    axis = normal_axis(int(step.attr("axis", 0)), x.ndim)
    given = step.attr("split") if sizes is None else integers(sizes, "the split sizes")
    if given is None:
        parts = len(step.outputs)
        each = -(-x.shape[axis] // parts)  # the last part may be smaller
        given = [min(each, x.shape[axis] - i * each) for i in range(parts)]
    if sum(given) != x.shape[axis] or min(given) < 0:
        raise ValueError(f"split sizes {list(given)} do not add up to {x.shape[axis]}.")
    ends = np.cumsum(given).tolist()
    return tuple(
        over_axes(lambda a, axes, lo=end - n, hi=end: lax.slice_in_dim(a, lo, hi, axis=axes[0]), x, (axis,))
        for n, end in zip(given, ends, strict=True)
    )


@op("Slice", static=(1, 2, 3, 4))
def _slice(step: Step, x: Value, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None) -> Tensor:
    x = tensor(x)
    first = step.attr("starts") if starts is None else integers(starts, "starts")
    last = step.attr("ends") if ends is None else integers(ends, "ends")
    named = step.attr("axes", range(len(first))) if axes is None else integers(axes, "axes")
    strides = [1] * len(first) if steps is None else integers(steps, "steps")
    for axis, lo, hi, stride in zip(named, first, last, strides, strict=True):
        x = over_axes(lambda a, where, s=slice(lo, hi, stride): _cut(a, where[0], s), x, (axis,))
    return x


def _cut(array: jax.Array, axis: int, part: slice) -> jax.Array:
    lo, hi, stride = part.indices(array.shape[axis])
    count = len(range(lo, hi, stride))
    if count == array.shape[axis] and stride == 1:
        return array
    if stride > 0:
        return lax.slice_in_dim(array, lo, lo + count * stride - stride + 1 if count else lo, stride, axis)
    first = lo + (count - 1) * stride  # walked backwards: cut forwards, then turn round
    forward = lax.slice_in_dim(array, first, lo + 1, -stride, axis) if count else lax.slice_in_dim(array, 0, 0, 1, axis)
    return lax.rev(forward, (axis,))


@op("Gather")
def _gather(step: Step, x: Value, indices: Value) -> Tensor:
    x = tensor(x)
    axis = normal_axis(int(step.attr("axis", 0)), x.ndim)
    if isinstance(indices, Tensor):
        return _lookup(x, indices, axis)
    size = x.shape[axis]
    index = host(indices, "indices").astype(np.int64)
    if index.size and (index.min() < -size or index.max() >= size):
        raise ValueError(f"index {index.min()} to {index.max()} is outside an axis of length {size}.")
    index = index % size
    if index.ndim == 0:
        return over_axes(lambda a, axes: lax.index_in_dim(a, int(index), axes[0], keepdims=False), x, (axis,))
    flat = over_axes(lambda a, axes: jnp.take(a, index.reshape(-1).astype(np.int32), axis=axes[0]), x, (axis,))
    return to_shape(flat, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _lookup(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Indices computed from the input (an embedding): one table for all rows."""
    if x.rows:
        raise ValueError("both the data and the indices depend on the input; only lookups in a constant table are supported.")
    chosen = indices.open().astype(jnp.int32)
    out = jnp.take(x.data, chosen % x.shape[axis], axis=axis)
    if not indices.rows:
        return constant(out)
    return rows_of(jnp.moveaxis(out, axis, 0), (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@op("Tile", static=(1,))
def _tile(step: Step, x: Value, repeats: Value) -> Tensor:
    times = integers(repeats, "repeats")
    return over_axes(lambda a, axes: jnp.tile(a, (1,) * (a.ndim - len(times)) + times), tensor(x), range(len(times)))


@op("Pad", static=(1, 2, 3))
def _pad(step: Step, x: Value, pads: Value = None, value: Value = None, axes: Value = None) -> Tensor:
    x = tensor(x)
    flat = tuple(int(p) for p in step.attr("pads", step.attr("paddings", ()))) if pads is None else integers(pads, "pads")
    named = range(x.ndim) if axes is None else integers(axes, "axes")
    widths = {a: (flat[i], flat[i + len(flat) // 2]) for i, a in enumerate(named)}
    widths = {a: w for a, w in widths.items() if w != (0, 0)}
    mode = step.attr("mode", "constant")
    fill = float(step.attr("value", 0.0)) if value is None else float(host(value, "the padding value").reshape(()))

    def run(array: jax.Array, where: tuple[int, ...]) -> jax.Array:
        config = [(0, 0)] * array.ndim
        for axis, width in zip(where, widths.values(), strict=True):
            config[axis] = width
        if mode == "constant":
            return lax.pad(array, np.array(fill, array.dtype), [(lo, hi, 0) for lo, hi in config])
        return jnp.pad(array, config, mode={"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode])

    return over_axes(run, x, tuple(widths)) if widths else x


@op("DepthToSpace", "SpaceToDepth")
def _depth(step: Step, x: Value) -> Tensor:
    """Blocks of pixels to channels and back; `mode` CRD keeps the channel in front of the block."""
    x, k = tensor(x), int(step.attr("blocksize"))
    n, c, h, w = x.shape

    def permuted(inner: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        def move(a: Any, axes: tuple[int, ...]) -> Any:
            return jnp.transpose(a, tuple(range(axes[0])) + tuple(axes[0] + o for o in order))

        return to_shape(over_axes(move, to_shape(x, (n, *inner)), range(1, len(inner) + 1)), shape)

    if step.op == "SpaceToDepth":
        return permuted((c, h // k, k, w // k, k), (2, 4, 0, 1, 3), (n, c * k * k, h // k, w // k))
    if step.attr("mode", "DCR") == "DCR":
        return permuted((k, k, c // k**2, h, w), (2, 3, 0, 4, 1), (n, c // k**2, h * k, w * k))
    return permuted((c // k**2, k, k, h, w), (0, 3, 1, 4, 2), (n, c // k**2, h * k, w * k))
