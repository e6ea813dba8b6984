"""Recipes made of recipes: weights perturbed too (AWP), a growing eps (Curriculum), and several threats at once (MultiNorm)."""

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from ..core import static, struct
from ._adversarial import PGDAT
from ._losses import cross_entropy
from ._net import Net
from ._recipe import Metrics, Recipe
from ._schedule import SHAPES, ramp, share_of
from ._wrapped import Wrapped, check_range


@struct
class AWP(Wrapped):
    """Adversarial weight perturbation: the loss is taken at weights moved, layer by layer, to where it is worse.

    Guarantee: each kernel's perturbation has the norm `gamma` times the kernel's; biases and scales (fewer than two axes) are not moved.
    Args: recipe: any recipe but Free-AT and universal training. gamma: relative size. start: share of training before it sets in.
    Cost: that of the recipe, and one more forward and gradient of its objective.
    Source: Wu et al. 2020, eq. 10 and algorithm 1 with one step: the gradient at the moved weights is applied to the weights themselves.
    """

    name: ClassVar[str] = "awp"
    summary: ClassVar[str] = "any recipe at adversarially perturbed weights"
    cost: ClassVar[str] = "+ 1"
    source: ClassVar[str] = "Wu et al. 2020, arXiv:2004.05884"

    gamma: Any = 0.005
    start: Any = 0.0
    strength: Any = 1.0  # 0 before `start`: set by `at`

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "gamma", least=0.0)
        check_range(self, "start", least=0.0, most=1.0)

    def at(self, progress: jax.Array) -> Self:
        return self.replace(recipe=self.recipe.at(progress), strength=jnp.where(progress < self.start, 0.0, 1.0))

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        fixed = jax.lax.stop_gradient(net)
        uphill = jax.grad(lambda p: self.recipe.objective(fixed.replace(params=p), prepared, x, y, keys)[0])(fixed.params)
        size = self.gamma * self.strength

        def move(w: jax.Array, g: jax.Array, at: jax.Array) -> jax.Array:
            if w.ndim < 2:
                return at
            return at + size * g * (jnp.linalg.norm(jnp.ravel(w)) / (jnp.linalg.norm(jnp.ravel(g)) + 1e-12))

        moved = jax.tree.map(move, fixed.params, uphill, net.params)
        loss, metrics, after = self.recipe.objective(net.replace(params=moved), prepared, x, y, keys)
        return loss, metrics, after.replace(params=net.params)


@struct
class Curriculum(Wrapped):
    """A recipe whose eps grows from `first` to 1 times its own between the shares `start` and `end` of training.

    Args: recipe: one with a threat. shape: "linear", "cosine" or "smooth" (a quarter of the ramp as a fourth power, then a line, as
      certified training likes it) (static). first: the factor at `start`, in [0, 1].
    Cost: none. Edge cases: a factor of 0 trains on clean rows.
    Source: Cai et al. 2018 (curriculum); Gowal et al. 2018, section 4 (linear); the smooth shape: Xu et al. 2020 (LiRPA), appendix.
    """

    name: ClassVar[str] = "curriculum"
    summary: ClassVar[str] = "any recipe with eps growing over training"
    cost: ClassVar[str] = "+ 0"
    source: ClassVar[str] = "Cai et al. 2018, arXiv:1805.04807"

    start: Any = 0.0
    end: Any = 0.5
    first: Any = 0.0
    shape: str = static(default="linear")

    def check(self, net: Net, x: jax.Array) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"curriculum got shape={self.shape!r}; allowed: {', '.join(SHAPES)}.")
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"curriculum got start={self.start}, end={self.end}; needed: 0 <= start < end <= 1, shares of training.")
        check_range(self, "first", least=0.0, most=1.0)
        if not self.recipe.grows:
            has = "grows eps by itself" if self.recipe.threats else "has no threat whose eps could grow"
            raise ValueError(f"curriculum cannot wrap {self.recipe.name}, which {has}; leave it out.")
        self.recipe.check(net, x)

    @property
    def grows(self) -> bool:
        return False

    @property
    def shares_pass(self) -> bool:
        return self.recipe.shares_pass

    def at(self, progress: jax.Array) -> Any:
        factor = self.first + (1 - self.first) * ramp(share_of(progress, self.start, self.end - self.start), self.shape)
        return self.recipe.at(progress).scaled(factor)

    def gradient(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array, carry: Any) -> Any:
        return self.recipe.gradient(net, x, y, keys, carry)


@struct
class MultiNorm(Recipe):
    """Adversarial training against several threat sets at once.

    Args:
      recipes: one recipe per threat, such as `PGDAT(threat=...)`; `over` makes them.
      combine: "max", each row learns from the set where its loss is largest; "avg", from all; "extreme", a step meets one set,
        drawn at random (static).
    Cost: the sum of the recipes' (extreme: their mean); avg has one gradient in the parameters per set, the others one.
    Source: Tramer and Boneh 2019, section 4.1 (max, avg); extreme: Croce and Hein 2022 (E-AT), where training on L1 and Linf covers the
      norms between; E-AT's bias of the draw by running losses is left out, sets are drawn alike.
    """

    name: ClassVar[str] = "multi-norm"
    summary: ClassVar[str] = "several threats: the worst of them, all of them, or one drawn per step"
    cost: ClassVar[str] = "sum over threats"
    source: ClassVar[str] = "Tramer and Boneh 2019, arXiv:1904.13000; Croce and Hein 2022, arXiv:2105.12508"

    recipes: tuple[Any, ...]
    combine: str = static(default="max")

    @staticmethod
    def over(*threats: Any, combine: str = "max", **settings: Any) -> "MultiNorm":
        """PGD-AT on each threat with the same settings."""
        return MultiNorm(recipes=tuple(PGDAT(threat=threat, **settings) for threat in threats), combine=combine)

    @property
    def threats(self) -> tuple[Any, ...]:
        return tuple(threat for recipe in self.recipes for threat in recipe.threats)

    def check(self, net: Net, x: jax.Array) -> None:
        if self.combine not in ("max", "avg", "extreme"):
            raise ValueError(f"multi-norm got combine={self.combine!r}; allowed: max, avg, extreme.")
        if len(self.recipes) < 2 or any(not isinstance(recipe, PGDAT) for recipe in self.recipes):
            raise ValueError(f"multi-norm got {len(self.recipes)} recipes; it needs two or more PGDAT, one per threat.")
        for recipe in self.recipes:
            recipe.check(net, x)

    def at(self, progress: jax.Array) -> Self:
        return self.replace(recipes=tuple(recipe.at(progress) for recipe in self.recipes))

    def scaled(self, factor: jax.Array) -> Self:
        return self.replace(recipes=tuple(recipe.scaled(factor) for recipe in self.recipes))

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> Any:
        def craft(recipe: Any) -> jax.Array:
            return recipe.prepare(net, x, y, keys)

        if self.combine == "extreme":  # the batch's draw is its first row's
            which = jax.random.randint(jax.random.fold_in(keys[0], 90), (), 0, len(self.recipes))
            return jax.lax.switch(which, [lambda r=recipe: craft(r) for recipe in self.recipes])
        found = jnp.stack([craft(recipe) for recipe in self.recipes])
        if self.combine == "avg":
            return found
        losses = jnp.stack([cross_entropy(net.evaluated(v, keys), y) for v in found])
        worst = jnp.argmax(losses, axis=0)
        return jnp.take_along_axis(found, worst.reshape(1, -1, *(1,) * (x.ndim - 1)), axis=0)[0]

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        if self.combine != "avg":
            return self.recipes[0].objective(net, prepared, x, y, keys)
        total, metrics = jnp.zeros(()), {}
        for i, recipe in enumerate(self.recipes):
            loss, found, net = recipe.objective(net, prepared[i], x, y, keys)
            total = total + loss / len(self.recipes)
            metrics.update({f"{name}_{i + 1}_{recipe.threat.norm}": value for name, value in found.items()})
        return total, metrics, net
