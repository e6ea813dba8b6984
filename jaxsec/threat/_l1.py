"""`L1`: rows whose absolute changes sum to at most eps."""

import math
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from jax import lax

from ..core._struct import struct
from . import _sample
from ._ball import Ball, displacement, lengths, positive
from ._project import greedy, l1_level
from ._rows import column, flat, rounded, working_dtype


@final
@struct
class L1(Ball):
    """Rows whose absolute changes sum to at most `eps`, and in `[lo, hi]`.

    Guarantee: `project` and `maximise` solve the problem on ball and box together.
    Args: as `LInf`.
    Cost: in elementwise passes as for `L2`: `project` after a sparse step 7 at [500, 784] and 5 at [64, 150528], from a standard normal
      displacement 15 and 12; `maximise` 17 and 11 (31 counting passes instead of a sort). The nearest point is found to the
      rounding of its level: with 150k elements in motion the norm may stay 1e-5 of eps below eps, and more where a point lies far
      outside: a displacement of 1e4 eps leaves up to 1e-3.
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
        x = rounded(x)  # what is measured must be what is returned
        lo, hi, eps = self._leaves(x0)
        level = l1_level(lengths, eps, x0, x, lo, hi)
        u, c = lengths(x0, x, lo, hi)
        magnitude = jnp.clip(u - column(level, x0), 0, c)
        # the level is a float: with many elements near it the sum moves in steps, and the last bits are taken off by scaling
        total = jnp.sum(flat(magnitude), axis=1)
        magnitude = magnitude * column(lax.stop_gradient(jnp.minimum(eps / positive(total), 1)), x0)
        moved = self._moved(x0, displacement(x0, x), magnitude)
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
