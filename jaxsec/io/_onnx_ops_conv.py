"""ONNX convolutions and pools, as `conv_general_dilated` in NCHW and `reduce_window`, the forms that `core` knows how to speed up."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, merged, tensor

_SPATIAL = "HWDUV"


def _dimensions(n: int) -> tuple[str, str, str]:
    space = _SPATIAL[:n]
    return "NC" + space, "OI" + space, "NC" + space


def _pads(
    step: Step, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding (before, after) of each spatial axis from `pads` or `auto_pad`."""
    n, auto = len(size), step.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        flat = [int(p) for p in step.attr("pads", [0] * (2 * n))]
        if len(flat) != 2 * n or min(flat) < 0:
            raise ValueError(f"pads is {flat}; {2 * n} numbers of at least 0 are needed: all begins, then all ends.")
        return list(zip(flat[:n], flat[n:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * n
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad is {auto!r}; allowed: NOTSET, VALID, SAME_UPPER, SAME_LOWER.")
    pads = []
    for s, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-s // stride) - 1) * stride + (k - 1) * dilation + 1 - s, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return pads


def _per_axis(step: Step, name: str, n: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in step.attr(name, [1] * n))
    if len(values) != n or min(values, default=1) < 1:
        raise ValueError(f"{name} is {values}; {n} numbers of at least 1 are needed.")
    return values


def _weights(w: Value, b: Value) -> tuple[Any, Any]:
    w = tensor(w)
    bias = None if b is None else tensor(b)
    if w.rows or (bias is not None and bias.rows):
        raise ValueError("convolution weights that depend on the input are not supported.")
    return w.data, None if bias is None else bias.data


def _biased(out: jax.Array, bias: Any) -> jax.Array:
    return out if bias is None else out + jnp.reshape(bias, (1, -1, *[1] * (out.ndim - 2)))


@op("Conv")
def _conv(step: Step, x: Value, w: Value, b: Value = None) -> Tensor:
    weight, bias = _weights(w, b)
    n = weight.ndim - 2
    strides, dilations = _per_axis(step, "strides", n), _per_axis(step, "dilations", n)

    def run(array: jax.Array) -> jax.Array:
        pads = _pads(step, array.shape[2:], weight.shape[2:], strides, dilations)
        out = lax.conv_general_dilated(
            array, weight, strides, pads, rhs_dilation=dilations,
            dimension_numbers=_dimensions(n), feature_group_count=int(step.attr("group", 1)),
        )  # fmt: skip
        return _biased(out, bias)

    return merged(run, tensor(x))


@op("ConvTranspose")
def _conv_transpose(step: Step, x: Value, w: Value, b: Value = None) -> Tensor:
    """The input-gradient of a convolution: input dilated by the strides, kernel flipped, in and out channels of each group swapped."""
    weight, bias = _weights(w, b)
    n, group = weight.ndim - 2, int(step.attr("group", 1))
    strides, dilations = _per_axis(step, "strides", n), _per_axis(step, "dilations", n)
    extra = tuple(int(v) for v in step.attr("output_padding", [0] * n))
    c_in, c_out = weight.shape[:2]
    kernel = jnp.flip(weight, tuple(range(2, n + 2)))
    kernel = jnp.reshape(kernel, (group, c_in // group, c_out, *weight.shape[2:]))
    kernel = jnp.reshape(jnp.swapaxes(kernel, 1, 2), (group * c_out, c_in // group, *weight.shape[2:]))
    span = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]

    def run(array: jax.Array) -> jax.Array:
        size = array.shape[2:]
        full = [s * (i - 1) + e + k for s, i, e, k in zip(strides, size, extra, span, strict=True)]
        wanted, auto = step.attr("output_shape"), step.attr("auto_pad", "NOTSET")
        if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
            wanted = [i * s for i, s in zip(size, strides, strict=True)]
        if wanted is not None:
            totals = [f - int(v) for f, v in zip(full, list(wanted)[-n:], strict=True)]
            halves = [t // 2 for t in totals]
            pads = [(h, t - h) if auto == "SAME_UPPER" else (t - h, h) for h, t in zip(halves, totals, strict=True)]
        else:
            pads = _pads(step, size, weight.shape[2:], strides, dilations)
        inner = [(k - 1 - p[0], k - 1 - p[1] + e) for k, p, e in zip(span, pads, extra, strict=True)]
        out = lax.conv_general_dilated(
            array, kernel, (1,) * n, inner, lhs_dilation=strides, rhs_dilation=dilations,
            dimension_numbers=_dimensions(n), feature_group_count=group,
        )  # fmt: skip
        return _biased(out, bias)

    return merged(run, tensor(x))


def _windows(step: Step, size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[tuple[int, int]], list[int]]:
    """Kernel, strides, dilations, pads, and how far each axis is extended behind its padding by `ceil_mode`."""
    n = len(size)
    kernel = tuple(int(k) for k in step.attr("kernel_shape"))
    strides, dilations = _per_axis(step, "strides", n), _per_axis(step, "dilations", n)
    pads = _pads(step, size, kernel, strides, dilations)
    more = [0] * n
    if step.attr("ceil_mode", 0):
        for i in range(n):
            span = (kernel[i] - 1) * dilations[i] + 1
            outputs = math.ceil((size[i] + sum(pads[i]) - span) / strides[i]) + 1
            if (outputs - 1) * strides[i] >= size[i] + pads[i][0]:
                outputs -= 1  # a window that would start behind the input is left out
            more[i] = max((outputs - 1) * strides[i] + span - size[i] - sum(pads[i]), 0)
    return kernel, strides, dilations, pads, more


@op("MaxPool")
def _max_pool(step: Step, x: Value) -> Tensor:
    if len(step.outputs) > 1:
        raise ValueError("the Indices output of MaxPool is not supported.")

    def run(array: jax.Array) -> jax.Array:
        kernel, strides, dilations, pads, more = _windows(step, array.shape[2:])
        padding = [(0, 0), (0, 0), *((lo, hi + e) for (lo, hi), e in zip(pads, more, strict=True))]
        lowest = np.array(-np.inf, array.dtype)
        return lax.reduce_window(array, lowest, lax.max, (1, 1, *kernel), (1, 1, *strides), padding, window_dilation=(1, 1, *dilations))

    return merged(run, tensor(x))


@op("AveragePool")
def _average_pool(step: Step, x: Value) -> Tensor:
    def run(array: jax.Array) -> jax.Array:
        kernel, strides, dilations, pads, more = _windows(step, array.shape[2:])
        padding = [(0, 0), (0, 0), *((lo, hi + e) for (lo, hi), e in zip(pads, more, strict=True))]
        zero = np.array(0, array.dtype)
        total = lax.reduce_window(array, zero, lax.add, (1, 1, *kernel), (1, 1, *strides), padding, window_dilation=(1, 1, *dilations))
        counts = np.ones((), np.float32)
        for i, size in enumerate(array.shape[2:]):
            starts = np.arange(total.shape[2 + i]) * strides[i]
            taps = starts[:, None] + np.arange(kernel[i]) * dilations[i]
            lo, hi = pads[i]
            # What ceil_mode adds behind the padding never counts.
            inside = taps < size + lo + hi if step.attr("count_include_pad", 0) else (taps >= lo) & (taps < lo + size)
            counts = counts[..., None] * inside.sum(1).astype(np.float32)
        if (counts == counts.flat[0]).all():
            return total * np.array(1.0 / counts.flat[0], array.dtype)
        return total * (1.0 / counts).astype(array.dtype)[None, None]

    return merged(run, tensor(x))


@op("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(step: Step, x: Value) -> Tensor:
    reduce = jnp.mean if step.op == "GlobalAveragePool" else jnp.max
    return merged(lambda array: reduce(array, axis=tuple(range(2, array.ndim)), keepdims=True), tensor(x))
