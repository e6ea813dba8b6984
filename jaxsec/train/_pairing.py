"""Logit pairing and squeezing: logits of two inputs are drawn together, or all of them towards 0."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ._adversarial import both_passes, check_steps
from ._inner import worst_of
from ._losses import accuracy, cross_entropy
from ._net import Net
from ._recipe import Metrics, Recipe
from ._smoothed import Noised
from ._wrapped import check_range


def squared_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """[B] squared Euclidean distance of logits [B, K]."""
    return jnp.sum((a - b) ** 2, axis=1)


@struct
class AdversarialLogitPairing(Recipe):
    """Cross-entropy at the clean row and at the worst point, half each, plus `weight` times the squared distance of their logits.

    Guarantee: none beyond adversarial training's. Large weights flatten the loss around the rows, so that few gradient steps find nothing:
      Engstrom et al. 2018 broke the published nets by PGD with many steps. Judge by many steps and restarts, and by an attack without
      gradients (`Square`).
    Args: threat, steps, step_size, start, statistics: as in `PGDAT` and `TRADES`. weight: at least 0, the paper's lambda.
    Cost: `steps` forwards and input gradients, 2 forwards and gradients in the parameters.
    Edge cases: weight 0 is mixed-minibatch adversarial training (M-PGD).
    Source: Kannan et al. 2018, section 3 (adversarial logit pairing, its L2 loss squared); broken: Engstrom et al. 2018, arXiv:1807.10272.
    """

    name: ClassVar[str] = "alp"
    summary: ClassVar[str] = "clean and adversarial cross-entropy + distance of the two logits (broken by longer attacks)"
    cost: ClassVar[str] = "steps + 2"
    source: ClassVar[str] = "Kannan et al. 2018, arXiv:1803.06373"

    threat: Any
    weight: Any = 0.5
    steps: int = static(default=7)
    step_size: Any = None
    start: str = static(default="uniform")
    statistics: str = static(default="both")

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_steps(self, net, x)
        check_range(self, "weight", least=0.0)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        return worst_of(self, lambda v: cross_entropy(net.evaluated(v, keys), y), x, keys)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, worst, net = both_passes(net, x, prepared, keys, self.statistics)
        pairing = jnp.mean(squared_distance(clean, worst))
        loss = jnp.mean(cross_entropy(clean, y) + cross_entropy(worst, y)) / 2 + self.weight * pairing
        return loss, {"clean_accuracy": accuracy(clean, y), "adversarial_accuracy": accuracy(worst, y), "pairing": pairing}, net


@struct
class CleanLogitPairing(Noised):
    """Cross-entropy under noise plus `weight` times the mean squared distance between the logits of different rows, paired at random.

    Guarantee: none: small logits mask gradients (Mosbach et al. 2018, arXiv:1810.12042). Judge as `AdversarialLogitPairing`.
    Args: sigma: deviation of the Gaussian noise in units of x. weight: at least 0. noises: copies of each row (static), 1 in the paper.
    Cost: `noises` forwards and gradients in the parameters.
    Edge cases: row i is paired with row i + half the batch, copy by copy, the last of an odd number with none, so batches must be
      shuffled, as `fit` does; the pairs do not know labels. weight 0 is `GaussianAugmentation`.
    Source: Kannan et al. 2018, section 3 (clean logit pairing, its L2 loss squared).
    """

    name: ClassVar[str] = "clean-logit-pairing"
    summary: ClassVar[str] = "cross-entropy under noise + distance between logits of random pairs (masks gradients)"
    cost: ClassVar[str] = "noises"
    source: ClassVar[str] = "Kannan et al. 2018, arXiv:1803.06373"

    weight: Any = 0.5

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "weight", least=0.0)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = self.answers(net, prepared, keys)
        half, k = x.shape[0] // 2, logits.shape[1]
        if half == 0:
            raise ValueError(f"{self.name} got {x.shape[0]} row at once and pairs rows; take larger batches, or fewer parts of one.")
        by_row = logits.reshape(-1, self.noises, k)
        pairing = jnp.mean(squared_distance(by_row[:half].reshape(-1, k), by_row[half : 2 * half].reshape(-1, k)))
        labels = jnp.repeat(y, self.noises, axis=0)
        loss = jnp.mean(cross_entropy(logits, labels)) + self.weight * pairing
        return loss, {"noisy_accuracy": accuracy(logits, labels), "pairing": pairing}, net


@struct
class LogitSqueezing(Noised):
    """Cross-entropy under noise plus `weight` times the mean squared length of the logits.

    Guarantee, Args, Cost: as `CleanLogitPairing`; nothing is paired.
    Edge cases: weight 0 is `GaussianAugmentation`.
    Source: Kannan et al. 2018, section 3 (logit squeezing); its L2 norm is squared, as in the two pairings, so that it is smooth at 0.
    """

    name: ClassVar[str] = "logit-squeezing"
    summary: ClassVar[str] = "cross-entropy under noise + squared length of the logits (masks gradients)"
    cost: ClassVar[str] = "noises"
    source: ClassVar[str] = "Kannan et al. 2018, arXiv:1803.06373"

    weight: Any = 0.05

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "weight", least=0.0)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = self.answers(net, prepared, keys)
        squeezing = jnp.mean(jnp.sum(logits**2, axis=1))
        labels = jnp.repeat(y, self.noises, axis=0)
        loss = jnp.mean(cross_entropy(logits, labels)) + self.weight * squeezing
        return loss, {"noisy_accuracy": accuracy(logits, labels), "squeezing": squeezing}, net
