"""The published code's bookkeeping, for `reference=True`: nothing is frozen, and the last misclassified iterate is returned."""

import jax
import jax.numpy as jnp

from ..core._struct import Struct, struct
from ._method import Track
from ._problem import Problem, expand


@struct
class Last(Struct):
    """Every leaf is [B, ...]: the last misclassified iterate, whether there was one, and the step of the first."""

    x: jax.Array
    success: jax.Array
    first_step: jax.Array


def start_last(problem: Problem) -> Last:
    """None seen yet."""
    rows = problem.y.shape
    return Last(x=problem.x0, success=jnp.zeros(rows, bool), first_step=jnp.full(rows, -1, jnp.int32))


def seen(last: Last, x: jax.Array, wrong: jax.Array, step: jax.Array | int) -> Last:
    """Enters one iterate."""
    return Last(
        x=jnp.where(expand(wrong, x), x, last.x),
        success=last.success | wrong,
        first_step=jnp.where(wrong & ~last.success, step, last.first_step),
    )


def returned(track: Track, last: Last) -> Track:
    """What the published code returns: the last misclassified iterate, else the one of the largest loss."""
    x = jnp.where(expand(last.success, track.x), last.x, track.x)
    return track.replace(x=x, success=last.success, candidate=last.success, first_step=last.first_step)
