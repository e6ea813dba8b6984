"""`Box`: an absolute box of reachable inputs, the same set whatever the clean row (VNNLIB properties, feature ranges)."""

from typing import Any, ClassVar, Self, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core._struct import struct
from . import _sample
from ._rows import aligned, column, flat, working_dtype
from ._threat import Threat


@final
@struct
class Box(Threat):
    """Every element between `lower` and `upper`; the clean row matters only for `distance`.

    Its norm counts half-widths, `max |d_i| / ((upper_i - lower_i) / 2)`, so that a step of length 1 goes from the centre to the border
    in every element, and `radius` is 1.

    Args:
      lower, upper: one row's shape (or one that broadcasts to it, or a scalar), or [B, ...] for a box per row. Finite.
    Edge cases: an element with lower = upper is fixed.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import Box
      >>> box = Box(lower=jnp.array([0.0, -1.0]), upper=jnp.array([1.0, 1.0]))
      >>> box.support(jnp.zeros((1, 2)), jnp.array([[2.0, -3.0]])).tolist()
      [5.0]
    """

    norm: ClassVar[str] = "box"

    lower: Any
    upper: Any

    def canonical(self, x: jax.Array) -> Self:
        return self.replace(lower=aligned("lower", self.lower, x), upper=aligned("upper", self.upper, x))

    def check(self, x0: jax.Array) -> None:
        self.canonical(x0)
        lower, upper = (None if isinstance(v, Tracer) else np.asarray(v) for v in (self.lower, self.upper))
        for name, bound in (("lower", lower), ("upper", upper)):
            if bound is not None and not np.all(np.isfinite(bound)):
                raise ValueError(
                    f"Box has infinite or NaN elements in {name}; a box to search must be finite: give the valid range of every input."
                )
        if lower is not None and upper is not None and not np.all(lower <= upper):
            raise ValueError(
                f"Box has {int(np.sum(lower > upper))} elements with lower > upper; swap them, or drop the property if it is empty."
            )

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        lower, upper = self._limits(x)
        return jnp.clip(x, lower, upper)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """Uniform in the box."""
        return self._placed(x0, _sample.each_row(_sample.linf_ball, keys, x0))

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """As `LInf` about the centre: uniform, stretched until one element is at its border."""
        return self._placed(x0, _sample.each_row(_sample.linf_sphere, keys, x0))

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        lower, upper = self._limits(x0)
        return jnp.where(g > 0, upper, jnp.where(g < 0, lower, jnp.clip(x0, lower, upper)))

    def support(self, x0: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim == x0.ndim + 1:
            return jax.vmap(lambda v: self.support(x0, v), in_axes=1, out_axes=1)(w)
        w = w.astype(working_dtype(x0))
        lower, upper = (v.astype(w.dtype) for v in self._limits(x0))
        return jnp.sum(flat(jnp.where(w > 0, w * upper, w * lower)), axis=1)

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The sign of g times the half-width of each element."""
        return (jnp.sign(g).astype(working_dtype(x)) * self._half(x)).astype(g.dtype)

    def contains(self, x0: jax.Array, x: jax.Array, *, tolerance: float = 0.0) -> jax.Array:
        """[B] bool: exact, unless `tolerance` (in half-widths) is given. NaN is not inside."""
        lower, upper = self._limits(x)
        excess = jnp.maximum(jnp.maximum(lower - x, x - upper), 0).astype(working_dtype(x))
        return jnp.all(flat(excess <= tolerance * self._half(x)), axis=1)

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """[B] largest absolute change of an element from `x0`, in input units."""
        dtype = working_dtype(x)
        return jnp.max(flat(jnp.abs(x.astype(dtype) - x0.astype(dtype))), axis=1, initial=0)

    def dual_norm(self, g: jax.Array) -> jax.Array:
        return jnp.sum(flat(jnp.abs(g.astype(working_dtype(g))) * self._half(g)), axis=1)

    def radius(self, x: jax.Array) -> jax.Array:
        return jnp.ones(x.shape[:1], working_dtype(x))

    def scaled(self, factor: Any) -> Self:
        """Both borders moved so that the half-widths are multiplied by `factor`, which must broadcast against them."""
        lower, upper = jnp.asarray(self.lower), jnp.asarray(self.upper)
        if jnp.ndim(factor) == 1 and lower.ndim > 1:
            factor = column(jnp.asarray(factor), lower)
        centre, half = 0.5 * (lower + upper), 0.5 * (upper - lower) * factor
        return self.replace(lower=centre - half, upper=centre + half)

    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self._limits(x0)

    def _limits(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The borders in x's shape and dtype."""
        lower, upper = aligned("lower", self.lower, x), aligned("upper", self.upper, x)
        return jnp.broadcast_to(lower.astype(x.dtype), x.shape), jnp.broadcast_to(upper.astype(x.dtype), x.shape)

    def _half(self, x: jax.Array) -> jax.Array:
        return 0.5 * (aligned("upper", self.upper, x) - aligned("lower", self.lower, x))

    def _placed(self, x0: jax.Array, unit: jax.Array) -> jax.Array:
        centre = 0.5 * (aligned("upper", self.upper, x0) + aligned("lower", self.lower, x0))
        return self.project(x0, (centre + self._half(x0) * unit).astype(x0.dtype))
