"""`conv2d`: convolution of NHWC rows on the CPU by a kernel of our own; its input gradient is the same kernel again.

XLA's CPU backend runs the input gradient of a convolution many times slower than its forward, worst inside a loop, and an
attack is a loop of input gradients. `conv2d_twin` is the specification.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_TARGET = "jaxsec_conv2d"
Pads = tuple[tuple[int, int], tuple[int, int]]


def conv2d_twin(x: jax.Array, w: jax.Array, bias: jax.Array, stride: int, pads: Pads, relu: bool) -> jax.Array:
    """`relu?(conv(x, w) + bias)` by XLA. x [N, H, W, C], w [KH, KW, C, O], bias [O] -> [N, H', W', O]; float32."""
    y = lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = y + bias[None, None, None]
    return jax.nn.relu(y) if relu else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def conv2d(x: jax.Array, w: jax.Array, bias: jax.Array, stride: int, pads: Pads, relu: bool) -> jax.Array:
    """As `conv2d_twin`, to float32 rounding; only in programs for the CPU with native code `available()`.

    Guarantee: a row's result does not depend on the other rows or on the batch size, bit for bit.
    Cost: about nine tenths of the processor's arithmetic peak where C x O is large; memory for the output only.
    Edge cases: `vmap` over anything calls the kernel once per element; reverse mode only; ReLU's derivative at 0 is 0.
    """
    (top, bottom), (left, right) = pads
    n, h, wide, _ = x.shape
    kh, kw, _, o = w.shape
    oh, ow = (h + top + bottom - kh) // stride + 1, (wide + left + right - kw) // stride + 1
    return _call(x, _columns(w), _columns(bias), None, (n, oh, ow, o), (oh, ow), stride, (top, left), 1, (0, 0), relu)


def _forward(x, w, bias, stride, pads, relu):
    y = conv2d(x, w, bias, stride, pads, relu)
    return y, (x, w, bias, y if relu else None)


def _backward(stride, pads, relu, saved, g):
    x, w, bias, y = saved
    dx = _input_gradient(g, w, y, x.shape, stride, pads)

    def weights(w: jax.Array, bias: jax.Array) -> jax.Array:
        return conv2d_twin(x, w, bias, stride, pads, False)

    gated = g if y is None else jnp.where(y > 0, g, 0.0)
    # attacks never ask for these two, and jit removes what nobody asks for
    dw, db = jax.vjp(weights, w, bias)[1](gated)
    return dx, dw, db


conv2d.defvjp(_forward, _backward)


def _input_gradient(g: jax.Array, w: jax.Array, y: jax.Array | None, shape: tuple[int, ...], stride: int, pads: Pads) -> jax.Array:
    """The gradient with respect to x as a forward convolution of g that writes `phase` x `phase` pixels per position.

    With u + pad = phase * A + r (phase a multiple of the stride s) and kernel tap i = r - s * d, where d runs over the taps of
    the new kernel, dx[u] = sum_d g[(phase / s) * A + d] * w[r - s * d]. A phase above s widens the output where C is small,
    so that vector lanes are not idle.
    """
    (top, _), (left, _) = pads
    _, h, wide, c = shape
    kh, kw, _, o = w.shape

    def cost(phase: int) -> int:
        positions = math.ceil((h + top) / phase) * math.ceil((wide + left) / phase)
        return positions * len(_taps(kh, stride, phase)) * len(_taps(kw, stride, phase)) * -(-phase * phase * c // 16)

    phase = min((stride * m for m in range(1, 9)), key=cost)
    rows, cols = _taps(kh, stride, phase), _taps(kw, stride, phase)
    new = jnp.einsum("tri,uqj,ijco->tuorqc", rows, cols, w, precision=lax.Precision.HIGHEST)
    new = _columns(new.reshape(len(rows), len(cols), o, phase * phase * c))
    positions = (-(-(h + top) // phase), -(-(wide + left) // phase))
    pad = ((kh - 1) // stride, (kw - 1) // stride)
    zero = jnp.zeros(new.shape[-1], jnp.float32)
    return _call(g, new, zero, y, shape, positions, phase // stride, pad, phase, (top, left), False)


@functools.cache
def _taps(k: int, stride: int, phase: int) -> np.ndarray:
    """[taps, phase, k] of 0 and 1: tap t reaches pixel r of a block through kernel entry r - stride * (t + first)."""
    first, last = -((k - 1) // stride), (phase - 1) // stride
    t, r, i = np.ogrid[first : last + 1, :phase, :k]
    return (r - stride * t == i).astype(np.float32)


def _columns(a: jax.Array) -> jax.Array:
    """The last axis padded to the kernel's multiple of 16."""
    extra = -a.shape[-1] % 16
    return jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, extra)]) if extra else a


def _call(x, w, bias, gate, out, positions, stride, pad, phase, crop, relu):
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(out, jnp.float32), vmap_method="sequential")
    names = ("oh", "ow", "stride", "pad_top", "pad_left", "phase", "crop_top", "crop_left")
    numbers = {k: np.int64(v) for k, v in zip(names, (*positions, stride, *pad, phase, *crop), strict=True)}
    return call(x, w, bias, jnp.zeros(0, jnp.float32) if gate is None else gate, **numbers, relu=bool(relu))
