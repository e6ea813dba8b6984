"""`LInf`, `L2`, `L1`: a ball around the clean input, cut by the box of valid inputs."""

import abc
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from ..core._select import concave_root, fill_knapsack
from ..core._struct import struct
from . import _project
from ._threat import Threat


def flat(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B, D]."""
    return x.reshape(x.shape[0], -1)


class _Ball(Threat, abc.ABC):
    """What the three balls share; `eps`, `lo`, `hi` are declared by each of them."""

    eps: Any
    lo: Any
    hi: Any

    def normalised(self, x0: jax.Array) -> Self:
        dtype = jnp.float32 if x0.dtype in (jnp.bfloat16, jnp.float16) else x0.dtype
        row = x0.shape[1:]
        return self.replace(
            eps=jnp.broadcast_to(jnp.asarray(self.eps, dtype), x0.shape[:1]),
            lo=jnp.broadcast_to(jnp.asarray(self.lo, x0.dtype), row),
            hi=jnp.broadcast_to(jnp.asarray(self.hi, x0.dtype), row),
        )

    def take(self, rows: jax.Array) -> Self:
        return self.replace(eps=self.eps[rows])

    def scaled(self, factor: jax.Array | float) -> Self:
        return self.replace(eps=self.eps * factor)

    def radius(self, x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(self.eps, jnp.float32), x.shape[:1])

    def _parts(self, x0: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """eps [B] or scalar as [B], and the box as [1, D], in the dtype the arithmetic runs in."""
        dtype = jnp.promote_types(x0.dtype, jnp.float32)
        eps = jnp.broadcast_to(jnp.asarray(self.eps, dtype), x0.shape[:1])
        lo = jnp.broadcast_to(jnp.asarray(self.lo, dtype), x0.shape[1:]).reshape(1, -1)
        hi = jnp.broadcast_to(jnp.asarray(self.hi, dtype), x0.shape[1:]).reshape(1, -1)
        return eps, lo, hi

    def _in_box(self, x: jax.Array) -> jax.Array:
        ok = (x >= jnp.asarray(self.lo, x.dtype)) & (x <= jnp.asarray(self.hi, x.dtype))
        return jnp.all(flat(ok), axis=1)

    def contains(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        d = self.distance(x0, x)
        # rounding x to its dtype moves each coordinate by half an ulp; the sum of D of them moves the norm by at most `ulp`
        ulp = float(jnp.finfo(x.dtype).eps) * jnp.max(jnp.abs(flat(x)).astype(jnp.float32), axis=1)
        return (d <= jnp.asarray(self.eps, jnp.float32) * (1 + 2e-6) + self._rounding(flat(x).shape[1]) * ulp) & self._in_box(x)

    def _rounding(self, d: int) -> float:
        return 1.0

    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        eps, lo, hi = self._parts(x0)
        v = flat(x0).astype(eps.dtype)
        low, high = jnp.maximum(v - eps[:, None], lo), jnp.minimum(v + eps[:, None], hi)
        return low.reshape(x0.shape).astype(x0.dtype), high.reshape(x0.shape).astype(x0.dtype)

    def _per_row(self, x0: jax.Array, x: jax.Array, project: Any) -> jax.Array:
        eps, lo, hi = self._parts(x0)
        z = project(flat(x0).astype(eps.dtype), flat(x).astype(eps.dtype), eps, lo, hi)
        return z.reshape(x0.shape).astype(x0.dtype)


@struct
class LInf(_Ball):
    """`{x : |x - x0|_inf <= eps, lo <= x <= hi}`.

    Guarantee: `project` ends in a clip to the very numbers that `contains` compares with, so feasibility is exact.
    Args: eps: scalar or [B], input units. lo, hi: valid inputs, scalar or one row's shape.
    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> t = jaxsec.LInf(eps=0.5, lo=0.0, hi=1.0)
      >>> t.project(jnp.zeros((1, 2)), jnp.array([[0.7, -0.2]])).tolist()
      [[0.5, 0.0]]
    """

    norm: ClassVar[str] = "linf"
    eps: Any
    lo: Any = -np.inf
    hi: Any = np.inf

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        low, high = self.interval(x0)
        return jnp.clip(x, low, high)

    def contains(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        low, high = self.interval(x0)
        return jnp.all(flat((x >= low) & (x <= high)), axis=1)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        eps = jnp.broadcast_to(jnp.asarray(self.eps, x0.dtype), x0.shape[:1])
        u = jax.vmap(lambda k: jax.random.uniform(k, x0.shape[1:], x0.dtype, -1.0, 1.0))(keys)
        return self.project(x0, x0 + eps.reshape(-1, *[1] * (x0.ndim - 1)) * u)

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        u = flat(jax.vmap(lambda k: jax.random.uniform(k, x0.shape[1:], x0.dtype, -1.0, 1.0))(keys))
        eps = jnp.broadcast_to(jnp.asarray(self.eps, x0.dtype), x0.shape[:1])[:, None]
        return self.project(x0, x0 + (eps * u / jnp.max(jnp.abs(u), axis=1, keepdims=True)).reshape(x0.shape))

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.sign(g)

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        low, high = self.interval(x0)
        return jnp.where(g > 0, high, jnp.where(g < 0, low, jnp.clip(x0, low, high)))

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(flat(x).astype(jnp.float32) - flat(x0).astype(jnp.float32)), axis=1)


@struct
class L2(_Ball):
    """`{x : |x - x0|_2 <= eps, lo <= x <= hi}`; the projection onto the intersection is exact, not "rescale, then clip".

    Args: as `LInf`; `x0` must lie in the box. Tolerance of `contains`: 2e-6 relative plus the rounding of x to its dtype.
    Cost: 3 to 6 passes over the rows per projection.
    """

    norm: ClassVar[str] = "l2"
    eps: Any
    lo: Any = -np.inf
    hi: Any = np.inf

    def _rounding(self, d: int) -> float:
        return float(np.sqrt(d))

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        return self._per_row(x0, x, _project.l2)

    def project_radially(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """Rescale into the ball, then clip to the box: feasible, but not the nearest point (what published code does)."""

        def radial(x0: jax.Array, x: jax.Array, eps: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
            d = x - x0
            n = jnp.sqrt(jnp.sum(d * d, axis=1))
            return jnp.clip(x0 + d * (jnp.minimum(n, eps) / (n + 1e-12))[:, None], lo, hi)

        return self._per_row(x0, x, radial)

    def _gaussian(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        g = flat(jax.vmap(lambda k: jax.random.normal(k, x0.shape[1:], jnp.float32))(keys))
        return g / jnp.maximum(jnp.linalg.norm(g, axis=1, keepdims=True), 1e-30)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        g = self._gaussian(keys, x0)
        u = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 1)))(keys)
        length = self.radius(x0) * u ** (1.0 / g.shape[1])
        return self.project(x0, x0 + (length[:, None] * g).reshape(x0.shape).astype(x0.dtype))

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        step = self.radius(x0)[:, None] * self._gaussian(keys, x0)
        return self.project(x0, x0 + step.reshape(x0.shape).astype(x0.dtype))

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        v = flat(g).astype(jnp.promote_types(g.dtype, jnp.float32))
        v = v / jnp.maximum(jnp.max(jnp.abs(v), axis=1, keepdims=True), 1e-30)  # so that tiny gradients do not underflow when squared
        n = jnp.sqrt(jnp.sum(v * v, axis=1, keepdims=True))
        return (v / jnp.maximum(n, 1e-12)).reshape(g.shape).astype(g.dtype)

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        def best(x0: jax.Array, g: jax.Array, eps: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
            g = g / jnp.maximum(jnp.max(jnp.abs(g), axis=1, keepdims=True), 1e-30)
            gap = jnp.minimum(_project.room(x0, g, lo, hi), 1e9)
            s = jnp.sqrt(concave_root(g * g, gap * gap, eps * eps))[:, None]
            step = jnp.minimum(jnp.where(g == 0, 0.0, s * jnp.abs(g)), gap)  # s is inf where the whole box fits the ball
            return jnp.clip(x0 + jnp.sign(g) * step, lo, hi)

        return self._per_row(x0, g, best)

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        d = flat(x).astype(jnp.float32) - flat(x0).astype(jnp.float32)
        return jnp.sqrt(jnp.sum(d * d, axis=1))


@struct
class L1(_Ball):
    """`{x : |x - x0|_1 <= eps, lo <= x <= hi}`; the projection onto the intersection is exact.

    Args: as `LInf`; `x0` must lie in the box. Tolerance of `contains`: 2e-6 relative plus the rounding of x to its dtype.
    Cost: 5 to 12 passes over the rows per projection; 31 per `maximise`.
    Source: Croce and Hein 2021 ("Mind the box"), proposition 2.1, with a root search in place of the sort.
    """

    norm: ClassVar[str] = "l1"
    eps: Any
    lo: Any = -np.inf
    hi: Any = np.inf

    def _rounding(self, d: int) -> float:
        return float(d)

    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        return self._per_row(x0, x, _project.l1)

    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        d = flat(x0).shape[1]

        def one(key: jax.Array) -> jax.Array:
            # d of d + 1 exponentials over their sum are uniform in the simplex's corner; random signs make it the ball
            a, b = jax.random.split(key)
            e = jax.random.exponential(a, (d + 1,))
            return jax.random.rademacher(b, (d,), jnp.float32) * e[:d] / jnp.sum(e)

        step = self.radius(x0)[:, None] * jax.vmap(one)(keys)
        return self.project(x0, x0 + step.reshape(x0.shape).astype(x0.dtype))

    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        g = jax.vmap(lambda k: jax.random.normal(k, x0.shape[1:], x0.dtype))(keys)
        return self.project(x0, x0 + g)

    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        _, lo, hi = self._parts(x)
        v, at = flat(g), flat(x)
        free = jnp.where(v > 0, at < hi, at > lo)  # a coordinate at the wall cannot move
        size = jnp.where(free, jnp.abs(v), 0.0)
        best = jax.nn.one_hot(jnp.argmax(size, axis=1), v.shape[1], dtype=v.dtype)
        return (best * jnp.sign(v) * (size > 0)).reshape(g.shape)

    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        def best(x0: jax.Array, g: jax.Array, eps: jax.Array, lo: jax.Array, hi: jax.Array) -> jax.Array:
            gap = jnp.where(g == 0, 0.0, jnp.minimum(_project.room(x0, g, lo, hi), eps[:, None]))
            return jnp.clip(x0 + jnp.sign(g) * fill_knapsack(jnp.abs(g), gap, eps), lo, hi)

        return self._per_row(x0, g, best)

    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(flat(x).astype(jnp.float32) - flat(x0).astype(jnp.float32)), axis=1)
