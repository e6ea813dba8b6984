"""Fixed-step gradient attacks: PGD, and its special cases BIM and FGSM/FGM."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core._losses import LOSSES
from ..core._struct import Struct, static, struct
from ._method import Method, Track, observe, start_track
from ._problem import Problem, expand

SCHEDULES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "constant": lambda t: jnp.ones_like(t),
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: 0.5 * (1.0 + jnp.cos(math.pi * t)),
}


@struct
class _State(Struct):
    x: jax.Array
    gradient: jax.Array
    velocity: jax.Array | None
    rule: Any
    track: Track


@struct
class PGD(Method):
    """Projected gradient descent: steepest steps in the threat's norm, projected exactly onto the set; best iterate kept.

    Guarantee: any iterate that meets the goal counts; every iterate is inside the threat set.

    Args:
      steps: gradient steps per restart (static).
      step_size: length of a step in the threat's norm (input units; for `Box`, half-widths); None means `2.5 * eps / steps`.
      restarts: independent runs, each only on rows still unsolved (static).
      random_start: start from a uniform point of the set instead of the clean input (static).
      loss: "ce", "dlr" or "margin" (static).
      momentum: decay of the accumulated gradient, each term divided by its L1 norm (MI-FGSM); 0 switches it off.
      schedule: "constant", "linear", "cosine", or a function of the fraction of steps done, in [0, 1), to a factor (static).
      rule: an optax `GradientTransformation` that replaces the steepest step; its updates are in input units (static; keep
        and reuse one object, since a rebuilt one compares unequal and retraces).

    Cost: `steps + 1` forwards and backwards per restart; state of 3 (4 with momentum) times `x`.
    Edge cases: eps = 0 returns the clean input; "dlr" with two classes raises. Under `Patch` a run stays near the window that it starts
      in, so `restarts` are places of the window, and a random start is needed.
    Source: Madry et al. 2018, eq. 3; momentum: Dong et al. 2018, alg. 1.

    Example:
      >>> import jaxsec
      >>> jaxsec.PGD(steps=10, restarts=2).total_steps
      10
    """

    name: ClassVar[str] = "pgd"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "box", "patch")

    steps: int = static(default=40)
    step_size: Any = None
    restarts: int = static(default=1)
    random_start: bool = static(default=True)
    loss: str = static(default="ce")
    momentum: Any = 0.0
    use_momentum: bool = static(default=False)
    schedule: str | Callable[[jax.Array], jax.Array] = static(default="constant")
    rule: Any = static(default=None)

    @property
    def total_steps(self) -> int:
        return self.steps

    def rounds(self, n_classes: int) -> int:
        return self.restarts

    def fit(self, n_classes: int, row_shape: tuple[int, ...], norm: str) -> tuple["PGD", tuple[str, ...]]:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"PGD got steps={self.steps}, restarts={self.restarts}; both must be at least 1.")
        if self.loss not in LOSSES:
            raise ValueError(f"PGD got loss={self.loss!r}; allowed: {', '.join(LOSSES)}.")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(f"PGD got schedule={self.schedule!r}; allowed: {', '.join(SCHEDULES)} or a function of the fraction done.")
        if norm == "patch" and not self.random_start:
            raise ValueError(
                "PGD with random_start=False, BIM and FGSM do not support the threat 'patch': a first step from the clean input moves all "
                "windows alike. Use PGD(restarts=...), which starts in a random window each time."
            )
        # a Python zero is no momentum at all; decided here, because under `jit` the field is traced and its value unknown
        method = self.replace(use_momentum=not (isinstance(self.momentum, int | float) and self.momentum == 0))
        if self.loss == "dlr" and n_classes < 3:
            note = f"PGD: DLR needs 3 classes, the model has {n_classes}; the margin loss was used instead"
            return method.replace(loss="margin"), (note,)
        return method, ()

    def init(self, problem: Problem, round: jax.Array | int) -> _State:
        start = problem.threat.sample(problem.keys, problem.wide) if self.random_start else problem.wide
        logits, loss, gradient = problem.evaluate(start, 0, self.loss)
        track = observe(start_track(problem), problem, problem.at(start), logits, loss, 0, gradient=gradient, closing=self.steps <= 1)
        return _State(
            x=start,
            gradient=gradient,
            velocity=_unit_l1(gradient) if self.use_momentum else None,
            rule=None if self.rule is None else jax.vmap(self.rule.init)(start),
            track=track,
        )

    def step(self, problem: Problem, state: _State, i: jax.Array) -> _State:
        threat, x = problem.threat, state.x
        direction = state.gradient if state.velocity is None else state.velocity
        schedule = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        scale = schedule(i.astype(jnp.float32) / self.steps)
        rule = state.rule
        if self.rule is None:
            size = threat.radius(x) * (2.5 / self.steps) if self.step_size is None else jnp.broadcast_to(self.step_size, x.shape[:1])
            moved = x + expand((size * scale).astype(x.dtype), x) * threat.steepest(x, direction)
        else:
            update, rule = jax.vmap(self.rule.update)(-direction, rule, x)  # optax descends
            moved = x + scale.astype(x.dtype) * update
        x = threat.project(problem.wide, moved)
        logits, loss, gradient = problem.evaluate(x, i + 1, self.loss)
        closing = i + 1 <= self.steps - max(1, self.steps // 10)
        track = observe(state.track, problem, problem.at(x), logits, loss, i + 1, gradient=gradient, closing=closing)
        velocity = None if state.velocity is None else jnp.asarray(self.momentum, x.dtype) * state.velocity + _unit_l1(gradient)
        return _State(x=x, gradient=gradient, velocity=velocity, rule=rule, track=track)


def _unit_l1(g: jax.Array) -> jax.Array:
    total = jnp.sum(jnp.abs(g), axis=tuple(range(1, g.ndim)))
    return g / expand(jnp.maximum(total, jnp.finfo(g.dtype).tiny), g)


def BIM(*, steps: int = 10, step_size: Any = None, loss: str = "ce") -> PGD:
    """Basic iterative method (I-FGSM): PGD from the clean input. `step_size=None` means `2.5 * eps / steps`.

    Source: Kurakin et al. 2017.
    """
    return PGD(steps=steps, step_size=step_size, random_start=False, loss=loss)


@struct
class FGSM(Method):
    """Fast gradient (sign) method: one steepest step of length eps from the clean input; FGM for L2 and L1.

    Cost: 2 forwards, 2 backwards. Source: Goodfellow et al. 2015, section 4.
    """

    name: ClassVar[str] = "fgsm"
    ascends: ClassVar[bool] = False  # one step is all it has

    loss: str = static(default="ce")

    @property
    def total_steps(self) -> int:
        return 1

    def _inner(self) -> PGD:
        return PGD(steps=1, step_size=None, random_start=False, loss=self.loss, schedule=_full_step)

    def fit(self, n_classes: int, row_shape: tuple[int, ...], norm: str) -> tuple[Method, tuple[str, ...]]:
        inner, notes = self._inner().fit(n_classes, row_shape, norm)
        return self.replace(loss=inner.loss), notes

    def init(self, problem: Problem, round: jax.Array | int) -> _State:
        return self._inner().init(problem, round)

    def step(self, problem: Problem, state: _State, i: jax.Array) -> _State:
        return self._inner().step(problem, state, i)


def _full_step(fraction: jax.Array) -> jax.Array:
    """1 / 2.5: undoes PGD's default factor, so that one step is eps long."""
    return jnp.full_like(fraction, 0.4)
