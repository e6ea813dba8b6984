"""ONNX Resize and Upsample: nearest and linear interpolation, axis by axis, with indices and weights computed while loading."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, host, integers, over_axes, tensor

_ROUND = {
    "round_prefer_floor": lambda c: np.ceil(c - 0.5),
    "round_prefer_ceil": lambda c: np.floor(c + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@op("Upsample", static=(1,))
def _upsample(step: Step, x: Value, scales: Value = None) -> Tensor:
    x = tensor(x)
    factors = [float(s) for s in (step.attr("scales") if scales is None else host(scales, "scales").reshape(-1))]
    sizes = [int(np.floor(n * s)) for n, s in zip(x.shape, factors, strict=True)]
    return _resized(x, sizes, factors, step.attr("mode", "nearest"), "asymmetric", "floor")


@op("Resize", static=(1, 2, 3))
def _resize(step: Step, x: Value, roi: Value = None, scales: Value = None, sizes: Value = None) -> Tensor:
    x = tensor(x)
    if step.opset < 11:
        return _upsample(step, x, roi)  # opset 10 has the scales in second place
    axes = [int(a) % x.ndim for a in step.attr("axes", range(x.ndim))]
    whole, factors = list(x.shape), [1.0] * x.ndim
    if sizes is not None and host(sizes, "sizes").size:
        if step.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise ValueError("keep_aspect_ratio_policy other than 'stretch' is not supported.")
        for axis, n in zip(axes, integers(sizes, "sizes"), strict=True):
            whole[axis], factors[axis] = n, n / x.shape[axis]
    else:
        for axis, s in zip(axes, host(scales, "scales").reshape(-1), strict=True):
            whole[axis], factors[axis] = int(np.floor(x.shape[axis] * float(s))), float(s)
    if step.attr("antialias", 0):
        raise ValueError("antialias=1 is not supported.")
    coordinates = step.attr("coordinate_transformation_mode", "half_pixel")
    return _resized(x, whole, factors, step.attr("mode", "nearest"), coordinates, step.attr("nearest_mode", "round_prefer_floor"))


def _resized(x: Tensor, sizes: Sequence[int], scales: Sequence[float], mode: str, coordinates: str, rounding: str) -> Tensor:
    if mode not in ("nearest", "linear"):
        raise ValueError(f"interpolation mode {mode!r} is not supported; allowed: nearest, linear.")
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        if size == x.shape[axis] and scale == 1.0:
            continue
        where = np.clip(_coordinates(coordinates, size, x.shape[axis], scale), 0, x.shape[axis] - 1)
        if mode == "nearest":
            index = np.clip(_ROUND[rounding](where), 0, x.shape[axis] - 1).astype(np.int32)
            x = over_axes(lambda a, axes, i=index: jnp.take(a, i, axis=axes[0]), x, (axis,))
        else:
            x = over_axes(lambda a, axes, w=where: _mixed(a, axes[0], w), x, (axis,))
    return x


def _coordinates(mode: str, size: int, old: int, scale: float) -> np.ndarray:
    """Where each output entry lies on the input axis."""
    i = np.arange(size, dtype=np.float64)
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * ((old - 1) / (size - 1)) if size > 1 else i * 0
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and size > 1):
        return (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return i * 0
    raise ValueError(
        f"coordinate_transformation_mode {mode!r} is not supported; allowed: half_pixel, pytorch_half_pixel, align_corners, asymmetric."
    )


def _mixed(array: jax.Array, axis: int, where: np.ndarray) -> jax.Array:
    low = np.floor(where).astype(np.int32)
    high = np.minimum(low + 1, array.shape[axis] - 1)
    weight = (where - low).astype(array.dtype).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    return jnp.take(array, low, axis=axis) * (1 - weight) + jnp.take(array, high, axis=axis) * weight
