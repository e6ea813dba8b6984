"""The base of recipes made of a recipe."""

from typing import Any, Self

import jax
import numpy as np
from jax.core import Tracer

from ..core import Model, struct
from ._defence import Defence
from ._net import Net
from ._recipe import Metrics, Recipe


def check_range(recipe: Any, field: str, least: float, most: float = np.inf) -> None:
    """ValueError where a number among a recipe's fields is out of range; traced ones are not looked at."""
    value = getattr(recipe, field)
    if not isinstance(value, Tracer) and not np.all((np.asarray(value) >= least) & (np.asarray(value) <= most)):
        allowed = f"at least {least:g}" if most == np.inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{recipe.name} got {field}={value}; it must be {allowed}.")


@struct
class Wrapped(Recipe):
    """Base of recipes around a `recipe`: everything is the inner recipe's, and a subclass changes what it says it changes."""

    recipe: Any

    def check(self, net: Net, x: jax.Array) -> None:
        if self.recipe.shares_pass:
            raise ValueError(
                f"{self.name} cannot wrap {self.recipe.name}, whose perturbation moves in the pass that trains; wrap pgd-at or fast-at."
            )
        self.recipe.check(net, x)

    @property
    def single_step(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.recipe.single_step

    @property
    def threats(self) -> tuple[Any, ...]:
        return self.recipe.threats

    @property
    def grows(self) -> bool:
        return self.recipe.grows

    @property
    def noise(self) -> Any:
        return self.recipe.noise

    @property
    def bounds(self) -> str | None:
        return self.recipe.bounds

    @property
    def settled(self) -> float:
        return self.recipe.settled

    @property
    def replays(self) -> int:
        return self.recipe.replays

    def at(self, progress: jax.Array) -> Self:
        return self.replace(recipe=self.recipe.at(progress))

    def scaled(self, factor: jax.Array) -> Self:
        return self.replace(recipe=self.recipe.scaled(factor))

    def begin(self, net: Net, x: jax.Array) -> Any:
        return self.recipe.begin(net, x)

    def constrained(self, net: Net, x: jax.Array) -> Net:
        return self.recipe.constrained(net, x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> Any:
        return self.recipe.prepare(net, x, y, keys)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        return self.recipe.objective(net, prepared, x, y, keys)

    def defence(self, model: Model) -> Defence:
        return self.recipe.defence(model)
