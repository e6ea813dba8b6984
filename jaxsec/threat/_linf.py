"""`LInf`: every element within eps of its clean value."""

import math
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from ..core._struct import struct
from . import _sample
from ._ball import Ball
from ._rows import add_inward, column, flat, working_dtype


@final
@struct
class LInf(Ball):
    """Every element within `eps` of its clean value, and in `[lo, hi]`.

    Guarantee: points are within eps when the difference is taken in real numbers or in x's dtype, without tolerance.
    Args:
      eps: radius in input units, scalar or [B].
      lo, hi: range of valid inputs: scalar, one row's shape (or one that broadcasts to it), or [B, ...].
    Cost: `project`, `maximise`: 2 elementwise passes at [500, 784], 1 at [64, 150528].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import LInf
      >>> threat = LInf(eps=0.25, lo=0.0, hi=1.0)
      >>> threat.project(jnp.array([[0.5, 0.9]]), jnp.array([[0.0, 2.0]])).tolist()
      [[0.25, 1.0]]
    """

    norm: ClassVar[str] = "linf"

    eps: Any
    lo: Any = -math.inf
    hi: Any = math.inf

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        lower, upper = self._limits(x0)
        return jnp.clip(x, lower, upper)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        return self._unit_moved(x0, _sample.each_row(_sample.linf_ball, keys, x0))

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """`x0 + eps * u / max|u|`, u uniform: touches the surface, as AutoAttack starts; not uniform on it."""
        return self._unit_moved(x0, _sample.each_row(_sample.linf_sphere, keys, x0))

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The sign of g."""
        return jnp.sign(g)

    def dual_norm(self, g: jax.Array) -> jax.Array:
        return jnp.sum(flat(jnp.abs(g.astype(working_dtype(g)))), axis=1)

    def _limits(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        centre, eps = x0.astype(working_dtype(x0)), column(self.radius(x0), x0)
        return self._boxed(add_inward(centre, -eps, x0.dtype)), self._boxed(add_inward(centre, eps, x0.dtype))

    def _length(self, d: jax.Array) -> jax.Array:
        return jnp.max(flat(jnp.abs(d)), axis=1, initial=0)

    def _gain(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.where(g != 0, jnp.minimum(column(self.radius(x0), x0), self._room(x0, g)), 0)
