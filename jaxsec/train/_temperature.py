"""The softmax at a temperature: training a teacher at one, and attacking past one."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import Model, struct
from ..core._rewrite import untuned
from ._defence import Defence, defence_of
from ._losses import accuracy, cross_entropy
from ._net import Net
from ._recipe import Metrics, Recipe
from ._wrapped import check_range


def at_temperature(model: Model, temperature: Any) -> Model:
    """The model with its logits divided by `temperature`: the same decisions, the softmax at that temperature.

    The adaptive attack on a net distilled at temperature T goes through it: at test time such a net is asked at temperature 1, its logits
    are about T times those of an ordinary net, the softmax saturates in float32 and the gradient of the cross-entropy is exactly 0. An
    attack on the net as it stands (naive) finds nothing; the same attack on `at_temperature(model, T)` (adaptive) meets ordinary logits.
    Losses on logits (`loss="margin"`, "dlr") have the gradient without it.

    Guarantee: an input is adversarial for one model if and only if it is for the other, but for ties of logits after rounding.
    Args: temperature: above 0, traced.
    Source: Carlini and Wagner 2016, arXiv:1607.04311.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import at_temperature
      >>> def linear(params, x):
      ...     return x @ params
      >>> hard = jaxsec.bind(linear, 400 * jnp.eye(2))
      >>> x, y = jnp.array([[0.7, 0.3]]), jnp.array([0])
      >>> threat, key = jaxsec.LInf(eps=0.25, lo=0.0, hi=1.0), jax.random.key(0)
      >>> def broken(model):
      ...     return bool(jaxsec.attack(model, x, y, threat=threat, method=jaxsec.PGD(steps=5, random_start=False), key=key).success[0])
      >>> broken(hard), broken(at_temperature(hard, 100.0))
      (False, True)
    """
    params = {"inner": model.params, "temperature": jnp.asarray(temperature, jnp.float32)}
    return model.replace(params=params, apply=_AtTemperature(untuned(model).apply))


@dataclasses.dataclass(frozen=True)
class _AtTemperature:
    inner: Callable[..., jax.Array]

    def __call__(self, params: Any, x: jax.Array, *keys: jax.Array) -> jax.Array:
        logits = self.inner(params["inner"], x, *keys)
        return logits / params["temperature"].astype(logits.dtype)


def tempered(model: Model, temperature: Any) -> Defence:
    """A model that was trained at a temperature, with the attack that goes through `at_temperature`, and through its transformations."""
    seen = defence_of(model).surrogates or (model,)
    return Defence(
        model=model,
        surrogates=tuple(at_temperature(s, temperature) for s in seen),
        note="attacked through its logits at the temperature too",
    )


@struct
class TemperatureTraining(Recipe):
    """Cross-entropy of the softmax at a temperature: what the teacher of `DefensiveDistillation` is trained by.

    Args: temperature: above 0; 1 is `Standard`.
    Cost: 1 forward and gradient in the parameters.
    Source: Papernot et al. 2016, section IV, step 2.
    """

    name: ClassVar[str] = "temperature"
    summary: ClassVar[str] = "clean rows, the softmax at a temperature: makes the teacher"
    cost: ClassVar[str] = "1"
    source: ClassVar[str] = "Papernot et al. 2016, arXiv:1511.04508"

    temperature: Any = 20.0

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "temperature", least=1e-6)

    def defence(self, model: Model) -> Defence:
        return tempered(model, self.temperature)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = net.training(x, keys)
        return jnp.mean(cross_entropy(logits / self.temperature, y)), {"clean_accuracy": accuracy(logits, y)}, net
