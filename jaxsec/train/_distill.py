"""Distillation: a student learns from a teacher's softened answers, for hardness (defensive) or for robustness (ARD, RSLAD)."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import Model, static, struct, tuned
from ._adversarial import both_passes, check_steps
from ._defence import Defence
from ._inner import worst_of
from ._losses import accuracy, cross_entropy, divergence
from ._mixup import classes_of
from ._net import Net
from ._recipe import Metrics, Recipe
from ._temperature import tempered
from ._wrapped import check_range


@struct
class Taught(Recipe):
    """Base of recipes with a `teacher`, a Model whose answers are fixed: no gradient flows into it, and its parameters are traced."""

    teacher: Model

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        keys = jax.random.split(jax.random.key(0), x.shape[0])
        theirs, ours = jax.eval_shape(self.answers, x, keys).shape[1], classes_of(net, x, keys)
        if theirs != ours:
            raise ValueError(f"{self.name} got a teacher of {theirs} classes for a net of {ours}; both must have the same classes.")

    def answers(self, x: jax.Array, keys: jax.Array) -> jax.Array:
        """[B, K] the teacher's logits."""
        teacher = tuned(self.teacher)
        return teacher(x, keys) if teacher.stochastic else teacher(x)


@struct
class DefensiveDistillation(Taught):
    """Cross-entropy between the teacher's softmax and the net's, both at a temperature; the net is then used at temperature 1.

    Guarantee: none. It hides gradients and does not remove adversarial inputs: broken by Carlini and Wagner 2016. Here for what it
      teaches about gradient masking; the adaptive attack goes through `at_temperature`.
    Args: teacher: of the same architecture, trained by `TemperatureTraining` at the same temperature. temperature: above 0.
    Cost: 1 forward of the teacher, 1 forward and gradient in the parameters.
    Edge cases: labels count in the metrics only. The loss is not multiplied by the squared temperature, as in the paper, so that steps
      shorten as it rises.
    Source: Papernot et al. 2016, section IV, steps 3 to 5.
    """

    name: ClassVar[str] = "defensive-distillation"
    summary: ClassVar[str] = "a teacher's soft labels at a high temperature (broken: masks gradients)"
    cost: ClassVar[str] = "1"
    source: ClassVar[str] = "Papernot et al. 2016, arXiv:1511.04508"

    temperature: Any = 20.0

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "temperature", least=1e-6)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        return jax.nn.softmax(self.answers(x, keys) / self.temperature)

    def defence(self, model: Model) -> Defence:
        return tempered(model, self.temperature)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = net.training(x, keys)
        found = {"clean_accuracy": accuracy(logits, y), "agreement": accuracy(logits, prepared)}
        return jnp.mean(cross_entropy(logits / self.temperature, prepared)), found, net


@struct
class ARD(Taught):
    """Adversarially robust distillation: at the worst point the net answers as its robust teacher does at the clean row.

    Args:
      teacher: a robust model. alpha: share of distillation, from 0 to 1. temperature: above 0.
      threat, steps, step_size, start, statistics: as in `PGDAT` and `TRADES`; the adversary ascends the net's cross-entropy.
    Cost: 1 forward of the teacher, `steps` forwards and input gradients, 2 forwards and gradients in the parameters.
    Edge cases: alpha 0 is cross-entropy on clean rows.
    Source: Goldblum et al. 2020, section 4: (1 - alpha) CE(S(x), y) + alpha T^2 KL(teacher_T(x) || S_T(x')), KL towards the teacher's
      distribution as in the authors' code, summed over classes.
    """

    name: ClassVar[str] = "ard"
    summary: ClassVar[str] = "at the worst point, the robust teacher's clean answer"
    cost: ClassVar[str] = "steps + 2"
    source: ClassVar[str] = "Goldblum et al. 2020, arXiv:1905.09747"

    threat: Any
    alpha: Any = 1.0
    temperature: Any = 30.0
    steps: int = static(default=10)
    step_size: Any = None
    start: str = static(default="uniform")
    statistics: str = static(default="both")

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_steps(self, net, x)
        check_range(self, "alpha", least=0.0, most=1.0)
        check_range(self, "temperature", least=1e-6)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
        worst = worst_of(self, lambda v: cross_entropy(net.evaluated(v, keys), y), x, keys)
        return {"worst": worst, "teacher": self.answers(x, keys)}

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, worst, net = both_passes(net, x, prepared["worst"], keys, self.statistics)
        taught = self.temperature**2 * divergence(prepared["teacher"] / self.temperature, worst / self.temperature)
        loss = jnp.mean((1 - self.alpha) * cross_entropy(clean, y) + self.alpha * taught)
        return loss, {"clean_accuracy": accuracy(clean, y), "adversarial_accuracy": accuracy(worst, y)}, net


@struct
class RSLAD(Taught):
    """Robust soft labels: the teacher's clean answer replaces the label everywhere, in the adversary and in both terms of the loss.

    Args: as `ARD`. alpha: share of the worst point against the clean row, 5/6 in the authors' code.
    Cost: as `ARD`.
    Edge cases: labels count in the metrics only; alpha 0 is plain distillation at temperature 1.
    Source: Zi et al. 2021, section 3.3: (1 - alpha) KL(T(x) || S(x)) + alpha KL(T(x) || S(x')), x' the worst for KL(T(x) || S(x')); KL
      towards the teacher's distribution, as in the authors' code.
    """

    name: ClassVar[str] = "rslad"
    summary: ClassVar[str] = "the robust teacher's clean answer as the label, in adversary and loss"
    cost: ClassVar[str] = "steps + 2"
    source: ClassVar[str] = "Zi et al. 2021, arXiv:2108.07969"

    threat: Any
    alpha: Any = 5 / 6
    steps: int = static(default=10)
    step_size: Any = None
    start: str = static(default="gaussian")
    statistics: str = static(default="both")

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_steps(self, net, x)
        check_range(self, "alpha", least=0.0, most=1.0)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
        teacher = self.answers(x, keys)
        worst = worst_of(self, lambda v: divergence(teacher, net.evaluated(v, keys)), x, keys)
        return {"worst": worst, "teacher": teacher}

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, worst, net = both_passes(net, x, prepared["worst"], keys, self.statistics)
        teacher = prepared["teacher"]
        loss = jnp.mean((1 - self.alpha) * divergence(teacher, clean) + self.alpha * divergence(teacher, worst))
        return loss, {"clean_accuracy": accuracy(clean, y), "adversarial_accuracy": accuracy(worst, y)}, net
