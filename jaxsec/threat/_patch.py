"""`Patch`: images that differ from the clean one inside one rectangle, wherever it lies: stickers and printed patterns."""

from typing import Any, ClassVar, Self, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core._struct import static, struct
from . import _sample
from ._ball import check_box, room_to
from ._rows import aligned, flat, rounded, working_dtype
from ._threat import Threat
from ._windows import best_window, extent, image_of, sides_of, window_mask, window_sums


@final
@struct
class Patch(Threat):
    """Images that differ from `x0` inside one window of `size` pixels anywhere in the image, in all channels, and are in `[lo, hi]`.

    The set is a union of boxes, one for each place of the window, and not convex. `project` and `maximise` are exact over all places.
    As in `Box`, the norm of a step counts half-widths of `[lo, hi]` and `radius` is 1.

    Args:
      size: side of the square in pixels, or (height, width); static, at least 1 and at most the image's sides. No window wraps around.
      layout: "chw" or "hwc": what the axes of [B, ...] are; static.
      lo, hi: range of valid inputs, finite: scalar, one row's shape (or one that broadcasts to it), or [B, ...].
    Cost: `project`, `maximise`, `support`: a few elementwise passes, and height + width additions a pixel.
    Edge cases: of equally good places the first, row by row. A smaller patch is also a patch.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import Patch
      >>> threat = Patch(size=(1, 2), layout="chw", lo=0.0, hi=1.0)
      >>> threat.project(jnp.zeros((1, 1, 1, 4)), jnp.array([[[[0.9, 0.0, 0.5, 7.0]]]])).tolist()
      [[[[0.0, 0.0, 0.5, 1.0]]]]
    """

    norm: ClassVar[str] = "patch"

    size: int | tuple[int, int] = static()
    layout: str = static()
    lo: Any
    hi: Any

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return sides_of(self.size, "Patch")

    def canonical(self, x: jax.Array) -> Self:
        self._image(x)
        return self.replace(lo=aligned("lo", self.lo, x), hi=aligned("hi", self.hi, x))

    def check(self, x0: jax.Array) -> None:
        self.canonical(x0)
        lo, hi, rows = (None if isinstance(v, Tracer) else np.asarray(v) for v in (self.lo, self.hi, x0))
        for name, bound in (("lo", lo), ("hi", hi)):
            if bound is not None and not np.all(np.isfinite(bound)):
                raise ValueError(f"Patch has infinite or NaN elements in {name}; pixels of a patch take any valid value: give the range.")
        check_box("Patch", lo, hi, rows)

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        x = rounded(x)
        dtype, near = working_dtype(x0), self._boxed(x)
        a, b, c = x0.astype(dtype), x.astype(dtype), near.astype(dtype)
        # |x - x0|^2 - |x - near|^2 of each element, without cancellation: what a window that holds it gains
        gain = jnp.where(c == a, 0, (c - a) * ((b - a) + (b - c)))
        found = jnp.where(self._best(gain), near, x0.astype(x.dtype))
        # a gain that is lost in the sum of others must not move a point of the set
        return jnp.where(self.contains(x0, x).reshape(-1, 1, 1, 1), x, found)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """A uniform place, and uniform values in it."""
        return self._placed(keys, x0, _sample.linf_ball)

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """A uniform place, and in it values as `Box` has them: uniform, stretched until one is at its border."""
        return self._placed(keys, x0, _sample.linf_sphere)

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        lo, hi = self._limits(x0)
        best = self._best(self._gain(x0, g.astype(working_dtype(x0))))
        return jnp.where(best & (g > 0), hi, jnp.where(best & (g < 0), lo, x0))

    def support(self, x0: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim == x0.ndim + 1:
            return jax.vmap(lambda v: self.support(x0, v), in_axes=1, out_axes=1)(w)
        w = w.astype(working_dtype(x0))
        # the largest of the sums themselves: looking a window up first and adding it again would add the error of the choice
        return jnp.sum(flat(w * x0.astype(w.dtype)), axis=1) + jnp.max(flat(self._sums(self._gain(x0, w))), axis=1)

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The sign of g times the half-width of each element: `project` keeps the window in which a row has moved furthest.

        One thousandth less outside of the window that gains most: a row that has not moved far yet goes there, and not to the first place.
        """
        half, wide = self._half(x), g.astype(working_dtype(x))
        room = room_to(x, wide, aligned("lo", self.lo, x), aligned("hi", self.hi, x))
        best = self._best(jnp.abs(wide) * jnp.minimum(room, half))
        return (jnp.sign(wide) * half * jnp.where(best, 1.0, 0.999)).astype(g.dtype)

    def contains(self, x0: jax.Array, x: jax.Array, *, tolerance: float = 0.0) -> jax.Array:
        """[B] bool: exact. NaN is not inside. tolerance: of the box, in half-widths; pixels outside of the window are equal to x0's."""
        lower, upper = self._limits(x)
        excess = jnp.maximum(jnp.maximum(lower - x, x - upper), 0).astype(working_dtype(x))
        height, width = extent(self._changed(x0, x))
        fits = (height <= self.sides[0]) & (width <= self.sides[1])
        return fits & jnp.all(flat(excess <= tolerance * self._half(x)), axis=1)

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """[B] the side of the smallest square window that holds all pixels that differ, in pixels; 0 where none does."""
        return jnp.maximum(*extent(self._changed(x0, x))).astype(working_dtype(x))

    def dual_norm(self, g: jax.Array) -> jax.Array:
        return jnp.sum(flat(jnp.abs(g.astype(working_dtype(g))) * self._half(g)), axis=1)

    def radius(self, x: jax.Array) -> jax.Array:
        return jnp.ones(x.shape[:1], working_dtype(x))

    def scaled(self, factor: Any) -> Self:
        """Refused: a patch has no eps to multiply."""
        raise TypeError(f"a Patch cannot be scaled by {factor!r}: its size is a number of pixels; use replace(size=...).")

    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        """All of `[lo, hi]`: every pixel lies in some window."""
        self._image(x0)
        return self._limits(x0)

    def _image(self, x: jax.Array) -> tuple[int, int, int]:
        height, width, channel = image_of(x.shape, self.layout, "Patch")
        if self.sides[0] > height or self.sides[1] > width:
            raise ValueError(f"Patch has size={self.size}, larger than the images of {height} x {width} pixels (layout {self.layout}).")
        return height, width, channel

    def _sums(self, gain: jax.Array) -> jax.Array:
        return window_sums(jnp.sum(gain, axis=self._image(gain)[2]), self.sides)

    def _best(self, gain: jax.Array) -> jax.Array:
        """The window whose elements' gains add up to most, as a mask."""
        return window_mask(*best_window(self._sums(gain)), self.sides, *self._image(gain))

    def _gain(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        lo, hi = aligned("lo", self.lo, x0), aligned("hi", self.hi, x0)
        return jnp.abs(g) * room_to(x0, g, lo, hi)

    def _changed(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.any(x != x0, axis=self._image(x)[2])

    def _boxed(self, x: jax.Array) -> jax.Array:
        return jnp.clip(x, *self._limits(x))

    def _limits(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """lo and hi in x's shape and dtype."""
        lo, hi = aligned("lo", self.lo, x), aligned("hi", self.hi, x)
        return jnp.broadcast_to(lo.astype(x.dtype), x.shape), jnp.broadcast_to(hi.astype(x.dtype), x.shape)

    def _half(self, x: jax.Array) -> jax.Array:
        return 0.5 * (aligned("hi", self.hi, x) - aligned("lo", self.lo, x))

    def _placed(self, keys: jax.Array, x0: jax.Array, draw: Any) -> jax.Array:
        height, width, channel = self._image(x0)
        h, w = self.sides

        def corner(key: jax.Array, size: int, dtype: Any) -> jax.Array:
            most = jnp.array([height - h + 1, width - w + 1])
            return jax.random.randint(jax.random.split(key)[0], (size,), 0, most).astype(dtype)

        top, left = _sample.each_row(corner, keys, jnp.zeros((len(x0), 2), jnp.float32)).astype(jnp.int32).T
        unit = _sample.each_row(lambda key, size, dtype: draw(jax.random.split(key)[1], size, dtype), keys, x0)
        centre = 0.5 * (aligned("hi", self.hi, x0) + aligned("lo", self.lo, x0))
        inside = window_mask(top, left, self.sides, height, width, channel)
        return jnp.where(inside, self._boxed((centre + self._half(x0) * unit).astype(x0.dtype)), x0)
