"""Augmentations: changes of a row that keep its label, drawn on the device from the row's own key."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..core._keys import fold


def _height(layout: str) -> int:
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout is {layout!r}; allowed: NCHW, NHWC.")
    return 2 if layout == "NCHW" else 1


@dataclasses.dataclass(frozen=True)
class Shift:
    """Images moved by up to `pixels` each way, uniformly; what comes into view repeats the edge (random crops after padding).

    Args: pixels: at least 0. layout: NCHW or NHWC. Use: `augment(keys [B], x [B, ...]) -> x`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxsec.train import Shift
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> Shift(1)(keys, jnp.ones((2, 1, 4, 4))).shape
      (2, 1, 4, 4)
    """

    pixels: int
    layout: str = "NCHW"

    def __call__(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        axis = _height(self.layout)
        if x.ndim != 4:
            raise ValueError(f"Shift got rows of shape {x.shape[1:]}; images with three axes are needed.")
        widths = [(self.pixels, self.pixels) if a in (axis, axis + 1) else (0, 0) for a in range(4)]
        padded = jnp.pad(x, widths, mode="edge")
        offsets = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * self.pixels + 1))(keys)

        def cut(image: jax.Array, offset: jax.Array) -> jax.Array:
            start = [jnp.zeros((), offset.dtype)] * 3
            start[axis - 1 : axis + 1] = offset[0], offset[1]
            return jax.lax.dynamic_slice(image, start, x.shape[1:])

        return jax.vmap(cut)(padded, offsets)


@dataclasses.dataclass(frozen=True)
class Flip:
    """Images mirrored left to right with probability 1/2. Not for digits or text, whose mirror images mean something else."""

    layout: str = "NCHW"

    def __call__(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        width = _height(self.layout) + 1
        flipped = jax.vmap(jax.random.bernoulli)(keys)
        return jnp.where(flipped.reshape(-1, *(1,) * (x.ndim - 1)), jnp.flip(x, width), x)


@dataclasses.dataclass(frozen=True)
class Chain:
    """Several augmentations, one after the other."""

    parts: tuple[Callable[[jax.Array, jax.Array], jax.Array], ...]

    def __call__(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        for i, part in enumerate(self.parts):
            x = part(fold(keys, i), x)
        return x
