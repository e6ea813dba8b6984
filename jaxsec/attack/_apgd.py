"""Auto-PGD: momentum, and a step size that halves itself at checkpoints; for Linf, L2 and Box (L1 has a file of its own)."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..core._losses import LOSSES
from ..core._struct import Struct, static, struct
from ._method import Method, Track, observe, start_track
from ._problem import Problem, expand
from ._published import Last, returned, seen, start_last


def checkpoints(steps: int) -> np.ndarray:
    """Window length that ends at each step, 0 where none does. steps -> [steps] int32.

    Source: Croce and Hein 2020, section 4: p_0 = 0, p_1 = .22, then p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06).
    """
    length, shortest, shrink = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    ends = np.zeros(steps, np.int32)
    at = length - 1
    while at < steps:
        ends[at] = length
        length = max(length - shrink, shortest)
        at += length
    return ends


@struct
class _State(Struct):
    x: jax.Array
    previous: jax.Array
    gradient: jax.Array
    best_gradient: jax.Array
    target: jax.Array
    size: jax.Array
    last_loss: jax.Array
    rises: jax.Array
    halved: jax.Array
    best_at_check: jax.Array
    last: Last | None
    track: Track


@struct
class APGD(Method):
    """Auto-PGD: PGD with momentum and an automatic step size, no parameter to tune.

    Guarantee: any iterate that meets the goal counts; every iterate is inside the threat set (exact projection).

    Args:
      steps: iterations per restart (static). restarts: runs from different points, rows unsolved only (static).
      loss: "ce", "dlr" or "margin" (static).
      targets: 0 = leave the label; n > 0 = APGD-T: one round for each of the n likeliest other classes, with the targeted
        DLR loss (static). Cut to `classes - 1`.
      large_eps: L1 only: spend 30 % of the steps at 3 eps, 30 % at 2 eps (static).
      reference: reproduce the published code, so that numbers can be compared (static). Its deviations from the paper: the
        first window compares with 0 instead of the start's loss and cannot end by a best loss that stands still, "no more
        than" instead of "fewer than" 75 % rises, L2 projects radially, then clips; with several draws loss and prediction
        are those of the last draw. Rows go on after a success and the last misclassified iterate is returned. L1: top-k
        rounded up, and large radii count sparsity from each phase's own start. Momentum is kept across a reset to the best
        point, as algorithm 1 reads literally; the default starts it anew.

    Cost: `steps + 1` forwards and backwards per round; state of 6 times `x`.
    Edge cases: DLR with two classes becomes the margin loss, targeted DLR with fewer than four the difference of the two logits; both are
      noted. With a class to reach, DLR is `dlr_towards`, and the rounds of `targets` are restarts.
    Source: Croce and Hein 2020, algorithm 1; L1: Croce and Hein 2021 ("Mind the box"), algorithm 1.

    Example:
      >>> import jaxsec
      >>> jaxsec.APGD(loss="dlr").total_steps
      100
    """

    name: ClassVar[str] = "apgd"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "box")

    steps: int = static(default=100)
    restarts: int = static(default=1)
    loss: str = static(default="ce")
    targets: int = static(default=0)
    large_eps: bool = static(default=False)
    reference: bool = static(default=False)

    @property
    def total_steps(self) -> int:
        return self.steps

    def rounds(self, n_classes: int) -> int:
        return min(self.targets, n_classes - 1) if self.targets else self.restarts

    def fit(self, n_classes: int, row_shape: tuple[int, ...], norm: str) -> tuple[Method, tuple[str, ...]]:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"APGD got steps={self.steps}, restarts={self.restarts}; both must be at least 1.")
        if self.loss not in LOSSES:
            raise ValueError(f"APGD got loss={self.loss!r}; allowed: {', '.join(LOSSES)}.")
        method, notes = self, []
        if self.targets > n_classes - 1:
            notes.append(f"APGD-T: {self.targets} targets asked, the model has {n_classes} classes; {n_classes - 1} used")
        if self.targets and n_classes < 4:
            notes.append(f"APGD-T: the targeted DLR needs 4 classes, the model has {n_classes}; z_t - z_y was used")
        if not self.targets and self.loss == "dlr" and n_classes < 3:
            notes.append(f"APGD: DLR needs 3 classes, the model has {n_classes}; the margin loss was used")
            method = self.replace(loss="margin")
        if norm == "l1":
            from ._apgd_l1 import APGDL1

            fields = ("steps", "restarts", "loss", "targets", "large_eps", "reference")
            return APGDL1(**{name: getattr(method, name) for name in fields}), tuple(notes)
        return method, tuple(notes)

    def init(self, problem: Problem, round: jax.Array | int) -> _State:
        start = problem.threat.sample_boundary(problem.keys, problem.wide)
        target = pick_target(problem, round) if self.targets else problem.y
        logits, loss, gradient = ask(self, problem, start, 0, target)
        track = observe(start_track(problem), problem, problem.at(start), logits, loss, 0, gradient=gradient, counts=not self.reference)
        return _State(
            x=start,
            previous=start,
            gradient=gradient,
            best_gradient=gradient,
            target=target,
            size=2.0 * problem.threat.radius(start),
            last_loss=jnp.zeros_like(loss) if self.reference else loss,
            rises=jnp.zeros(loss.shape, jnp.int32),
            halved=jnp.full(loss.shape, self.reference),
            best_at_check=loss,
            last=seen(start_last(problem), problem.at(start), problem.wrong(logits), 0) if self.reference else None,
            track=track,
        )

    def _project(self, problem: Problem, x: jax.Array) -> jax.Array:
        threat = problem.threat
        if self.reference and threat.norm == "l2":
            return threat.project_radially(problem.wide, x)
        return threat.project(problem.wide, x)

    def step(self, problem: Problem, state: _State, i: jax.Array) -> _State:
        x = state.x
        weight = jnp.where(i > 0, 0.75, 1.0).astype(x.dtype)
        z = self._project(problem, x + expand(state.size, x).astype(x.dtype) * problem.threat.steepest(x, state.gradient))
        moved = self._project(problem, x + weight * (z - x) + (1 - weight) * (x - state.previous))
        logits, loss, gradient = ask(self, problem, moved, i + 1, state.target)
        old = state.track
        closing = i + 1 <= self.steps - max(1, self.steps // 10)
        track = observe(old, problem, problem.at(moved), logits, loss, i + 1, gradient=gradient, closing=closing, counts=not self.reference)
        improved = loss > old.loss
        best_gradient = jnp.where(expand(improved, x), gradient, state.best_gradient)
        rises = state.rises + (loss > state.last_loss)
        # adapt the step at a checkpoint: i is shared by all rows, so this is a mask, not a branch
        window = jnp.asarray(checkpoints(self.steps))[i]
        limit = 0.75 * window
        few = rises <= limit if self.reference else rises < limit
        stuck = ~state.halved & (state.best_at_check >= track.loss)
        check = window > 0
        reset = check & (few | stuck)
        back, best = expand(reset, x), track.x.astype(x.dtype)
        return _State(
            x=jnp.where(back, best, moved),
            previous=x if self.reference else jnp.where(back, best, x),
            gradient=jnp.where(back, best_gradient, gradient),
            best_gradient=best_gradient,
            target=state.target,
            size=jnp.where(reset, state.size / 2, state.size),
            last_loss=loss,
            rises=jnp.where(check, 0, rises),
            halved=jnp.where(check, reset, state.halved),
            best_at_check=jnp.where(check, track.loss, state.best_at_check),
            last=None if state.last is None else seen(state.last, problem.at(moved), problem.wrong(logits), i + 1),
            track=track,
        )

    def finish(self, problem: Problem, state: _State) -> Track:
        return state.track if state.last is None else returned(state.track, state.last)


def ask(method: Any, problem: Problem, x: jax.Array, step: jax.Array | int, target: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(logits, objective, gradient) of the method's loss; with `targets`, the targeted DLR towards the round's target."""
    if not method.targets:
        return problem.evaluate(x, step, method.loss, last=method.reference)
    if problem.targeted:  # the goal itself is the target: its rounds are restarts
        return problem.evaluate(x, step, "dlr" if problem.n_classes > 2 else "margin", last=method.reference)
    return problem.evaluate(x, step, method.loss, target, last=method.reference)


def pick_target(problem: Problem, round: jax.Array | int) -> jax.Array:
    """[B] int32: the class ranked `round + 2` on the clean input, the label itself left out (so it is the `round + 1`-th other)."""
    logits = problem.logits(problem.x0, 0)
    others = jnp.where(jax.nn.one_hot(problem.y, logits.shape[1], dtype=bool), -jnp.inf, logits)
    order = jnp.argsort(-others, axis=1)
    return jax.lax.dynamic_index_in_dim(order, jnp.asarray(round), axis=1, keepdims=False).astype(problem.y.dtype)
