"""APGD for the L1 ball: sparse steps whose sparsity follows the best point found; reached through `APGD`."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..core._select import kth_largest
from ..core._struct import Struct, static, struct
from ..threat._rows import flat
from ._apgd import ask, pick_target
from ._method import Method, Track, observe, start_track
from ._problem import Problem, expand
from ._published import Last, returned, seen, start_last


@struct
class _State(Struct):
    x: jax.Array
    gradient: jax.Array
    best: jax.Array
    best_gradient: jax.Array
    best_loss: jax.Array
    size: jax.Array
    density: jax.Array
    nonzero: jax.Array
    target: jax.Array
    last: Last | None
    track: Track


@struct
class APGDL1(Method):
    """Sparsity-adaptive APGD for L1-ball-and-box; `APGD` turns into it for an `L1` threat.

    Guarantee: a success is counted only at radius eps (never in the phases at 2 and 3 eps).
    Args: as `APGD`. Cost: `steps + 3` forwards and backwards with `large_eps`, else `steps + 1`.
    Source: Croce and Hein 2021 ("Mind the box"), algorithm 1 and section 4.
    """

    name: ClassVar[str] = "apgd"
    norms: ClassVar[tuple[str, ...]] = ("l1",)

    steps: int = static(default=100)
    restarts: int = static(default=1)
    loss: str = static(default="ce")
    targets: int = static(default=0)
    large_eps: bool = static(default=False)
    reference: bool = static(default=False)

    def _plan(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per step: radius factor, whether the step enters a new phase, whether it ends a window."""
        if self.large_eps:
            first = second = max(int(0.3 * self.steps), 1)
            phases = [(3.0, first), (2.0, second), (1.0, max(self.steps - first - second, 1))]
        else:
            phases = [(1.0, self.steps)]
        factor, enter, check = [], [], []
        for at, (radius, length) in enumerate(phases):
            window = max(int(0.04 * length), 1)
            moves = [0] * length
            for j in range(window - 1, length, window):
                moves[j] = 1
            first_step = [0] if at else []  # entering a phase costs one evaluation at the shrunk best point
            factor += [radius] * (length + len(first_step))
            enter += [1] * len(first_step) + [0] * length
            check += first_step + moves
        return np.asarray(factor, np.float32), np.asarray(enter, bool), np.asarray(check, bool)

    @property
    def total_steps(self) -> int:
        return len(self._plan()[0])

    def rounds(self, n_classes: int) -> int:
        return min(self.targets, n_classes - 1) if self.targets else self.restarts

    def init(self, problem: Problem, round: jax.Array | int) -> _State:
        factor, _, _ = self._plan()
        threat = problem.threat.scaled(float(factor[0]))
        start = threat.sample_boundary(problem.keys, problem.wide)
        target = pick_target(problem, round) if self.targets else problem.y
        logits, loss, gradient = ask(self, problem, start, 0, target)
        counts = bool(factor[0] == 1.0)
        track = observe(
            start_track(problem), problem, problem.at(start), logits, loss, 0, gradient=gradient, counts=counts and not self.reference
        )
        d = flat(start).shape[1]
        nonzero, density = jnp.full(loss.shape, float(d), jnp.float32), jnp.full(loss.shape, 0.2, jnp.float32)
        if self.reference and self.large_eps:
            nonzero = _moved_elements(problem.at(start), problem.x0)
            density = _next_density(nonzero, d)
        return _State(
            x=start,
            gradient=gradient,
            best=start,
            best_gradient=gradient,
            best_loss=loss,
            size=threat.radius(start),
            density=density,
            nonzero=nonzero,
            target=target,
            last=seen(start_last(problem), problem.at(start), problem.wrong(logits) & counts, 0) if self.reference else None,
            track=track,
        )

    def step(self, problem: Problem, state: _State, i: jax.Array) -> _State:
        factors, enters, checks = (jnp.asarray(v)[i] for v in self._plan())
        threat = problem.threat.scaled(factors)
        x0, x = problem.wide, state.x
        d = flat(x).shape[1]
        g = flat(state.gradient)
        # step along the signs of the largest entries, in unit L1 length; rounded down (published: up), else two entries never become one
        count = d - jnp.clip(jnp.floor((1 - state.density) * d), 0, d - 1) if self.reference else jnp.floor(state.density * d)
        keep = jnp.abs(g) >= kth_largest(jnp.abs(g), count.astype(jnp.int32))[:, None]
        sparse = jnp.where(keep, jnp.sign(g), 0.0)
        sparse = sparse / (jnp.sum(jnp.abs(sparse), axis=1, keepdims=True) + 1e-10)
        stepped = x + (state.size[:, None] * sparse).reshape(x.shape).astype(x.dtype)
        moved = threat.project(x0, jnp.where(enters, state.best, stepped))
        logits, loss, gradient = ask(self, problem, moved, i + 1, state.target)
        closing = i + 1 <= self.total_steps - max(1, self.total_steps // 10)
        old = state.track.replace(loss=jnp.where(enters, -jnp.inf, state.track.loss))
        final = factors == 1.0
        counts = final & (not self.reference)
        track = observe(old, problem, problem.at(moved), logits, loss, i + 1, gradient=gradient, closing=closing, counts=counts)
        better = enters | (loss > state.best_loss)
        row = expand(better, x)
        best, best_gradient = jnp.where(row, moved, state.best), jnp.where(row, gradient, state.best_gradient)
        best_loss = jnp.where(better, loss, state.best_loss)
        # a window ends: a clearly sparser best point restarts the search there with the full step, else the step shrinks
        nonzero = _moved_elements(problem.at(best), problem.x0)
        sparser = nonzero < 0.95 * state.nonzero
        full = threat.radius(x)
        size = jnp.clip(jnp.where(sparser, full, state.size / 1.5), full / 10, full)
        back = expand(checks & sparser, x)
        fresh = jnp.maximum(_next_density(nonzero, d), 1.0 / d)
        return _State(
            x=jnp.where(back, best, moved),
            gradient=jnp.where(back, best_gradient, gradient),
            best=best,
            best_gradient=best_gradient,
            best_loss=best_loss,
            size=jnp.where(enters, full, jnp.where(checks, size, state.size)),
            density=jnp.where(checks | enters, fresh, state.density),
            nonzero=jnp.where(enters, nonzero if self.reference else float(d), jnp.where(checks, nonzero, state.nonzero)),
            target=state.target,
            last=None if state.last is None else seen(state.last, problem.at(moved), problem.wrong(logits) & final, i + 1),
            track=track,
        )

    def finish(self, problem: Problem, state: _State) -> Track:
        return state.track if state.last is None else returned(state.track, state.last)


def _next_density(nonzero: jax.Array, d: int) -> jax.Array:
    # two divisions, as published: XLA would multiply by one constant, and the count of elements is rounded to a side
    d, shrink = jax.lax.optimization_barrier((jnp.float32(d), jnp.float32(1.5)))
    return nonzero / d / shrink


def _moved_elements(x: jax.Array, x0: jax.Array) -> jax.Array:
    """[B] float32: how many elements differ."""
    return jnp.sum(flat(x != x0), axis=1).astype(jnp.float32)
