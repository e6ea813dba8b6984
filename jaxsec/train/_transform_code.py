"""Transformations that quantise values: fewer bits, and the thermometer code."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..attack._square import image_axes
from ..core import static, struct
from ._transform import Transform, check_count, check_number


@struct
class BitDepth(Transform):
    """Values rounded to `2 ** bits` levels between lo and hi, both included; rows of any shape.

    Args: bits: 1 to 16. lo, hi: the range of values; what is outside is clipped.
    Edge cases: the derivative is zero everywhere; the surrogate passes straight through.
    Source: Xu et al. 2018 (Feature Squeezing), section III-A.
    """

    name: ClassVar[str] = "bit-depth"
    source: ClassVar[str] = "Xu et al. 2018, arXiv:1704.01155"

    bits: Any = 3
    lo: Any = 0.0
    hi: Any = 1.0

    def check(self) -> None:
        check_number(self.name, "bits", self.bits, lambda v: (v >= 1) & (v <= 16) & (v == v.round()), "a whole number from 1 to 16")
        check_number(self.name, "hi - lo", self.hi - self.lo, lambda v: v > 0, "above 0")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        steps = jnp.round(jnp.exp2(jnp.asarray(self.bits, v.dtype))) - 1
        unit = (jnp.clip(v, self.lo, self.hi) - self.lo) / (self.hi - self.lo)
        return (jnp.round(unit * steps) / steps * (self.hi - self.lo) + self.lo).astype(x.dtype)


@struct
class Thermometer(Transform):
    """Each value in [0, 1] becomes `levels` channels of zeros and ones: channel l, counted from 1, is 1 where `x <= l / levels`.

    A net must be trained on the code: `defended(net_of(net), Thermometer())` is a `Net`.
    Args:
      levels: k (static). layout: "chw", "hwc" or "hw", whose channels become C * levels (levels of one channel side by side; "hw" becomes
        "hwc"), "flat" for vectors, or "auto": rows of one axis are flat, the others as everywhere (static).
      softness: width of the surrogate's steps, in levels.
    Edge cases: the derivative is zero everywhere; the surrogate's is that of `sigmoid((l - levels x) / softness)`.
    Source: Buckman et al. 2018, section 4 (b, tau); the surrogate is a sigmoid where Athalye et al. 2018, section 5.1.1, take ramps, so
      that levels on both sides of a value have a gradient.
    """

    name: ClassVar[str] = "thermometer"
    source: ClassVar[str] = "Buckman et al. 2018, ICLR"

    levels: int = static(default=16)
    layout: str = static(default="auto")
    softness: Any = 1.0

    def check(self) -> None:
        check_count(self.name, "levels", self.levels, 2)
        check_number(self.name, "softness", self.softness, lambda v: v > 0, "above 0")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        def step(excess: jax.Array) -> jax.Array:
            return (excess >= 0).astype(x.dtype)

        return self._coded(x, step)

    def surrogate(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self._coded(x, lambda excess: jax.nn.sigmoid(excess / self.softness).astype(x.dtype))

    def _coded(self, x: jax.Array, step: Any) -> jax.Array:
        axis = self._axis(x.shape[1:])
        v = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        v = v[..., None] if axis is None else jnp.moveaxis(v, axis, -1)
        level = jnp.arange(1, self.levels + 1, dtype=v.dtype).reshape((1,) * v.ndim + (-1,))
        code = step(level - v[..., None] * self.levels)
        code = code.reshape(*v.shape[:-1], v.shape[-1] * self.levels)
        return code if axis is None else jnp.moveaxis(code, -1, axis)

    def _axis(self, shape: tuple[int, ...]) -> int | None:
        """The channels' axis of a batch; None where there is none yet."""
        if self.layout == "flat" or (self.layout == "auto" and len(shape) == 1):
            return -1
        try:
            channels = image_axes(shape, self.layout)[2]
        except ValueError as error:
            raise ValueError(
                f"thermometer got rows of shape {shape} with layout={self.layout!r}; pass layout='chw', 'hwc', 'hw', or 'flat' for vectors."
            ) from error
        return None if channels is None else channels + 1
