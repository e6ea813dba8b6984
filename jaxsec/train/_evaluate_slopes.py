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

DIRECTIONS, WIDTHS = 8, (0.1, 0.03, 0.003)
# Share of the squared changes that a gradient may leave unexplained. Of equal inputs a hidden share of them is the share of the margin that
# an attack along the gradient cannot take.
UNSAID = 0.1
KEPT = 0.5  # a ripple that turns the sign of a gradient somewhere is as steep as it: less than this share is left of their squares
FALSE, UNTOLD = 1, 2


@jax.jit
def false_slopes(model: Model, x: jax.Array, y: jax.Array, threat: Threat, keys: jax.Array) -> jax.Array:
    """[B] of FALSE, UNTOLD or 0. False: at both narrow widths the margin's changes in random directions are not those that its gradient
    says, by more than `UNSAID`; or at both wide ones they are not, and are less than `KEPT` of them (in squares).

    The latter is a ripple, whose gradient is true at each point and promises what never comes; an honest net may bend as early, at a
    maximum of near equals or a point of many kinks, but goes about as far as it said.

    Args: model: computes in float32 (`rounds` tells); a stochastic one is asked with one draw, a row's own and the same at every point.
      threat: canonical. keys: [B] of the rows.
    Edge cases: changes within float32's rounding tell nothing; where no other was met the row is `UNTOLD`. The point is near the row and
      not the row itself, where maxima of equal pixels have no gradient.
    """
    quick = model if model.stochastic else tuned(model)

    def margins(at: jax.Array) -> tuple[jax.Array, jax.Array]:
        """And the size of the logits, of which float32 rounds a share that is theirs whatever they have in common."""
        z = (quick(at, fold(keys, DIRECTIONS + 1)) if model.stochastic else quick(at)).astype(jnp.float32)
        return margin_of(z, y), jnp.max(jnp.abs(z), axis=1)

    centre = threat.project(x, x + 0.1 * (threat.sample(fold(keys, DIRECTIONS), x) - x))
    start, size = margins(centre)
    slope = jax.grad(lambda at: jnp.sum(margins(at)[0]))(centre)

    def tried(sums: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
        way = threat.sample_boundary(fold(keys, j), x) - x
        found = []
        for width in WIDTHS:
            at = threat.project(x, centre + width * way)
            said = jnp.sum((slope * (at - centre)).reshape(len(y), -1), axis=1)
            done = margins(at)[0] - start
            change = jnp.maximum(jnp.abs(said), jnp.abs(done))
            tells = change > 2e-5 * (1 + size)
            found.append(jnp.where(tells, jnp.square(jnp.stack([said - done, change, said, done])), 0))
        return sums + jnp.stack(found), None

    sums = jax.lax.scan(tried, jnp.zeros((len(WIDTHS), 4, len(y))), jnp.arange(DIRECTIONS))[0]
    unsaid, all_changes, promised, kept = jnp.moveaxis(sums, 1, 0)
    told = all_changes > 0
    wide, middle, narrow = ~told | ~(unsaid <= UNSAID * all_changes)
    empty = jnp.all((told & ~(kept >= KEPT * promised))[:2], axis=0)
    return jnp.where(~jnp.any(told, axis=0), UNTOLD, jnp.where(middle & (narrow | (wide & empty)), FALSE, 0))


def rounds(model: Model, x: jax.Array, keys: jax.Array) -> bool:
    """Whether a value of the model has fewer bits than float32."""

    def coarse(v: Any) -> bool:
        dtype = getattr(getattr(v, "aval", None), "dtype", None)
        return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32

    closed = jax.make_jaxpr(model)(x, keys) if model.stochastic else jax.make_jaxpr(model)(x)
    return any(coarse(v) for eqn in equations(closed.jaxpr) for v in (*eqn.invars, *eqn.outvars))
