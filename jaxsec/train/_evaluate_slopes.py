"""Whether a model's gradients say how it changes: those of a defence that hides them may be live and say nothing.

Near a point of the set, at a few hundredths of its size, the margin of an honest model goes where its gradient points; a wave of no use to
the classes, or a step that something else carries, does not.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Model
from ..core._keys import fold
from ..core._rewrite import tuned
from ..core._walk import equations
from ..threat import Threat
from ._evaluate_blind import margin_of

DIRECTIONS, WIDTHS = 8, (0.03, 0.003)


@jax.jit
def false_slopes(model: Model, x: jax.Array, y: jax.Array, threat: Threat, keys: jax.Array) -> jax.Array:
    """[B] bool: in most directions in which the margin or its gradient tells of a change, each is off by more than half at both widths.

    Args: model: deterministic. threat: canonical. keys: [B] of the rows.
    Edge cases: changes within rounding tell nothing, and so of a model that computes in half precision none does. The point is near the
      row and not the row itself, where maxima of equal pixels have no gradient.
    """
    if _rounds(model, x):
        return jnp.zeros(len(y), bool)
    quick = tuned(model)

    def margins(at: jax.Array) -> jax.Array:
        return margin_of(quick(at).astype(jnp.float32), y)

    centre = threat.project(x, x + 0.1 * (threat.sample(fold(keys, DIRECTIONS), x) - x))
    start, slope = margins(centre), jax.grad(lambda at: jnp.sum(margins(at)))(centre)

    def tried(counts: tuple[jax.Array, jax.Array], j: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        told, false = jnp.zeros(len(y), bool), jnp.ones(len(y), bool)
        way = threat.sample_boundary(fold(keys, j), x) - x
        for width in WIDTHS:
            at = threat.project(x, centre + width * way)
            said = jnp.sum((slope * (at - centre)).reshape(len(y), -1), axis=1)
            done = margins(at) - start
            size = jnp.maximum(jnp.abs(said), jnp.abs(done))
            tells = size > 1e-4 * (1 + jnp.abs(start))
            told, false = told | tells, false & (~tells | (jnp.abs(said - done) > 0.5 * size))
        return (counts[0] + told, counts[1] + (told & false)), None

    zero = jnp.zeros(len(y), jnp.int32)
    (told, false), _ = jax.lax.scan(tried, (zero, zero), jnp.arange(DIRECTIONS))
    return (2 * false > told) & (told > 0)


def _rounds(model: Model, x: jax.Array) -> bool:
    """Whether a value of the model has fewer bits than float32."""

    def coarse(v: Any) -> bool:
        dtype = getattr(getattr(v, "aval", None), "dtype", None)
        return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32

    closed = jax.make_jaxpr(model)(x)
    return any(coarse(v) for eqn in equations(closed.jaxpr) for v in (*eqn.invars, *eqn.outvars))
