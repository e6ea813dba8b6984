"""`L0`: rows that differ from the clean row in at most eps positions."""

import math
from typing import Any, ClassVar, Self, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ..core._select import kth_largest
from ..core._struct import static, struct
from . import _sample
from ._ball import check_leaves, room_to
from ._positions import by_position, channel_axis, over_elements
from ._rows import aligned, column, flat, per_row, shaped, working_dtype
from ._threat import Threat


@final
@struct
class L0(Threat):
    """Rows that differ from the clean row in at most `eps` positions, by any amount, and lie in `[lo, hi]`.

    Guarantee: `project` and `maximise` solve the problem on set and box together: they rank positions by what changing them gains.
    Args:
      eps: how many positions, a whole number >= 0, scalar or [B].
      lo, hi: as in `LInf`. `maximise`, `support`, `sample` and `steepest` read them: a change is bounded by nothing else.
      positions: "flat": every element or token is one. "chw", "hwc": a pixel with all its channels, in rows of three axes (static).
    Cost: that of `kth_largest` for the ranking; `contains` and `distance` one pass.
    Edge cases: rows of integers (token ids): `check`, `contains`, `distance` take them, against lo and hi in whatever dtype these have; the
      other operations raise TypeError. Where lo or hi is infinite: `support` and `dual_norm` are infinite, `maximise` and `steepest` go to
      that infinity, draws are NaN, or raise ValueError where the box can be looked at. Ties go to the position that comes first.
      -0.0 and 0.0 are no change.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import L0
      >>> threat = L0(eps=1, lo=0.0, hi=1.0)
      >>> threat.project(jnp.zeros((1, 3)), jnp.array([[0.2, 5.0, 0.9]])).tolist()
      [[0.0, 1.0, 0.0]]
      >>> threat.distance(jnp.array([[7, 8, 9]]), jnp.array([[7, 1, 2]])).tolist()
      [2.0]
    """

    norm: ClassVar[str] = "l0"

    eps: Any
    lo: Any = -math.inf
    hi: Any = math.inf
    positions: str = static(default="flat")

    def canonical(self, x: jax.Array) -> Self:
        return self.replace(eps=per_row("eps", self.eps, x), lo=aligned("lo", self.lo, x), hi=aligned("hi", self.hi, x))

    def check(self, x0: jax.Array) -> None:
        channel_axis(self.positions, x0.shape[1:])
        self.canonical(jax.ShapeDtypeStruct(x0.shape, jnp.float32) if _whole(x0) else x0)  # pyright: ignore[reportArgumentType]  # of its shape
        check_leaves("L0", self.eps, self.lo, self.hi, x0)
        if not isinstance(self.eps, Tracer):
            counted(self.eps)

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        boxed = self._boxed(x)
        # What changing an element gains is (x - x0)^2 - (x - boxed)^2 = (boxed - x0) ((x - x0) + (x - boxed)), both factors of one sign.
        # Its root, so that neither tiny changes vanish nor far points overflow.
        dtype = working_dtype(x0)
        x0_, x_, c = (lax.stop_gradient(v).astype(dtype) for v in (x0, x, boxed))
        root = jnp.sqrt(jnp.abs(c - x0_)) * jnp.sqrt(jnp.abs(x_ - x0_) + jnp.abs(x_ - c))
        root = by_position(jnp.where(c == x0_, 0, jnp.where(jnp.isnan(root), jnp.inf, root)), self.positions)
        most = jnp.max(root, axis=2, initial=0)
        ratio = jnp.where(root > 0, jnp.where(jnp.isinf(root), 1, root / most[..., None]), 0)
        out = jnp.where(self._best(x0, most * jnp.sqrt(jnp.sum(ratio * ratio, axis=2))), boxed, x0)
        return jnp.where(jnp.isnan(x), x, out)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """eps positions without preference, each element uniform between lo and hi."""
        return self._drawn(keys, x0, lambda u: (u + 1) / 2)

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """eps positions without preference, each element at lo or at hi."""
        return self._drawn(keys, x0, lambda u: (u > 0).astype(u.dtype))

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        lo, hi = aligned("lo", self.lo, x0), aligned("hi", self.hi, x0)
        corner = jnp.where(g > 0, hi.astype(x0.dtype), jnp.where(g < 0, lo.astype(x0.dtype), x0))
        return jnp.where(self._best(x0, self._gains(x0, g)), corner, x0)

    def support(self, x0: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim == x0.ndim + 1:
            return jax.vmap(lambda v: self.support(x0, v), in_axes=1, out_axes=1)(w)
        w = w.astype(working_dtype(x0))
        # Danskin, as in `Ball.support`
        moved = jnp.where(self._best(x0, self._gains(x0, lax.stop_gradient(w))), self._room(x0, w), 0)
        return jnp.sum(flat(w * x0.astype(w.dtype) + jnp.abs(w) * moved), axis=1)

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The best change of one position: to the corner of the box that g points to."""
        one = L0(eps=1, lo=self.lo, hi=self.hi, positions=self.positions)
        moved = jnp.where(one._best(x, one._gains(x, g)), one._room(x, g), 0)
        return jnp.where(moved > 0, jnp.sign(g).astype(moved.dtype) * moved, 0).astype(g.dtype)

    def contains(self, x0: jax.Array, x: jax.Array, *, tolerance: float = 0.0) -> jax.Array:
        """[B] bool: exact, unless `tolerance` (relative to eps) is given. NaN is not inside."""
        rows = jax.ShapeDtypeStruct(x.shape, jnp.float32) if _whole(x) else x
        lo, hi = (shaped(name, jnp.asarray(v), x) for name, v in (("lo", self.lo), ("hi", self.hi)))
        if not _whole(x):
            lo, hi = lo.astype(x.dtype), hi.astype(x.dtype)
        eps = jnp.floor(per_row("eps", self.eps, rows))  # pyright: ignore[reportArgumentType]  # its shape and dtype are read
        return (self.distance(x0, x) <= eps * (1 + tolerance)) & jnp.all(flat((x >= lo) & (x <= hi)), axis=1)

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """[B] how many positions differ."""
        changed = jnp.any(by_position(x0 != x, self.positions), axis=2)
        return jnp.sum(changed, axis=1, dtype=jnp.int32).astype(jnp.float32 if _whole(x) else working_dtype(x))

    def dual_norm(self, g: jax.Array) -> jax.Array:
        """[B] infinite where g is not 0: without a box one position gains without end."""
        dtype = working_dtype(g)
        return jnp.where(jnp.any(flat(g != 0), axis=1), jnp.asarray(jnp.inf, dtype), jnp.zeros((), dtype))

    def radius(self, x: jax.Array) -> jax.Array:
        return per_row("eps", self.eps, x)

    def scaled(self, factor: Any) -> Self:
        """The set with eps times `factor`, rounded down."""
        return self.replace(eps=jnp.floor(jnp.asarray(self.eps) * factor))

    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The whole box where eps is at least 1, else `x0`."""
        some = column(self.radius(x0) >= 1, x0)
        lo, hi = (jnp.broadcast_to(aligned(n, v, x0).astype(x0.dtype), x0.shape) for n, v in (("lo", self.lo), ("hi", self.hi)))
        return jnp.where(some, lo, x0), jnp.where(some, hi, x0)

    def _boxed(self, x: jax.Array) -> jax.Array:
        return jnp.clip(x, aligned("lo", self.lo, x).astype(x.dtype), aligned("hi", self.hi, x).astype(x.dtype))

    def _room(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        """[B, ...] how far each element can go along g's sign; 0 where that is 0."""
        lo, hi = aligned("lo", self.lo, x0), aligned("hi", self.hi, x0)
        return jnp.where(g != 0, room_to(x0, g.astype(lo.dtype), lo, hi), 0)

    def _gains(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        """[B, D] what the best change of each position adds to <g, x>."""
        wide = jnp.abs(g.astype(working_dtype(x0)))
        # over the largest, so that small gradients do not vanish in float32
        wide = wide / column(jnp.maximum(jnp.max(flat(wide), axis=1, initial=0), jnp.finfo(wide.dtype).tiny), g)
        gain = jnp.where(g != 0, wide * self._room(x0, g), 0)
        return jnp.sum(by_position(lax.stop_gradient(gain), self.positions), axis=2)

    def _best(self, x0: jax.Array, gains: jax.Array) -> jax.Array:
        """[B, ...] bool, broadcast over channels: the eps positions of largest gain, the first of equal ones."""
        k = jnp.minimum(jnp.floor(lax.stop_gradient(self.radius(x0))), gains.shape[1]).astype(jnp.int32)
        return over_elements(_top(gains, k), self.positions, x0.shape[1:])

    def _drawn(self, keys: jax.Array, x0: jax.Array, value: Any) -> jax.Array:
        for name, bound in (("lo", self.lo), ("hi", self.hi)):
            if not isinstance(bound, Tracer) and not np.all(np.isfinite(np.asarray(bound))):
                raise ValueError(f"L0 has {name}={bound}; draws need a finite box: give the range of valid inputs as lo and hi.")
        which, where = jnp.moveaxis(jax.vmap(jax.random.split)(_sample.keys_of(keys, x0)), 1, 0)
        lottery = jnp.max(by_position(_sample.each_row(_sample.linf_ball, which, x0) + 1, self.positions), axis=2)
        lo, hi = aligned("lo", self.lo, x0), aligned("hi", self.hi, x0)
        x = lo + (hi - lo) * value(_sample.each_row(_sample.linf_ball, where, x0))
        return jnp.where(self._best(x0, lottery), self._boxed(x.astype(x0.dtype)), x0)


@jax.jit  # outside of a trace the loop in `kth_largest` would be compiled anew at every call
def _top(gains: jax.Array, k: jax.Array) -> jax.Array:
    """[B, D] bool: the k largest of each row, the first of equal ones; none for k = 0, although `last` is then the largest."""
    last = kth_largest(gains, k)[:, None]
    above, at = gains > last, gains == last
    left = k - jnp.sum(above, axis=1, dtype=jnp.int32)
    return above | (at & (jnp.cumsum(at, axis=1, dtype=jnp.int32) <= left[:, None]))


def counted(eps: Any) -> None:
    """ValueError for an eps that counts nothing."""
    values = np.asarray(eps)
    if not np.all(np.isfinite(values) & (values >= 0) & (values == np.floor(values))):
        wrong = values[~(np.isfinite(values) & (values >= 0) & (values == np.floor(values)))].flat[0]
        raise ValueError(f"L0 has eps={wrong}; it counts positions: give a whole number >= 0.")


def _whole(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)
