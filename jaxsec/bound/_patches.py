"""Forms that live on a patch: a convolution's neuron sees a small window, so its form is zero outside, and is kept as the window only.

Every form of a batch has a place `p` (the neuron's, traced); at a node the window starts at `stride * p + offset` and has `size`
elements along each spatial axis. Stride, offset and size are static and follow from the convolutions passed. Window arrays are
`[S, channels, *size]`, whatever the node's own axis order; parts that stick out of the node's array are zero.

Source: the idea of Xu et al. 2020 (auto_LiRPA's patches mode); the arithmetic is our own.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._nodes import Contract

# A window transposed as one matrix product while the matrix stays below this many entries; beyond, as a convolution.
_DENSE_ENTRIES = 1 << 18


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which axes of a node's array are the batch (of size 1), the channels and the spatial ones, and how long the latter are."""

    batch: int
    channel: int
    spatial: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        return (self.batch, self.channel, *self.spatial)

    @property
    def extent(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.spatial)

    def canonical(self, v: Any) -> jax.Array:
        """[channels, *extent] of an array that broadcasts to the node's shape."""
        return jnp.transpose(jnp.broadcast_to(v, self.shape), self.order)[0]


@dataclasses.dataclass(frozen=True)
class Patch:
    """Forms on windows. `a` [S, channels, *size]; `place` [S, spatial axes] int32."""

    a: jax.Array
    place: jax.Array
    stride: tuple[int, ...]
    offset: tuple[int, ...]
    layout: Layout
    places: tuple[int, ...]  # how many places there are along each axis: the extent of the node where the forms began

    @property
    def size(self) -> tuple[int, ...]:
        return self.a.shape[2:]

    def positions(self) -> list[jax.Array]:
        """Per spatial axis the rows of the node's array that the window covers: [S, size]."""
        found = []
        for axis, (s, o, k) in enumerate(zip(self.stride, self.offset, self.size, strict=True)):
            found.append(self.place[:, axis, None] * s + o + jnp.arange(k))
        return found

    def inside(self) -> jax.Array:
        """[S, 1, *size]: the part of the window that is in the array."""
        mask = jnp.ones((), bool)
        for axis, (rows, n) in enumerate(zip(self.positions(), self.layout.extent, strict=True)):
            ok = (rows >= 0) & (rows < n)
            mask = mask & ok.reshape(len(ok), 1, *(1 if i != axis else -1 for i in range(len(self.size))))
        return mask

    def window(self, v: Any) -> jax.Array:
        """[S, channels, *size] of an array that broadcasts to the node's shape; zero outside. A single number stays one."""
        if jnp.ndim(v) == 0:
            return v
        v = self.layout.canonical(v)
        lowest = [min(0, o) for o in self.offset]
        furthest = [s * (n - 1) + o + k for s, o, k, n in zip(self.stride, self.offset, self.size, self.places, strict=True)]
        pads = [(-a, max(0, b - n)) for a, b, n in zip(lowest, furthest, self.layout.extent, strict=True)]
        v = jnp.pad(v, [(0, 0), *pads])
        starts = self.place * jnp.asarray(self.stride) + jnp.asarray([o - a for o, a in zip(self.offset, lowest, strict=True)])

        def one(start: jax.Array) -> jax.Array:
            return lax.dynamic_slice(v, (0, *start), (v.shape[0], *self.size))

        return jax.vmap(one)(starts)

    def replaced(self, a: jax.Array, **changes: Any) -> "Patch":
        return dataclasses.replace(self, a=a, **changes)

    def dense(self) -> jax.Array:
        """[S, *node's shape]."""
        n = len(self.size)
        out = self.a
        for axis, (s, o, k) in enumerate(zip(self.stride, self.offset, self.size, strict=True)):
            extent = self.layout.extent[axis]
            rows = jnp.arange(extent)[None] - (self.place[:, axis, None] * s + o)  # [S, extent] where in the window
            hit = (rows[..., None] == jnp.arange(k)).astype(out.dtype)  # [S, extent, k]
            moved = jnp.moveaxis(out, 2 + axis, -1)
            moved = jnp.einsum("s...k,sek->s...e", moved, hit, precision=lax.Precision.HIGHEST)
            out = jnp.moveaxis(moved, -1, 2 + axis)
        assert out.ndim == n + 2
        return jnp.transpose(out[:, None], (0, *(1 + i for i in np.argsort(self.layout.order))))

    def worth_it(self) -> bool:
        """The window is less than half of the array."""
        return math.prod(self.size) * 2 <= math.prod(self.layout.extent)

    def __add__(self, other: "Patch") -> "Patch":
        """Two windows on one node, each padded to their common one."""
        assert self.stride == other.stride
        starts = [min(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        ends = [max(o + k, p + m) for o, k, p, m in zip(self.offset, self.size, other.offset, other.size, strict=True)]

        def grown(p: Patch) -> jax.Array:
            pads = [(o - s, e - o - k) for o, k, s, e in zip(p.offset, p.size, starts, ends, strict=True)]
            return jnp.pad(p.a, [(0, 0), (0, 0), *pads])

        return self.replaced(grown(self) + grown(other), offset=tuple(starts))


def layouts(node: Contract) -> tuple[Layout, Layout] | None:
    """(input's, output's) of a convolution of one image whose forms may stay patches: no groups, no dilated input."""
    eqn = node.conv
    if eqn is None:
        return None
    p = eqn.params
    d = p["dimension_numbers"]
    shape, out = node.input_shapes[0], node.shape
    if p["feature_group_count"] != 1 or p["batch_group_count"] != 1 or set(p["lhs_dilation"]) != {1} or shape[d.lhs_spec[0]] != 1:
        return None
    return (
        Layout(d.lhs_spec[0], d.lhs_spec[1], tuple(d.lhs_spec[2:]), shape),
        Layout(d.out_spec[0], d.out_spec[1], tuple(d.out_spec[2:]), out),
    )


def started(node: Contract, rows: jax.Array, sign: jax.Array) -> Patch | None:
    """The forms `sign * e_row` on a convolution's value. rows [S]: flat indices into the node's array."""
    both = layouts(node)
    if both is None:
        return None
    layout = both[1]
    index = jnp.unravel_index(rows, node.shape)
    place = jnp.stack([index[a] for a in layout.spatial], -1).astype(jnp.int32)
    channels = node.shape[layout.channel]
    hot = jax.nn.one_hot(index[layout.channel], channels, dtype=node.dtype) * sign[:, None]
    n = len(layout.spatial)
    a = hot.reshape(len(rows), channels, *(1,) * n)
    return Patch(a, place, (1,) * n, (0,) * n, layout, layout.extent)


def through(node: Contract, patch: Patch) -> Patch | None:
    """The forms on a convolution's input, or None where its layout is another one than the forms'."""
    both = layouts(node)
    if both is None or both[1] != patch.layout:
        return None
    layout, p = both[0], node.conv.params
    spec = p["dimension_numbers"].rhs_spec
    w = jnp.transpose(node.weights, spec)  # [out, in, *taps]
    taps, dilation, stride = w.shape[2:], p["rhs_dilation"], p["window_strides"]
    size = tuple((k - 1) * s + (t - 1) * d + 1 for k, s, t, d in zip(patch.size, stride, taps, dilation, strict=True))
    offset = tuple(o * s - b for o, s, (b, _) in zip(patch.offset, stride, p["padding"], strict=True))
    a = _transposed(w, patch.a, size, stride, dilation)
    moved = patch.replaced(a, stride=tuple(a * s for a, s in zip(patch.stride, stride, strict=True)), offset=offset, layout=layout)
    if all(
        o >= 0 and o + (q - 1) * s + k <= n
        for o, q, s, k, n in zip(moved.offset, moved.places, moved.stride, moved.size, layout.extent, strict=True)
    ):
        return moved
    return moved.replaced(jnp.where(moved.inside(), moved.a, 0))


def _transposed(w: jax.Array, a: jax.Array, size: tuple[int, ...], stride: Any, dilation: Any) -> jax.Array:
    """The transpose of the valid convolution from windows of `size` to `a`'s."""
    (out, inner), before = w.shape[:2], a.shape[2:]
    entries = out * math.prod(before) * inner * math.prod(size)
    n = len(size)

    def forward(x: jax.Array) -> jax.Array:
        numbers = lax.ConvDimensionNumbers(*(tuple(range(n + 2)),) * 3)
        return lax.conv_general_dilated(
            x, w, stride, [(0, 0)] * n, rhs_dilation=dilation, dimension_numbers=numbers, precision=lax.Precision.HIGHEST
        )

    if entries <= _DENSE_ENTRIES:
        # the whole map as a matrix, filled tap by tap: small, and made of copies only
        matrix = jnp.zeros((out, *before, inner, *size), w.dtype)
        for q in itertools.product(*(range(k) for k in before)):
            starts = [i * s for i, s in zip(q, stride, strict=True)]
            stops = [b + (t - 1) * d + 1 for b, t, d in zip(starts, w.shape[2:], dilation, strict=True)]
            where = tuple(slice(b, e, d) for b, e, d in zip(starts, stops, dilation, strict=True))
            matrix = matrix.at[(slice(None), *q, slice(None), *where)].set(w)
        flat = jnp.matmul(a.reshape(len(a), -1), matrix.reshape(out * math.prod(before), -1), precision=lax.Precision.HIGHEST)
        return flat.reshape(len(a), inner, *size)
    _, pull = jax.vjp(forward, jnp.zeros((len(a), inner, *size), a.dtype))
    return pull(a)[0]
