"""Values of the rewritten program: arrays in another axis order than the traced program thinks, and convolutions not yet run."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp

from .._native import conv2d


@dataclasses.dataclass
class Laid:
    """`array` is the traced value with its axes in the order `perm`; axes of length 1 may stand for broadcast ones of `shape`."""

    array: jax.Array
    perm: tuple[int, ...]
    shape: tuple[int, ...]

    def in_order(self, perm: tuple[int, ...], *, full: bool = True) -> jax.Array:
        """The array with axes in the order `perm`, broadcast axes filled in where `full`."""
        array = self.array
        if perm != self.perm:
            array = jnp.transpose(array, [self.perm.index(a) for a in perm])
        wanted = tuple(self.shape[a] for a in perm)
        return jnp.broadcast_to(array, wanted) if full and array.shape != wanted else array

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of `array`."""
        return self.array.shape

    def mapped(self, function: Callable[[jax.Array], jax.Array]) -> "Laid":
        """An elementwise function of the value."""
        return Laid(function(self.array), self.perm, self.shape)


@dataclasses.dataclass
class Flat:
    """A [N, D] value whose D is the flattened rest of `source`, in the traced axis order; not yet moved in memory."""

    source: Laid

    def plain(self) -> jax.Array:
        return self.source.in_order(tuple(range(len(self.source.shape)))).reshape(self.source.shape[0], -1)


class Pending:
    """A convolution that waits for the bias and the ReLU that follow it, to run them in one kernel."""

    def __init__(
        self,
        x: Any,
        w: jax.Array,
        bias: jax.Array,
        stride: int,
        pads: Any,
        perm: tuple[int, ...],
        shape: tuple[int, ...],
        native: bool,
    ):
        self.x, self.w, self.bias, self.stride, self.pads = x, w, bias, stride, pads
        self.perm, self.shape, self.native = perm, shape, native
        self._done: Laid | None = None

    def run(self, relu: bool = False) -> Laid:
        """The value, computed at most once without ReLU."""
        if relu:
            return self.convolved(True)
        if self._done is None:
            self._done = self.convolved(False)
        return self._done

    def convolved(self, relu: bool) -> Laid:
        flat = self.x.ndim == 3  # one spatial axis: a picture of height 1
        y: Any = conv2d(self.x[:, None] if flat else self.x, self.w, self.bias, self.stride, self.pads, relu, self.native)
        return Laid(y[:, 0] if flat else y, self.perm, self.shape)

    def channels(self, other: Laid) -> jax.Array | None:
        """[O] if `other` varies along the channels only, else None."""
        array = other.in_order(self.perm, full=False)
        if set(array.shape[:-1]) != {1}:
            return None
        return jnp.broadcast_to(array.reshape(-1), self.bias.shape)

    def scaled(self, scale: jax.Array | None, shift: jax.Array | None) -> Self:
        """The convolution followed by `* scale + shift`, per channel, folded into its weights."""
        other = copy.copy(self)
        other._done = None
        if scale is not None:
            other.w, other.bias = self.w * scale[None, None, None], self.bias * scale
        if shift is not None:
            other.bias = other.bias + shift
        return other


def identity(n: int) -> tuple[int, ...]:
    """The order in which nothing moves."""
    return tuple(range(n))
