"""A search without gradients for any model and any threat set: what finds more without them than others did with them shows masking.

Directions from the clean row to the surface of the set are drawn, the margin is asked at both ends of each, and the iterate moves against
what the answers say: SPSA of Uesato et al. 2018 (section 3.3), with probes as wide as the set is, which steps in the model do not blind.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..core import Model
from ..core._keys import fold
from ..core._losses import margin
from ..core._rewrite import tuned
from ..threat import Threat

STEPS, PAIRS, WIDTHS = 20, 12, (0.5, 0.1)


def margin_of(z: jax.Array, y: jax.Array) -> jax.Array:
    """[B] the label's logit less the largest other; -inf where a logit is not finite."""
    return jnp.where(jnp.all(jnp.isfinite(z), axis=1), -margin(z, y), -jnp.inf)


@functools.partial(jax.jit, static_argnames=("draws",))
def search(model: Model, x: Any, y: Any, threat: Threat, keys: jax.Array, *, draws: int) -> jax.Array:
    """[B, ...] inside the set: of the iterates the one of the smallest margin; of a stochastic model, of the mean margin of `draws` draws.

    Args: threat: canonical. keys: [B] of the rows; a model's draws are the same at every point of a step.
    """
    quick = model if model.stochastic else tuned(model)

    def margins(at: jax.Array, step: jax.Array) -> jax.Array:
        if not model.stochastic:
            return margin_of(quick(at).astype(jnp.float32), y)
        own = fold(fold(keys, 0), step)
        found = jax.lax.map(lambda d: margin_of(quick(at, fold(own, d)).astype(jnp.float32), y), jnp.arange(draws))
        return jnp.mean(found, axis=0)

    def column(v: jax.Array) -> jax.Array:
        return v.reshape(-1, *(1,) * (x.ndim - 1))

    def step(carry: tuple[jax.Array, ...], i: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        at, best, lowest, slope = carry
        own = fold(fold(keys, 1), i)

        def probed(total: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
            way = threat.sample_boundary(fold(own, j), x) - x
            for width in WIDTHS:
                there, back = (margins(threat.project(x, at + s * width * way), i) for s in (1.0, -1.0))
                change = jnp.where(jnp.isfinite(there - back), there - back, 0)
                total = total - (column(change / width) * way).astype(total.dtype)
            return total, None

        slope = jax.lax.scan(probed, 0.75 * slope, jnp.arange(PAIRS))[0]
        length = column(threat.radius(x) * 2 * (1 - i / STEPS)).astype(x.dtype)
        at = threat.project(x, at + length * threat.steepest(at, slope))
        found = margins(at, i)
        better = found < lowest
        return (at, jnp.where(column(better), at, best), jnp.where(better, found, lowest), slope), None

    start = (x, x, margins(x, jnp.int32(0)), jnp.zeros_like(x))
    return jax.lax.scan(step, start, jnp.arange(STEPS))[0][1]
