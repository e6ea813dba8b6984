"""The one call behind `conv2d`: a convolution that may gate its input, deal columns out as pixels, and rectify.

The compiled target and its twin compute the same function; csrc/include/jaxsec/conv2d.h states it in formulas.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._load import status

_TARGET = "jaxsec_conv2d"
_COLUMNS = 16  # the kernel's vector of output columns


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is static in a call. `out` is (height, width, channels) of the result, after dealing and cropping."""

    positions: tuple[int, int]
    stride: int
    pad: tuple[int, int]
    phase: int
    crop: tuple[int, int]
    out: tuple[int, int, int]
    relu: bool


def convolve(plan: Plan, native: bool, x: jax.Array, w: jax.Array, bias: jax.Array, gate: jax.Array | None = None) -> jax.Array:
    """x [N, H, W, C], read as 0 where `gate` <= 0; w [KH, KW, C, phase * phase * channels]; bias. -> [N, *plan.out]."""
    gate = jnp.zeros(0, jnp.float32) if gate is None else gate
    return _native(plan)(x, w, bias, gate) if native else _twin(plan, x, w, bias, gate)


def column_padded(n: int) -> int:
    """The number of columns the kernel computes for `n` wanted ones."""
    return -(-n // _COLUMNS) * _COLUMNS


def _twin(plan: Plan, x: jax.Array, w: jax.Array, bias: jax.Array, gate: jax.Array) -> jax.Array:
    if gate.ndim == x.ndim:
        x = jnp.where(gate > 0, x, 0.0)
    pads = []
    for size, k, count, before in zip(x.shape[1:3], w.shape[:2], plan.positions, plan.pad, strict=True):
        pads.append((before, (count - 1) * plan.stride + k - size - before))  # below 0 cuts rows that no position reads
    y = lax.conv_general_dilated(x, w, (plan.stride,) * 2, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = y + bias[None, None, None]
    (a, b), p, (h, wide, c) = plan.positions, plan.phase, plan.out
    if p > 1:
        y = y.reshape(-1, a, b, p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(-1, a * p, b * p, c)
    y = y[:, plan.crop[0] : plan.crop[0] + h, plan.crop[1] : plan.crop[1] + wide]
    return jax.nn.relu(y) if plan.relu else y


def one_by_one(call: Callable[..., Any], mapped: Sequence[bool], args: Sequence[jax.Array]) -> Any:
    """`call` of each element of the arguments that are mapped, with the others as they are."""
    given = [a if m else None for a, m in zip(args, mapped, strict=True)]
    return lax.map(lambda parts: call(*(whole if part is None else part for part, whole in zip(parts, args, strict=True))), given)


@functools.cache
def _native(plan: Plan) -> Callable[..., jax.Array]:
    """The compiled call with a `vmap` rule: batched images join the batch, anything else runs one by one."""

    @jax.custom_batching.custom_vmap
    def call(x: jax.Array, w: jax.Array, bias: jax.Array, gate: jax.Array) -> jax.Array:
        return _ffi(plan, x, w, bias, gate)

    @call.def_vmap
    def batched(size: int, mapped: list[bool], x: jax.Array, w: jax.Array, bias: jax.Array, gate: jax.Array) -> tuple[jax.Array, bool]:
        x_mapped, w_mapped, bias_mapped, gate_mapped = mapped
        if w_mapped or bias_mapped:
            return one_by_one(call, mapped, (x, w, bias, gate)), True
        gated = gate.ndim - gate_mapped == x.ndim - x_mapped

        def joined(a: jax.Array, is_mapped: bool) -> jax.Array:
            a = a if is_mapped else jnp.broadcast_to(a, (size, *a.shape))
            return a.reshape(-1, *a.shape[2:])

        y = call(joined(x, x_mapped), w, bias, joined(gate, gate_mapped) if gated else jnp.zeros(0, jnp.float32))
        return y.reshape(size, -1, *y.shape[1:]), True

    return call


def _ffi(plan: Plan, x: jax.Array, w: jax.Array, bias: jax.Array, gate: jax.Array) -> jax.Array:
    status()  # registers the target: an executable from the persistent cache asks for it as well
    result = jax.ShapeDtypeStruct((x.shape[0], *plan.out), jnp.float32)
    call = jax.ffi.ffi_call(_TARGET, result, vmap_method="sequential")
    names = ("oh", "ow", "stride", "pad_top", "pad_left", "phase", "crop_top", "crop_left")
    values = (*plan.positions, plan.stride, *plan.pad, plan.phase, *plan.crop)
    numbers = {k: np.int64(v) for k, v in zip(names, values, strict=True)}
    return call(x, padded_columns(w), padded_columns(bias), gate, **numbers, relu=plan.relu)


def padded_columns(a: jax.Array) -> jax.Array:
    """The last axis filled with zeros to whole vectors."""
    extra = column_padded(a.shape[-1]) - a.shape[-1]
    padded = jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, extra)]) if extra else a
    return lax.optimization_barrier(padded)  # else XLA takes a transposition into the loop, where it is made at every step
