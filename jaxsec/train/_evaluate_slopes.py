"""Whether a model's gradients say how it changes: those of a defence that hides them may be live and say nothing.

Near the row, at a few hundredths of the set's size, the margin of an honest model goes where its gradient points; a wave of no use to the
classes, or a step that something else carries, does not.
"""

import jax
import jax.numpy as jnp

from ..core import Model
from ..core._keys import fold
from ..threat import Threat
from ._evaluate_blind import margin_of

DIRECTIONS, WIDTHS = 8, (0.03, 0.003)


@jax.jit
def false_slopes(model: Model, x: jax.Array, y: jax.Array, threat: Threat, keys: jax.Array) -> jax.Array:
    """[B] bool: in most directions in which the margin or its gradient tells of a change, each is off by more than half at both widths.

    Args: model: deterministic. threat: canonical. keys: [B] of the rows. Changes within rounding tell nothing.
    """

    def margins(at: jax.Array) -> jax.Array:
        return margin_of(model(at).astype(jnp.float32), y)

    start, slope = margins(x), jax.grad(lambda at: jnp.sum(margins(at)))(x)

    def tried(counts: tuple[jax.Array, jax.Array], j: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        told, false = jnp.zeros(len(y), bool), jnp.ones(len(y), bool)
        way = threat.sample_boundary(fold(keys, j), x) - x
        for width in WIDTHS:
            at = threat.project(x, x + width * way)
            said = jnp.sum((slope * (at - x)).reshape(len(y), -1), axis=1)
            done = margins(at) - start
            size = jnp.maximum(jnp.abs(said), jnp.abs(done))
            tells = size > 1e-4 * (1 + jnp.abs(start))
            told, false = told | tells, false & (~tells | (jnp.abs(said - done) > 0.5 * size))
        return (counts[0] + told, counts[1] + (told & false)), None

    zero = jnp.zeros(len(y), jnp.int32)
    (told, false), _ = jax.lax.scan(tried, (zero, zero), jnp.arange(DIRECTIONS))
    return (2 * false > told) & (told > 0)
