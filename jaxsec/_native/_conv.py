"""`conv2d`: convolution of NHWC rows on the CPU by a kernel of our own; its gradient in the input is the same kernel again.

XLA's CPU backend runs the input gradient of a convolution many times slower than its forward, worst inside a loop, and an
attack is a loop of input gradients. Written as a forward convolution the gradient is fast with XLA too, so the twin has it.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._conv_call import Plan, column_padded, convolve
from ._conv_weights import weight_gradient

Pads = tuple[tuple[int, int], tuple[int, int]]


def conv2d_twin(x: jax.Array, w: jax.Array, bias: jax.Array, stride: int, pads: Pads, relu: bool) -> jax.Array:
    """`relu?(conv(x, w) + bias)` by XLA. x [N, H, W, C], w [KH, KW, C, O], bias [O] -> [N, H', W', O]; float32."""
    y = lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = y + bias[None, None, None]
    return jax.nn.relu(y) if relu else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def conv2d(x: jax.Array, w: jax.Array, bias: jax.Array, stride: int, pads: Pads, relu: bool = False, native: bool = True) -> jax.Array:
    """As `conv2d_twin`, to float32 rounding, with an input gradient that is fast on CPUs.

    Guarantee: with `native` a row's result does not depend on the other rows or on the batch size, bit for bit; ReLU's
    derivative at 0 is 0; gradients of any order, with `native` by kernels.
    Args: x [N, H, W, C], w [KH, KW, C, O], bias [O], float32; the same stride both ways; pads >= 0; native: by the compiled
      kernel (only in programs for the CPU with native code `available()`), else by XLA.
    Raises: TypeError under forward-mode differentiation (`jax.jvp`), as every `custom_vjp` function.
    Cost: native, about nine tenths of the processor's arithmetic peak where C x O is large; memory for the output only.
      `vmap` over x adds to the batch; over w or bias the kernel runs once per element.
    """
    (top, bottom), (left, right) = pads
    _, h, wide, _ = x.shape
    kh, kw, _, o = w.shape
    oh, ow = (h + top + bottom - kh) // stride + 1, (wide + left + right - kw) // stride + 1
    plan = Plan(positions=(oh, ow), stride=stride, pad=(top, left), phase=1, crop=(0, 0), out=(oh, ow, o), relu=relu)
    return convolve(plan, native, x, w, bias)


def _forward(x, w, bias, stride, pads, relu, native):
    y = conv2d(x, w, bias, stride, pads, relu, native)
    return y, (x, w, bias, y if relu else None)


def _backward(stride, pads, relu, native, saved, g):
    x, w, _, y = saved
    # attacks never ask for these two, and jit removes what nobody asks for
    weights: Any = _weight_gradient(x, g, y, w.shape, stride, pads, native)
    return _input_gradient(g, w, y, x.shape, stride, pads, native), *weights


conv2d.defvjp(_forward, _backward)


def _gated(g: jax.Array, y: jax.Array | None) -> jax.Array:
    return g if y is None else jnp.where(y > 0, g, 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _input_gradient(
    g: jax.Array, w: jax.Array, y: jax.Array | None, shape: tuple[int, ...], stride: int, pads: Pads, native: bool
) -> jax.Array:
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
        return positions * len(_taps(kh, stride, phase)) * len(_taps(kw, stride, phase)) * column_padded(phase * phase * c)

    phase = min((stride * m for m in range(1, 9)), key=cost) if native else stride
    rows, cols = _taps(kh, stride, phase), _taps(kw, stride, phase)
    new = jnp.einsum("tri,uqj,ijco->tuorqc", rows, cols, w, precision=lax.Precision.HIGHEST)
    new = new.reshape(len(rows), len(cols), o, phase * phase * c)
    plan = Plan(
        positions=(-(-(h + top) // phase), -(-(wide + left) // phase)),
        stride=phase // stride,
        pad=((kh - 1) // stride, (kw - 1) // stride),
        phase=phase,
        crop=(top, left),
        out=(h, wide, c),
        relu=False,
    )
    return convolve(plan, native, g, new, jnp.zeros(new.shape[-1], jnp.float32), y)


def _input_gradient_forward(g, w, y, shape, stride, pads, native):
    return _input_gradient(g, w, y, shape, stride, pads, native), (g, w, y)


def _input_gradient_backward(shape, stride, pads, native, saved, t):
    """Second order (a penalty on input gradients): linear in g and in w, and flat in y almost everywhere."""
    g, w, y = saved
    bias = jnp.zeros(w.shape[-1], jnp.float32)
    dg = _gated(conv2d(t, w, bias, stride, pads, False, native), y)
    weights: Any = _weight_gradient(t, g, y, w.shape, stride, pads, native)
    return dg, weights[0], None if y is None else jnp.zeros_like(y)


_input_gradient.defvjp(_input_gradient_forward, _input_gradient_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _weight_gradient(
    x: jax.Array, g: jax.Array, y: jax.Array | None, shape: tuple[int, ...], stride: int, pads: Pads, native: bool
) -> tuple[jax.Array, jax.Array]:
    """(of the weights [KH, KW, C, O], of the bias [O])."""
    if native and x.size and g.size:
        return weight_gradient(x, g, y, (shape[0], shape[1]), stride, (pads[0][0], pads[1][0]))
    zeros = jnp.zeros(shape, jnp.float32), jnp.zeros(shape[-1], jnp.float32)
    return jax.vjp(lambda w, bias: conv2d_twin(x, w, bias, stride, pads, False), *zeros)[1](_gated(g, y))


def _weight_gradient_forward(x, g, y, shape, stride, pads, native):
    return _weight_gradient(x, g, y, shape, stride, pads, native), (x, g, y)


def _weight_gradient_backward(shape, stride, pads, native, saved, t):
    """Linear in x and in g: a convolution with the cotangents as weights and bias, and its input gradient."""
    x, g, y = saved
    dg = _gated(conv2d(x, *t, stride, pads, False, native), y)
    return _input_gradient(g, t[0], y, x.shape, stride, pads, native), dg, None if y is None else jnp.zeros_like(y)


_weight_gradient.defvjp(_weight_gradient_forward, _weight_gradient_backward)


@functools.cache
def _taps(k: int, stride: int, phase: int) -> np.ndarray:
    """[taps, phase, k] of 0 and 1: tap t reaches pixel r of a block through kernel entry r - stride * (t + first)."""
    first, last = -((k - 1) // stride), (phase - 1) // stride
    t, r, i = np.ogrid[first : last + 1, :phase, :k]
    return (r - stride * t == i).astype(np.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dense(x: jax.Array, w: jax.Array, native: bool = True, axis: int = 0) -> jax.Array:
    """`x @ w` for rows x [N, K], w [K, O], float32; with `axis` 1, `x @ w.T` for w [O, K], whose gradient is made as w lies in memory.

    Guarantee: with `native`, a row's bits do not depend on the batch.
    Cost: as XLA's product. Reverse mode only; the gradient in x is a `dense` too, the one in w is XLA's.
    """
    w = w.T if axis else w
    if not native:
        return jnp.matmul(x, w, precision=lax.Precision.HIGHEST)
    plan = Plan(positions=(1, 1), stride=1, pad=(0, 0), phase=1, crop=(0, 0), out=(1, 1, w.shape[1]), relu=False)
    return convolve(plan, True, x[:, None, None], w[None, None], jnp.zeros(w.shape[1], jnp.float32))[:, 0, 0]


def _dense_forward(x, w, native, axis):
    return dense(x, w, native, axis), (x, w)


def _dense_backward(native, axis, saved, g):
    x, w = saved
    left, right = (g, x) if axis else (x, g)
    return dense(g, w, native, 1 - axis), jnp.matmul(left.T, right, precision=lax.Precision.HIGHEST)


dense.defvjp(_dense_forward, _dense_backward)
