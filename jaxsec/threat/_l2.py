"""`L2`: rows within Euclidean distance eps."""

import math
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from ..core._struct import struct
from . import _sample
from ._ball import Ball, displacement, lengths, positive, room_to
from ._project import l2_multiplier, spread
from ._rows import add_inward, column, flat, rounded, working_dtype

# Keep squares finite in float32: lengths beyond _FAR eps count as that, and eps below _NEAR is solved at _NEAR and scaled down.
_FAR = 1e15
_NEAR = 1e-15


@final
@struct
class L2(Ball):
    """Rows within Euclidean distance `eps` of the clean row, and in `[lo, hi]`.

    Guarantee: `project` and `maximise` solve the problem on ball and box together, to a few float32 ulps of eps.
    Args: as `LInf`.
    Cost: in elementwise passes `a * x + y` (2-core CPU, float32, x one eps beyond the surface): `project` 7 at [500, 784] and 4 at
      [64, 150528] with the box of pictures active, 4 and 2 without a box; `project_radially` 2 and 1; `maximise` 7 and 4.
    Source: KKT conditions; see `_project.py`. AutoAttack's projection (scale, then clip) is `project_radially`; it is feasible too, but
      not the nearest point where the box is active.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import L2
      >>> L2(eps=5.0).project(jnp.zeros((1, 2)), jnp.array([[6.0, 8.0]])).round(4).tolist()
      [[3.0, 4.0]]
    """

    norm: ClassVar[str] = "l2"

    eps: Any
    lo: Any = -math.inf
    hi: Any = math.inf

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        x = rounded(x)  # what is measured must be what is returned
        args = (x0, x, *self._leaves(x0))
        eps = column(args[-1], x0)
        s = l2_multiplier(_projection_squares, True, *args)
        root = column(jnp.sqrt(jnp.where(s > 0, s, 1)), x0)
        p, q = _projection_squares(*args)
        v = displacement(x0, x)
        magnitude = jnp.where(column(s, x0) * p < q, root * jnp.abs(v), self._room(x0, v))
        magnitude = magnitude * jnp.where(eps > _NEAR, 1, eps / _NEAR)
        moved = self._moved(x0, v, jnp.minimum(magnitude, eps))
        return jnp.where((column(s, x0) == 1) & (eps > 0), self._boxed(x), moved)

    def project_radially(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """AutoAttack's projection: scale the displacement to length eps if it is longer, then clip to the box. Feasible, two passes."""
        x = rounded(x)
        eps = self.radius(x0)
        v = x.astype(eps.dtype) - x0.astype(eps.dtype)
        length = self._length(v)
        factor = jnp.where(length > eps, eps / jnp.where(length > 0, length, 1), 1)
        moved = add_inward(x0.astype(eps.dtype), v * column(factor, x0), x0.dtype)
        return self._boxed(jnp.where(column(length > eps, x0), moved, x))

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        return self._unit_moved(x0, _sample.each_row(_sample.l2_ball, keys, x0))

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        return self._unit_moved(x0, _sample.each_row(_sample.l2_sphere, keys, x0))

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """g over its Euclidean length, exact for gradients down to 1e-38 (squares of small gradients vanish in float32)."""
        wide = g.astype(working_dtype(g))
        wide = wide / column(positive(jnp.max(flat(jnp.abs(wide)), axis=1, initial=0)), g)
        return (wide / column(positive(self._length(wide)), g)).astype(g.dtype)

    def dual_norm(self, g: jax.Array) -> jax.Array:
        return self._length(g.astype(working_dtype(g)))

    def _length(self, d: jax.Array) -> jax.Array:
        square = jnp.sum(flat(d * d), axis=1)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), square)  # finite derivative at 0, NaN kept

    def _gain(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        lo, hi, eps = self._leaves(x0)
        unit = self.steepest(x0, g.astype(eps.dtype))
        args = (x0, unit, lo, hi, eps)
        s = l2_multiplier(_direction_squares, False, *args)
        p, q = _direction_squares(*args)
        # s starts at 1, the length that a ball without a box gives
        reach = column(eps * jnp.sqrt(jnp.where(s > 0, s, 1)), x0) * jnp.abs(unit)
        magnitude = jnp.where(column(s, x0) * p < q, reach, jnp.minimum(self._room(x0, unit), column(eps, x0)))
        return jnp.where(p > 0, magnitude, 0)


def _squared_room(c: jax.Array, unit: jax.Array) -> jax.Array:
    # an element with room for 2 eps is never blocked, so the ratio is cut there and infinite boxes stay finite
    wide = c >= 2 * unit
    ratio = jnp.where(wide, 2, jnp.where(wide, 0, c) / unit)
    return ratio * ratio


def _unit(eps: jax.Array, rank: int) -> jax.Array:
    # `where`, not `maximum`, whose derivative at 0 would be infinity times zero
    return spread(jnp.where(eps > _NEAR, eps, _NEAR), rank)


def _projection_squares(x0: jax.Array, x: jax.Array, lo: jax.Array, hi: jax.Array, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """((wanted length / eps)**2, (room / eps)**2), finite for every eps."""
    u, c = lengths(x0, x, lo, hi)
    unit = _unit(eps, u.ndim)
    scaled = jnp.minimum(u / unit, _FAR)
    return scaled * scaled, _squared_room(c, unit)


def _direction_squares(x0: jax.Array, d: jax.Array, lo: jax.Array, hi: jax.Array, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(d**2, (room / eps)**2) for a direction d of unit length."""
    return d * d, _squared_room(room_to(x0, d, lo, hi), _unit(eps, d.ndim))
