"""Adversarial training at the price of plain training: one-step adversaries, and adversaries that share the backward pass."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ..core._keys import fold
from ..threat._ball import Ball
from ._adversarial import check_numbers
from ._inner import ascend
from ._losses import accuracy, cross_entropy
from ._net import Net
from ._recipe import Gradient, Metrics, Recipe


@struct
class FastAT(Recipe):
    """Adversarial training with one step from a uniform start; with `align`, the penalty that keeps one step honest.

    A net may learn to mislead one step while many steps break it (catastrophic overfitting): robust accuracy falls to 0 within an epoch.
    `fit` watches for it where it has validation rows, once robust accuracy was above 0.1; GradAlign (`align` above 0) works against it.
    On MNIST at 0.3 the runs that stay robust without it start from small weights (torch's default), take the whole eps from the first
    update on and decay weights (`bench/training.py`); one without decay and with the start clipped to the domain ended at 0.

    Guarantee: the rows learned from are inside the threat set.
    Args:
      threat: a threat set with gradient steps. step_size: in multiples of eps. label_smoothing: in [0, 1).
      inside: clip the start to the domain, as the authors' CIFAR-10 code does and their MNIST code does not (static).
      align: weight of `1 - cos` between the input gradients at the row and at a uniform point near it (static, because 0 costs nothing).
    Cost: 2 backward passes, 3 with a second-order one with GradAlign.
    Source: Wong et al. 2020, algorithm 3; GradAlign: Andriushchenko and Flammarion 2020, eq. 4.
    """

    name: ClassVar[str] = "fast-at"
    summary: ClassVar[str] = "one step from a uniform start; optional GradAlign against catastrophic overfitting"
    cost: ClassVar[str] = "2 (GradAlign: about 5)"
    source: ClassVar[str] = "Wong et al. 2020, arXiv:2001.03994; Andriushchenko and Flammarion 2020, arXiv:2007.02617"
    single_step: ClassVar[bool] = True

    threat: Any
    step_size: Any = 1.25
    label_smoothing: Any = 0.0
    align: float = static(default=0.0)
    inside: bool = static(default=False)

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_numbers(self)
        if not self.align >= 0:
            raise ValueError(f"fast-at got align={self.align}; a weight of at least 0 is needed, such as 0.2.")

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        ball = self.threat if self.inside or not isinstance(self.threat, Ball) else _without_box(self.threat)
        near = ball.sample(fold(keys, 0), x)
        at = ascend(lambda v: cross_entropy(net.evaluated(v, keys), y), x, self.threat, keys, steps=1, step_size=self.step_size, start=near)
        return at, near

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        worst, near = prepared
        logits, after = net.training(worst, keys)
        loss, metrics = jnp.mean(cross_entropy(logits, y, self.label_smoothing)), {"adversarial_accuracy": accuracy(logits, y)}
        if self.align:
            gap = jnp.mean(1 - _cosine(_input_gradient(net, x, y, keys), _input_gradient(net, near, y, keys)))
            loss, metrics = loss + self.align * gap, {**metrics, "gradient_misalignment": gap}
        return loss, metrics, after


def _input_gradient(net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
    gradient = jax.grad(lambda v: jnp.sum(cross_entropy(net.evaluated(v, keys), y)))(x)
    return gradient.reshape(x.shape[0], -1)


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """[B], 0 where a gradient vanishes; squares are kept off 0, where the root has no slope."""
    tiny = 1e-24
    lengths = jax.lax.rsqrt(jnp.sum(a * a, axis=1) + tiny) * jax.lax.rsqrt(jnp.sum(b * b, axis=1) + tiny)
    return jnp.sum(a * b, axis=1) * lengths


class _Shared(Recipe):
    """One backward pass gives both gradients: that of the parameters, and the one by which the carried perturbation moves."""

    threat: Any
    step_size: Any

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_numbers(self)
        if not isinstance(self.threat, Ball):
            raise ValueError(f"{self.name} got the threat {type(self.threat).__name__}; it needs a ball: LInf, L2 or L1.")

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = net.training(prepared, keys)
        return jnp.mean(cross_entropy(logits, y)), {"adversarial_accuracy": accuracy(logits, y)}, net

    def both(self, net: Net, at: jax.Array, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[Gradient, jax.Array]:
        """(the step's gradient, that of the batch's total loss in `at` [B, ...])."""

        def total(params: Any, at: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
            loss, metrics, new = self.objective(net.replace(params=params), at, x, y, keys)
            return loss, (metrics, new.state)

        (loss, (metrics, state)), (g, g_x) = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(net.params, at)
        return Gradient(loss=loss, gradient=g, metrics=metrics, net=net.replace(state=state)), g_x * x.shape[0]


@struct
class FreeAT(_Shared):
    """Free adversarial training: each batch is used `replays` times, and every pass moves the parameters and the perturbation at once.

    Epochs count passes over the data that are loaded: divide them by `replays` to compare at equal cost.
    Args: threat: LInf, L2 or L1. repeat: updates per batch (static). step_size: in multiples of eps.
    Guarantee: the rows learned from are inside the threat set.
    Cost: 1 forward and 1 backward pass per update; memory of one more batch.
    Edge cases: in a loop of one's own, `loss` starts from a uniform point; to carry the perturbation on, call `gradient` with its `carry`.
    Source: Shafahi et al. 2019, algorithm 1: the perturbation is kept from one batch to the next and clipped to the ball.
    """

    name: ClassVar[str] = "free-at"
    summary: ClassVar[str] = "each batch replayed; one backward pass moves weights and perturbation"
    cost: ClassVar[str] = "1 per update, `repeat` updates per batch"
    source: ClassVar[str] = "Shafahi et al. 2019, arXiv:1904.12843"

    threat: Any
    repeat: int = static(default=8)
    step_size: Any = 1.0

    @property
    def replays(self) -> int:
        return self.repeat

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        if self.repeat < 1:
            raise ValueError(f"free-at got repeat={self.repeat}; it must be at least 1.")

    def begin(self, net: Net, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        return self.threat.sample(fold(keys, 0), x)

    def gradient(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array, carry: Any) -> Gradient:
        at = self.threat.project(x, x + carry)
        step, g = self.both(net, at, x, y, keys)
        length = (self.threat.radius(x) * self.step_size).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        ball = _without_box(self.threat)
        moved = ball.project(jnp.zeros_like(x), carry + length * ball.steepest(at, g))
        return step.replace(carry=moved)


@struct
class UniversalAT(_Shared):
    """Training against one perturbation for all rows, which climbs with the same backward pass that trains the net.

    Args: threat: LInf, L2 or L1. step_size: in multiples of eps, per update.
    Cost: 1 forward and 1 backward pass per update.
    Edge cases: `loss`, which carries nothing on, learns from the clean rows: call `gradient` with its `carry` in a loop of one's own.
    Source: Shafahi et al. 2020 (universal adversarial training), algorithm 3.
    """

    name: ClassVar[str] = "universal-at"
    summary: ClassVar[str] = "one perturbation for all rows, raised with the pass that trains"
    cost: ClassVar[str] = "1"
    source: ClassVar[str] = "Shafahi et al. 2020, arXiv:1811.11304"

    threat: Any
    step_size: Any = 0.1

    def begin(self, net: Net, x: jax.Array) -> jax.Array:
        return jnp.zeros((1, *x.shape[1:]), x.dtype)

    def gradient(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array, carry: Any) -> Gradient:
        at = self.threat.project(x, x + carry)
        step, g = self.both(net, at, x, y, keys)
        ball = _without_box(self.threat)
        length = (ball.radius(x)[:1] * self.step_size).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        one = ball.replace(eps=ball.radius(x)[:1])
        moved = one.project(jnp.zeros_like(carry), carry + length * one.steepest(carry, jnp.mean(g, axis=0, keepdims=True)))
        return step.replace(carry=moved)


def _without_box(threat: Any) -> Any:
    return threat.replace(lo=-math.inf, hi=math.inf)
