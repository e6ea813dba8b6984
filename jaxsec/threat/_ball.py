"""`LInf`, `L2`, `L1`: a norm ball around each clean row, cut with a box of valid inputs."""

import abc
import math
from typing import Any, ClassVar, Self, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ..core._struct import struct
from . import _sample
from ._project import greedy, l1_level, l2_multiplier, spread
from ._rows import add_inward, add_outward, aligned, column, flat, per_row, working_dtype
from ._threat import Threat

# Keep squares finite in float32: lengths beyond _FAR eps count as that, and eps below _NEAR is solved at _NEAR and scaled down.
_FAR = 1e15
_NEAR = 1e-15


class Ball(Threat):
    """What the three norms share. Final classes declare the fields."""

    eps: Any
    lo: Any
    hi: Any

    def canonical(self, x: jax.Array) -> Self:
        return self.replace(eps=per_row("eps", self.eps, x), lo=aligned("lo", self.lo, x), hi=aligned("hi", self.hi, x))

    def check(self, x0: jax.Array) -> None:
        name = type(self).__name__
        self.canonical(x0)
        eps, lo, hi, rows = (None if isinstance(v, Tracer) else np.asarray(v) for v in (self.eps, self.lo, self.hi, x0))
        if eps is not None and not np.all(eps >= 0):
            raise ValueError(f"{name} has eps={self.eps}; a radius is a number >= 0, in the units of the input.")
        if lo is not None and hi is not None and not np.all(lo <= hi):
            raise ValueError(f"{name} has lo={self.lo}, hi={self.hi}; lo must be <= hi everywhere.")
        for bound, outside, word in ((lo, np.less, "below lo"), (hi, np.greater, "above hi")):
            if bound is not None and rows is not None and np.any(outside(rows, np.asarray(bound, rows.dtype))):
                raise ValueError(
                    f"x0 spans [{rows.min()}, {rows.max()}] and has elements {word}={bound}; clean rows must lie in the box. "
                    "Scale the inputs (x / 255?) or give the true range as lo and hi."
                )

    def radius(self, x: jax.Array) -> jax.Array:
        return per_row("eps", self.eps, x)

    def scaled(self, factor: Any) -> Self:
        return self.replace(eps=self.eps * factor)

    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        centre, eps = x0.astype(working_dtype(x0)), column(self.radius(x0), x0)
        lower, upper = add_outward(centre, -eps, x0.dtype), add_outward(centre, eps, x0.dtype)
        return self._boxed(lower), self._boxed(upper)

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        return self._moved(x0, g, self._gain(x0, g))

    def support(self, x0: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim == x0.ndim + 1:
            return jax.vmap(lambda v: self.support(x0, v), in_axes=1, out_axes=1)(w)
        w = w.astype(working_dtype(x0))
        # Danskin: at the optimum the value does not change with the maximiser, so the search needs no derivative in w
        gain = self._gain(x0, lax.stop_gradient(w))
        return jnp.sum(flat(w * x0.astype(w.dtype) + jnp.abs(w) * gain), axis=1)

    def contains(self, x0: jax.Array, x: jax.Array, *, tolerance: float = 1e-6) -> jax.Array:
        half_ulp = 0.5 * float(jnp.finfo(x.dtype).eps)
        wide = x.astype(working_dtype(x))
        surplus = jnp.maximum(jnp.abs(wide - x0.astype(wide.dtype)) - half_ulp * jnp.abs(wide), 0)
        # a NaN survives the maximum, makes the norm NaN and the comparison False
        near = self._length(surplus) <= self.radius(x) * (1 + tolerance)
        return near & jnp.all(flat(self._boxed(x) == x), axis=1)

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        dtype = working_dtype(x)
        return self._length(x.astype(dtype) - x0.astype(dtype))

    @abc.abstractmethod
    def _length(self, d: jax.Array) -> jax.Array:
        """[B] norm of displacements."""

    @abc.abstractmethod
    def _gain(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        """[B, ...] how far each element moves, in the direction of g's sign, to maximise <g, x>."""

    def _boxed(self, x: jax.Array) -> jax.Array:
        lo, hi = aligned("lo", self.lo, x), aligned("hi", self.hi, x)
        return jnp.clip(x, lo.astype(x.dtype), hi.astype(x.dtype))

    def _room(self, x0: jax.Array, direction: jax.Array) -> jax.Array:
        """[B, ...] how far each element can go along the direction's sign before the box stops it."""
        lo, hi, _ = self._leaves(x0)
        return _room_to(x0, direction.astype(lo.dtype), lo, hi)

    def _leaves(self, x0: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(lo, hi, eps) as `canonical` has them."""
        return aligned("lo", self.lo, x0), aligned("hi", self.hi, x0), self.radius(x0)

    def _moved(self, x0: jax.Array, direction: jax.Array, magnitude: jax.Array) -> jax.Array:
        wide = x0.astype(working_dtype(x0))
        return self._boxed(add_inward(wide, jnp.sign(direction).astype(wide.dtype) * magnitude, x0.dtype))

    def _unit_moved(self, x0: jax.Array, unit: jax.Array) -> jax.Array:
        wide = x0.astype(unit.dtype)
        return self._boxed(add_inward(wide, column(self.radius(x0), x0) * unit, x0.dtype))


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
        args = (x0, x, *self._leaves(x0))
        eps = column(args[-1], x0)
        s = l2_multiplier(_projection_squares, True, *args)
        root = column(jnp.sqrt(jnp.where(s > 0, s, 1)), x0)
        p, q = _projection_squares(*args)
        v = _displacement(x0, x)
        magnitude = jnp.where(column(s, x0) * p < q, root * jnp.abs(v), self._room(x0, v))
        magnitude = magnitude * jnp.where(eps > _NEAR, 1, eps / _NEAR)
        moved = self._moved(x0, v, jnp.minimum(magnitude, eps))
        return jnp.where((column(s, x0) == 1) & (eps > 0), self._boxed(x), moved)

    def project_radially(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """AutoAttack's projection: scale the displacement to length eps if it is longer, then clip to the box. Feasible, two passes."""
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
        wide = wide / column(_positive(jnp.max(flat(jnp.abs(wide)), axis=1, initial=0)), g)
        return (wide / column(_positive(self._length(wide)), g)).astype(g.dtype)

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


@final
@struct
class L1(Ball):
    """Rows whose absolute changes sum to at most `eps`, and in `[lo, hi]`.

    Guarantee: `project` and `maximise` solve the problem on ball and box together.
    Args: as `LInf`.
    Cost: in elementwise passes as for `L2`: `project` after a sparse step 7 at [500, 784] and 5 at [64, 150528], from a standard normal
      displacement 15 and 12; `maximise` 17 and 11 (31 counting passes instead of a sort). The nearest point is found to the
      rounding of its level: with 150k elements in motion the norm may stay 1e-5 of eps below eps.
    Source: soft thresholding with clipping, see `_project.py`; same set as AutoAttack's `L1_projection` (Croce and Hein 2021, "Mind the
      box"), which sorts.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import L1
      >>> L1(eps=1.0).project(jnp.zeros((1, 3)), jnp.array([[2.0, 1.5, 0.1]])).tolist()
      [[0.75, 0.25, 0.0]]
    """

    norm: ClassVar[str] = "l1"

    eps: Any
    lo: Any = -math.inf
    hi: Any = math.inf

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        lo, hi, eps = self._leaves(x0)
        level = l1_level(_lengths, eps, x0, x, lo, hi)
        u, c = _lengths(x0, x, lo, hi)
        magnitude = jnp.clip(u - column(level, x0), 0, c)
        # the level is a float: with many elements near it the sum moves in steps, and the last bits are taken off by scaling
        total = jnp.sum(flat(magnitude), axis=1)
        magnitude = magnitude * column(lax.stop_gradient(jnp.minimum(eps / _positive(total), 1)), x0)
        moved = self._moved(x0, _displacement(x0, x), magnitude)
        return jnp.where(column((level == 0) & (eps > 0), x0), self._boxed(x), moved)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        return self._unit_moved(x0, _sample.each_row(_sample.l1_ball, keys, x0))

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """A standard normal displacement, projected: AutoAttack's start for L1."""
        noise = _sample.each_row(_sample.gaussian, keys, x0)
        return self.project(x0, (x0.astype(noise.dtype) + noise).astype(x0.dtype))

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The sign of the largest |g| among elements that the box does not block at `x`, at that element only."""
        free = self._room(x, g) > 0
        a = flat(jnp.where(free, jnp.abs(g), 0))
        top = jax.nn.one_hot(jnp.argmax(a, axis=1), a.shape[1], dtype=bool).reshape(x.shape)
        return jnp.where(top & free, jnp.sign(g), 0)

    def dual_norm(self, g: jax.Array) -> jax.Array:
        return jnp.max(flat(jnp.abs(g.astype(working_dtype(g)))), axis=1, initial=0)

    def _length(self, d: jax.Array) -> jax.Array:
        return jnp.sum(flat(jnp.abs(d)), axis=1)

    def _gain(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        eps = self.radius(x0)
        c = jnp.minimum(flat(self._room(x0, g)), eps[:, None])
        return greedy(flat(jnp.abs(g.astype(eps.dtype))), c, eps).reshape(x0.shape)


def _displacement(x0: jax.Array, x: jax.Array) -> jax.Array:
    dtype = working_dtype(x0)
    return x.astype(dtype) - x0.astype(dtype)


def _room_to(x0: jax.Array, direction: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
    wide = x0.astype(direction.dtype)
    return jnp.maximum(jnp.where(direction > 0, hi - wide, wide - lo), 0)


def _lengths(x0: jax.Array, x: jax.Array, lo: jax.Array, hi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(how far x is from x0, the room on that side), per element."""
    v = _displacement(x0, x)
    return jnp.abs(v), _room_to(x0, v, lo, hi)


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
    u, c = _lengths(x0, x, lo, hi)
    unit = _unit(eps, u.ndim)
    scaled = jnp.minimum(u / unit, _FAR)
    return scaled * scaled, _squared_room(c, unit)


def _direction_squares(x0: jax.Array, d: jax.Array, lo: jax.Array, hi: jax.Array, eps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(d**2, (room / eps)**2) for a direction d of unit length."""
    return d * d, _squared_room(_room_to(x0, d, lo, hi), _unit(eps, d.ndim))


def _positive(v: jax.Array) -> jax.Array:
    return jnp.maximum(v, jnp.finfo(v.dtype).tiny)
