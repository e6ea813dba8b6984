"""Adversarial training: the worst case inside the threat set, found by gradient steps, is what the net learns from."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ._inner import worst_of
from ._losses import accuracy, cross_entropy, distribution, divergence
from ._net import Net
from ._recipe import Metrics, Recipe
from ._wrapped import check_range

_STARTS = ("uniform", "gaussian", "clean")


def check_steps(recipe: Any, net: Net, x: jax.Array, least: int = 1) -> None:
    """ValueError where the adversary's static settings are out of range."""
    if recipe.steps < least:
        raise ValueError(f"{recipe.name} got steps={recipe.steps}; it must be at least {least}.")
    if getattr(recipe, "start", "clean") not in _STARTS:
        raise ValueError(f"{recipe.name} got start={recipe.start!r}; allowed: {', '.join(_STARTS)}.")
    if getattr(recipe, "statistics", "both") not in ("both", "clean", "adversarial"):
        raise ValueError(f"{recipe.name} got statistics={recipe.statistics!r}; allowed: both, clean, adversarial.")
    check_numbers(recipe)


def check_numbers(recipe: Any) -> None:
    """ValueError where a step, a weight or a share among the recipe's fields is out of range."""
    if getattr(recipe, "step_size", None) is not None:
        check_range(recipe, "step_size", least=0.0)
    if hasattr(recipe, "beta"):
        check_range(recipe, "beta", least=0.0)
    if hasattr(recipe, "label_smoothing"):
        check_range(recipe, "label_smoothing", least=0.0, most=1.0)


@struct
class Standard(Recipe):
    """Training on clean rows: no defence, the row that every table starts with."""

    name: ClassVar[str] = "standard"
    summary: ClassVar[str] = "clean rows only: no defence"
    cost: ClassVar[str] = "1"
    source: ClassVar[str] = "-"

    label_smoothing: Any = 0.0

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_numbers(self)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = net.training(x, keys)
        return jnp.mean(cross_entropy(logits, y, self.label_smoothing)), {"clean_accuracy": accuracy(logits, y)}, net


@struct
class PGDAT(Recipe):
    """Adversarial training with projected gradient descent: cross-entropy at the worst point found, and nowhere else.

    Guarantee: what the net learns from is inside the threat set.
    Args:
      threat: any threat set with gradient steps, `Patch` included. steps: gradient steps (static).
      step_size: in multiples of eps; None means `2.5 / steps`. start: "uniform", "gaussian" or "clean" (static).
      label_smoothing: share of the label that is spread over all classes, in [0, 1).
      train_mode: craft in training mode, with the batch's own statistics, as Madry's code does; else in evaluation mode (static).
    Cost: `steps` forwards and input gradients, 1 forward and gradient in the parameters.
    Source: Madry et al. 2018, eq. 2.1.
    """

    name: ClassVar[str] = "pgd-at"
    summary: ClassVar[str] = "cross-entropy at the worst point that PGD finds (Madry)"
    cost: ClassVar[str] = "steps + 1"
    source: ClassVar[str] = "Madry et al. 2018, arXiv:1706.06083"

    threat: Any
    steps: int = static(default=7)
    step_size: Any = None
    start: str = static(default="uniform")
    label_smoothing: Any = 0.0
    train_mode: bool = static(default=False)

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_steps(self, net, x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        def ask(v: jax.Array) -> jax.Array:
            return net.training(v, keys)[0] if self.train_mode else net.evaluated(v, keys)

        return worst_of(self, lambda v: cross_entropy(ask(v), y), x, keys)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = net.training(prepared, keys)
        return jnp.mean(cross_entropy(logits, y, self.label_smoothing)), {"adversarial_accuracy": accuracy(logits, y)}, net


@struct
class TRADES(Recipe):
    """Clean cross-entropy plus `beta` times the divergence between the answers at a row and at the worst point near it.

    Args: beta: weight of robustness, at least 0; the others as in `PGDAT`. The start is 0.001 times a normal variable, because the
      divergence has no slope at the row itself.
      statistics: which passes update BatchNorm's statistics: "both", "clean" or "adversarial" (static).
    Cost: 1 + `steps` forwards, `steps` input gradients, 2 forwards and gradients in the parameters.
    Source: Zhang et al. 2019, eq. 5 and algorithm 1, with KL as in the authors' code; the clean answer is fixed while the worst point is
      sought, and moves with the parameters in the loss.
    """

    name: ClassVar[str] = "trades"
    summary: ClassVar[str] = "clean cross-entropy + beta * KL between clean and worst answers"
    cost: ClassVar[str] = "steps + 2"
    source: ClassVar[str] = "Zhang et al. 2019, arXiv:1901.08573"

    threat: Any
    beta: Any = 6.0
    steps: int = static(default=10)
    step_size: Any = None
    start: str = static(default="gaussian")
    label_smoothing: Any = 0.0
    statistics: str = static(default="both")

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_steps(self, net, x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        clean = net.evaluated(x, keys)
        return worst_of(self, lambda v: divergence(clean, net.evaluated(v, keys)), x, keys)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, worst, net = both_passes(net, x, prepared, keys, self.statistics)
        loss = jnp.mean(cross_entropy(clean, y, self.label_smoothing) + self.beta * divergence(clean, worst))
        return loss, {"clean_accuracy": accuracy(clean, y), "adversarial_accuracy": accuracy(worst, y)}, net


@struct
class MART(Recipe):
    """Boosted cross-entropy at the worst point plus `beta` times the divergence, weighted by how unsure the clean answer is.

    Args: as `TRADES`; labels as distributions count by their largest class.
    Cost: `steps` forwards and input gradients, 2 forwards and gradients in the parameters.
    Source: Wang et al. 2020, eq. 11: BCE(p', y) + beta * KL(p || p') * (1 - p_y), BCE(p', y) = -log p'_y - log(1 - max_{k != y} p'_k).
    """

    name: ClassVar[str] = "mart"
    summary: ClassVar[str] = "boosted cross-entropy at the worst point, divergence weighted towards misclassified rows"
    cost: ClassVar[str] = "steps + 2"
    source: ClassVar[str] = "Wang et al. 2020, ICLR"

    threat: Any
    beta: Any = 5.0
    steps: int = static(default=10)
    step_size: Any = None
    start: str = static(default="gaussian")
    statistics: str = static(default="both")

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_steps(self, net, x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        return worst_of(self, lambda v: cross_entropy(net.evaluated(v, keys), y), x, keys)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, worst, net = both_passes(net, x, prepared, keys, self.statistics)
        own = distribution(jnp.argmax(y, axis=1) if y.ndim == 2 else y, clean.shape[1])
        log_q = jax.nn.log_softmax(worst)
        others = jnp.max(jnp.where(own > 0, -jnp.inf, log_q), axis=1)
        boosted = -jnp.sum(own * log_q, axis=1) - jnp.log1p(-jnp.minimum(jnp.exp(others), 1 - 1e-6))
        unsure = 1 - jnp.sum(own * jax.nn.softmax(clean), axis=1)
        loss = jnp.mean(boosted + self.beta * divergence(clean, worst) * unsure)
        return loss, {"clean_accuracy": accuracy(clean, y), "adversarial_accuracy": accuracy(worst, y)}, net


def both_passes(net: Net, x: jax.Array, worst: jax.Array, keys: jax.Array, statistics: str) -> tuple[jax.Array, jax.Array, Net]:
    """(logits at x, logits at worst, the net with the statistics of the passes that count), both in training mode."""
    clean, after = net.training(x, keys)
    kept = net if statistics == "adversarial" else after
    attacked, last = kept.training(worst, keys)
    return clean, attacked, kept if statistics == "clean" else last
