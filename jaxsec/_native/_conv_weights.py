"""A convolution's gradient in its weights, by a kernel of our own on the CPU: XLA's transposes all activations for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ._conv_call import one_by_one
from ._load import status

_TARGET = "jaxsec_conv2d_weights"


def weight_gradient(
    x: jax.Array, g: jax.Array, gate: jax.Array | None, taps: tuple[int, int], stride: int, pad: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """What `conv2d`'s weights and bias get of `g`, read as 0 where `gate` <= 0 as in csrc/include/jaxsec/conv2d_weights.h.

    Returns: [KH, KW, C, O] and [O]. Guarantee: the bits do not depend on the number of threads. Its derivatives are written in `_conv`.
    Args: x [N, H, W, C], g and gate [N, H', W', O], float32; taps: (KH, KW); pad: (top, left).
    Cost: three quarters of the forward kernel's speed, or more, where C x O is large. Under `vmap` once per element.
    """
    return _call(taps, stride, pad)(x, g, jnp.zeros(0, jnp.float32) if gate is None else gate)


@functools.cache
def _call(taps: tuple[int, int], stride: int, pad: tuple[int, int]):
    @jax.custom_batching.custom_vmap
    def call(x: jax.Array, g: jax.Array, gate: jax.Array) -> tuple[jax.Array, jax.Array]:
        status()  # registers the target: an executable from the persistent cache asks for it as well
        o = g.shape[-1]
        results = (jax.ShapeDtypeStruct((*taps, x.shape[-1], o), jnp.float32), jax.ShapeDtypeStruct((o,), jnp.float32))
        numbers = {k: np.int64(v) for k, v in zip(("stride", "pad_top", "pad_left"), (stride, *pad), strict=True)}
        dw, db = jax.ffi.ffi_call(_TARGET, results, vmap_method="sequential")(x, g, gate, **numbers)
        return dw, db

    @call.def_vmap
    def batched(size: int, mapped: list[bool], *args: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[bool, bool]]:
        return one_by_one(call, mapped, args), (True, True)

    return call
