"""What the norm balls share: a ball around each clean row, cut with a box of valid inputs."""

import abc
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ._rows import add_inward, add_outward, aligned, column, flat, per_row, working_dtype
from ._threat import Threat


class Ball(Threat):
    """What the three norms share. Final classes declare the fields."""

    eps: Any
    lo: Any
    hi: Any

    def canonical(self, x: jax.Array) -> Self:
        return self.replace(eps=per_row("eps", self.eps, x), lo=aligned("lo", self.lo, x), hi=aligned("hi", self.hi, x))

    def check(self, x0: jax.Array) -> None:
        self.canonical(x0)
        check_leaves(type(self).__name__, self.eps, self.lo, self.hi, x0)

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
        # a NaN makes the distance NaN and the comparison False
        near = self.distance(x0, x) <= self.radius(x) * (1 + tolerance)
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
        return room_to(x0, direction.astype(lo.dtype), lo, hi)

    def _leaves(self, x0: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(lo, hi, eps) as `canonical` has them."""
        return aligned("lo", self.lo, x0), aligned("hi", self.hi, x0), self.radius(x0)

    def _moved(self, x0: jax.Array, direction: jax.Array, magnitude: jax.Array) -> jax.Array:
        wide = x0.astype(working_dtype(x0))
        return self._boxed(add_inward(wide, jnp.sign(direction).astype(wide.dtype) * magnitude, x0.dtype))

    def _unit_moved(self, x0: jax.Array, unit: jax.Array) -> jax.Array:
        wide = x0.astype(unit.dtype)
        return self._boxed(add_inward(wide, column(self.radius(x0), x0) * unit, x0.dtype))


def check_leaves(name: str, eps: Any, lo: Any, hi: Any, x0: Any) -> None:
    """ValueError for an eps that is no radius, and as `check_box`; tracers are not looked at."""
    eps, lo, hi, rows = (None if isinstance(v, Tracer) else np.asarray(v) for v in (eps, lo, hi, x0))
    if eps is not None and not np.all((eps >= 0) & np.isfinite(eps)):
        wrong = eps[~((eps >= 0) & np.isfinite(eps))].flat[0]
        raise ValueError(f"{name} has eps={wrong}; a radius is a finite number >= 0, in the units of the input.")
    check_box(name, lo, hi, rows)


def check_box(name: str, lo: np.ndarray | None, hi: np.ndarray | None, rows: np.ndarray | None) -> None:
    """Raises ValueError for an empty box, and for rows outside of it; None is not looked at."""
    if lo is not None and hi is not None and not np.all(lo <= hi):
        raise ValueError(f"{name} has lo={lo}, hi={hi}; lo must be <= hi everywhere.")
    for bound, outside, word in ((lo, np.less, "below lo"), (hi, np.greater, "above hi")):
        if bound is not None and rows is not None:
            limit = np.asarray(bound, rows.dtype) if np.issubdtype(rows.dtype, np.inexact) else bound
            if np.any(outside(rows, limit)):
                raise ValueError(
                    f"x0 spans [{rows.min()}, {rows.max()}] and has elements {word}={bound}; clean rows must lie in the box. "
                    "Scale the inputs (x / 255?) or give the true range as lo and hi."
                )


def displacement(x0: jax.Array, x: jax.Array) -> jax.Array:
    dtype = working_dtype(x0)
    return x.astype(dtype) - x0.astype(dtype)


def room_to(x0: jax.Array, direction: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
    wide = x0.astype(direction.dtype)
    return jnp.maximum(jnp.where(direction > 0, hi - wide, wide - lo), 0)


def lengths(x0: jax.Array, x: jax.Array, lo: jax.Array, hi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(how far x is from x0, the room on that side), per element."""
    v = displacement(x0, x)
    return jnp.abs(v), room_to(x0, v, lo, hi)


def positive(v: jax.Array) -> jax.Array:
    return jnp.maximum(v, jnp.finfo(v.dtype).tiny)
