"""The inner maximisation: a few ascent steps inside the threat set, without the bookkeeping of an attack that reports."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core._keys import fold
from ..core._manual import marked_like
from ..threat import Threat

Objective = Callable[[jax.Array], jax.Array]


def ascend(
    objective: Objective,
    x: jax.Array,
    threat: Threat,
    keys: jax.Array,
    *,
    steps: int,
    step_size: Any = None,
    start: str | jax.Array = "uniform",
) -> jax.Array:
    """The rows [B, ...] that `steps` steepest steps make of `x`, inside the threat set; no gradient flows through them.

    Args:
      objective: rows [B, ...] -> [B], to be raised.
      step_size: in multiples of eps; None means `2.5 / steps`.
      start: "uniform" in the set, "gaussian" (0.001 times a normal variable, as TRADES starts, whose objective is flat at x), or "clean".
    Cost: `steps` forwards and input gradients; memory of one more batch.
    """
    ratio = 2.5 / steps if step_size is None else step_size
    if isinstance(start, jax.Array):
        at = start
    elif start == "uniform":
        at = threat.sample(fold(keys, 0), x)
    elif start == "gaussian":
        noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(fold(keys, 0))
        at = threat.project(x, x + 0.001 * noise)
    else:
        at = x
    length = (threat.radius(x) * ratio).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))

    def step(_: jax.Array, at: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda v: jnp.sum(objective(v)))(at)
        return threat.project(x, at + length * threat.steepest(at, gradient))

    at = jax.lax.fori_loop(0, steps, step, marked_like(at, x)) if steps else at
    return jax.lax.stop_gradient(at)


def worst_of(recipe: Any, objective: Objective, x: jax.Array, keys: jax.Array, threat: Threat | None = None) -> jax.Array:
    """`ascend` with a recipe's `threat` (or another one), `steps`, `step_size` and `start`."""
    inside = recipe.threat if threat is None else threat
    return ascend(objective, x, inside, keys, steps=recipe.steps, step_size=recipe.step_size, start=recipe.start)
