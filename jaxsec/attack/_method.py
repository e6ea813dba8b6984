"""The protocol of a method, and the record of a row's attack that every method keeps."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core._struct import Struct, struct
from ._problem import Problem, expand
from ._verdict import confirmed


@struct
class Track(Struct):
    """Best so far of one round; every leaf is [B, ...]. Frozen per row from the first success on (see `observe`).

    `x` is the first input found that is adversarial beyond doubt (`success`, see `_verdict.confirmed`), or the one of the
    largest objective, which may look adversarial too (`candidate`): the front door judges both. `late` is the best objective when nine
    tenths of the steps were done: a loss that still rises then means an attack that was stopped too early.
    """

    x: jax.Array
    success: jax.Array
    candidate: jax.Array
    loss: jax.Array
    late: jax.Array
    queries: jax.Array
    gradients: jax.Array
    first_step: jax.Array
    zero_gradients: jax.Array
    bad_gradients: jax.Array


def start_track(problem: Problem) -> Track:
    """Nothing asked yet."""
    rows = problem.y.shape
    none = jnp.full(rows, -jnp.inf, jnp.float32)
    zero = jnp.zeros(rows, jnp.int32)
    return Track(
        x=problem.x0,
        success=jnp.zeros(rows, bool),
        candidate=jnp.zeros(rows, bool),
        loss=none,
        late=none,
        queries=zero,
        gradients=zero,
        first_step=jnp.full(rows, -1, jnp.int32),
        zero_gradients=zero,
        bad_gradients=zero,
    )


def observe(
    track: Track,
    problem: Problem,
    x: jax.Array,
    logits: jax.Array,
    loss: jax.Array,
    step: jax.Array | int,
    *,
    gradient: jax.Array,
    closing: jax.Array | bool = False,
    counts: jax.Array | bool = True,
) -> Track:
    """Enters one iterate evaluated with its gradient: any success counts, and a row is frozen (its counters too) once it has one.

    Args:
      x, logits, loss: [B, ...], [B, K], [B] the iterate, the model's answer, the objective; gradient: [B, ...].
      step: steps done when the iterate was made (0 = start point).
      closing: nine tenths of the steps are done: remember the best objective in `late`.
      counts: False where an iterate is outside the set, so that it cannot succeed.
    """
    live = ~track.success
    sure, more = confirmed(problem, x, logits, step)
    won = live & sure & counts
    wrong = problem.wrong(logits) & counts
    better = live & (won | (loss > track.loss))
    if not problem.model.stochastic:  # where logits tie or rounding decides, what argmax calls wrong goes before a larger objective
        better = live & (won | (wrong & ~track.candidate) | ((loss > track.loss) & (wrong | ~track.candidate)))
    best = jnp.where(live & (loss > track.loss), loss, track.loss)
    axes = tuple(range(1, gradient.ndim))
    largest = jnp.max(jnp.abs(gradient), axis=axes)  # NaN and inf survive the maximum
    count = live.astype(jnp.int32)
    return track.replace(
        x=jnp.where(expand(better, x), x, track.x),
        success=track.success | won,
        candidate=jnp.where(better, wrong, track.candidate),
        loss=best,
        late=jnp.where(closing & live, best, track.late),
        queries=track.queries + (problem.draws + more) * count,
        gradients=track.gradients + problem.draws * count,
        first_step=jnp.where(won, step, track.first_step),
        zero_gradients=track.zero_gradients + (live & (largest == 0) & ~problem.wrong(logits)),  # nothing to climb where it is wrong
        bad_gradients=track.bad_gradients + (live & ~jnp.isfinite(largest)),
    )


class Method(Struct, abc.ABC):
    """One algorithm's hyper-parameters; pure; knows neither the norm nor the model.

    A method is run in `rounds` (restarts, or targets), each `init` then `steps` calls of `step`; the front door drops solved
    rows between rounds. Every leaf of a state has the batch axis first, so rows can be gathered, sharded and resumed;
    the step counter comes from outside. A state has a field `track`.
    """

    name: ClassVar[str] = "method"
    needs_gradient: ClassVar[bool] = True
    ascends: ClassVar[bool] = True  # its objective rises step by step, so one that still rises at the end had too few steps
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "box")

    @property
    @abc.abstractmethod
    def total_steps(self) -> int:
        """Steps of a round (static)."""

    def rounds(self, n_classes: int) -> int:
        """How many rounds for a model of `n_classes`."""
        return 1

    def fit(self, n_classes: int, row_shape: tuple[int, ...], norm: str) -> tuple["Method", tuple[str, ...]]:
        """The method as it can run on this problem, and a sentence for each change; `ValueError` if it cannot."""
        return self, ()

    @abc.abstractmethod
    def init(self, problem: Problem, round: jax.Array | int) -> Any:
        """The state before the first step; asks the model at the start point if the method needs it."""

    @abc.abstractmethod
    def step(self, problem: Problem, state: Any, i: jax.Array) -> Any:
        """The state after step `i` (0-based, traced)."""

    def done(self, state: Any) -> jax.Array:
        """[B] bool: rows with nothing left to gain; they leave the batch at the next pause."""
        return state.track.success

    def finish(self, problem: Problem, state: Any) -> Track:
        """What the round found."""
        return state.track
