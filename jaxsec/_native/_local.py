"""Local convolutions: what a change inside a window of each image does to the outputs of convolutions, and only that.

csrc/include/jaxsec/local_conv2d.h states the operations in formulas. The twins compute the whole outputs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._conv import Pads, conv2d_twin
from ._conv_call import padded_columns
from ._load import status


class Images(NamedTuple):
    """Images [N, H, W, C] that are `fresh` inside a window and `base` elsewhere; window [N, 4] int32: top, bottom, left, right, the
    ends excluded; empty where top >= bottom or left >= right."""

    base: jax.Array
    fresh: jax.Array
    window: jax.Array

    def merged(self) -> jax.Array:
        """The images."""
        return jnp.where(inside(self.window, self.base.shape), self.fresh, self.base)


class Stage(NamedTuple):
    """A convolution and its remembered output `base` [N, H', W', O]. w [KH, KW, C, O]; or [H', 1, W, C, O], weights of their own for
    each line of the images: the sums over lines of a dense layer."""

    base: jax.Array
    w: jax.Array
    bias: jax.Array
    stride: int = 1
    pads: Pads = ((0, 0), (0, 0))
    relu: bool = False

    @property
    def lines(self) -> bool:
        return self.w.ndim == 5

    def output(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """[N, H', W', O] for images of `shape`."""
        kh, kw, _, o = self.w.shape[-4:]
        sizes = [(n + sum(p) - k) // self.stride + 1 for n, p, k in zip(shape[1:3], self.pads, (kh, kw), strict=True)]
        return (shape[0], *sizes, o)


def inside(window: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[N, H, W, 1] bool: the positions of a window, for images [N, H, W, C]."""
    top, bottom, left, right = (window[:, i, None, None, None] for i in range(4))
    r, q = jnp.arange(shape[1])[None, :, None, None], jnp.arange(shape[2])[None, None, :, None]
    return (r >= top) & (r < bottom) & (q >= left) & (q < right)


def reach(
    window: jax.Array, size: tuple[int, int], taps: tuple[int, int], stride: int, pads: Pads, positions: tuple[int, int]
) -> jax.Array:
    """[N, 4] int32: the window of the output positions that read a window of the input (of height and width `size`).

    A window that ends at a border has the positions beyond it, which read padding only: so a whole image reaches everything. An
    empty one reaches nothing.

    Example:
      >>> reach(jnp.array([[2, 4, 0, 1]]), (8, 8), (3, 3), 1, ((0, 0), (0, 0)), (6, 6)).tolist()
      [[0, 4, 0, 1]]
    """
    ends = []
    for axis, (n, k, (pad, _), count) in enumerate(zip(size, taps, pads, positions, strict=True)):
        begin, end = window[:, 2 * axis], window[:, 2 * axis + 1]
        ends.append(jnp.where(begin <= 0, 0, jnp.maximum((begin + (pad - k + stride)) // stride, 0)))
        ends.append(jnp.where(end >= n, count, jnp.minimum((end - 1 + pad) // stride + 1, count)))
    empty = (window[:, 0] >= window[:, 1]) | (window[:, 2] >= window[:, 3])
    return jnp.where(empty[:, None], 0, jnp.stack(ends, axis=1)).astype(jnp.int32)


def local_chain(x: Images, stages: Sequence[Stage]) -> tuple[list[Images], jax.Array]:
    """Convolutions one after the other: the output of each, `fresh` only where the window reaches, anything elsewhere; and [N, O], the
    last output's lines added one after the other, if its weights are those of lines (else of no meaning).

    Guarantee: a value inside the window is the same bits, whatever the window and the batch.
    Cost: native, in proportion to the positions reached; else the whole convolutions. float32, not differentiable.
    """
    settings = [(s.stride, s.pads, s.relu) for s in stages]

    def rebuilt(arrays: list[tuple[jax.Array, jax.Array, jax.Array]]) -> list[Stage]:
        return [Stage(*a, *rest) for a, rest in zip(arrays, settings, strict=True)]

    found, total = lax.platform_dependent(
        x,
        [s[:3] for s in stages],
        cpu=lambda x, arrays: _native_chain(x, rebuilt(arrays)),
        default=lambda x, arrays: chain_twin(x, rebuilt(arrays)),
    )
    return [Images(s.base, fresh, window) for s, (fresh, window) in zip(stages, found, strict=True)], total


def chain_twin(x: Images, stages: Sequence[Stage]) -> tuple[list[tuple[jax.Array, jax.Array]], jax.Array]:
    """`local_chain` in JAX: (fresh, window) of each output, and the sum."""
    found = []
    for s in stages:
        whole, (_, h, wide, _), (kh, kw) = x.merged(), s.output(x.base.shape), s.w.shape[-4:-2]
        if s.lines:
            y = jnp.einsum("nhwc,hiwco->nho", whole, s.w, precision=lax.Precision.HIGHEST)[:, :, None] + s.bias[None, None, None]
        else:
            y = conv2d_twin(whole, s.w, s.bias, s.stride, s.pads, s.relu)
        x = Images(s.base, y, reach(x.window, (whole.shape[1], whole.shape[2]), (kh, kw), s.stride, s.pads, (h, wide)))
        found.append((x.fresh, x.window))
    lines = x.merged()[:, :, 0]
    total = lines[:, 0]
    for k in range(1, lines.shape[1] if stages[-1].lines else 1):
        total = total + lines[:, k]
    return found, total


def _native_chain(x: Images, stages: Sequence[Stage]) -> tuple[list[tuple[jax.Array, jax.Array]], jax.Array]:
    status()  # registers the target: an executable from the persistent cache asks for it as well
    n, results, operands = x.base.shape[0], [], []
    for s in stages:
        results += [jax.ShapeDtypeStruct(s.base.shape, jnp.float32), jax.ShapeDtypeStruct((n, 4), jnp.int32)]
        operands += [s.base, padded_columns(s.w), padded_columns(s.bias)]
    if stages[-1].lines:
        results.append(jax.ShapeDtypeStruct((n, stages[-1].w.shape[-1]), jnp.float32))
    numbers = {
        "stride": [s.stride for s in stages],
        "pad_top": [s.pads[0][0] for s in stages],
        "pad_left": [s.pads[1][0] for s in stages],
        "relu": [s.relu for s in stages],
    }
    call = jax.ffi.ffi_call("jaxsec_local_chain", results, vmap_method="sequential")
    out = call(*x, *operands, **{k: np.asarray(v, np.int64) for k, v in numbers.items()})
    pairs = list(zip(out[0 : 2 * len(stages) : 2], out[1 : 2 * len(stages) : 2], strict=True))
    return pairs, out[-1] if stages[-1].lines else jnp.zeros((n, stages[-1].w.shape[-1]), jnp.float32)


def settle(images: Sequence[Images], accept: jax.Array) -> tuple[jax.Array, ...]:
    """Each images' merged rows where `accept` [N], their `base` elsewhere; native, in place where XLA may overwrite `base`."""
    return lax.platform_dependent(tuple(images), accept, cpu=_native_settle, default=settle_twin)


def settle_twin(images: Sequence[Images], accept: jax.Array) -> tuple[jax.Array, ...]:
    """`settle` in JAX."""
    return tuple(jnp.where(accept[:, None, None, None], x.merged(), x.base) for x in images)


def _native_settle(images: Sequence[Images], accept: jax.Array) -> tuple[jax.Array, ...]:
    status()
    results = [jax.ShapeDtypeStruct(x.base.shape, jnp.float32) for x in images]
    aliases = {1 + 3 * i: i for i in range(len(images))}
    call = jax.ffi.ffi_call("jaxsec_settle", results, vmap_method="sequential", input_output_aliases=aliases)
    return tuple(call(accept, *(a for x in images for a in x)))
