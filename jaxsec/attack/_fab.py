"""FAB: fast adaptive boundary attack, minimum-norm; each step projects onto the linearised decision boundary inside the box."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._native import Move
from ..core._manual import marked_like
from ..core._struct import Struct, static, struct
from ..threat._rows import flat
from ._apgd import pick_target
from ._hyperplane import boundary_move
from ._method import Method, Track, start_track
from ._problem import Problem, expand
from ._verdict import confirmed


@struct
class _State(Struct):
    x: jax.Array
    value: jax.Array
    normal: jax.Array
    best: jax.Array
    best_distance: jax.Array
    target: jax.Array
    track: Track


@struct
class FAB(Method):
    """Fast adaptive boundary attack: finds a close adversarial input, whatever eps is; success means within eps.

    Guarantee: `finish` returns the closest adversarial input seen (inside the box); a row counts as broken only if that
    input is inside the threat set.

    Args:
      steps: iterations per round (static). restarts: rounds; all but the first start at a random point near x0 (static).
      targets: 0 = nearest of all classes (one backward per class and step); n > 0 = FAB-T, one round per likeliest class (static).
      minimise: keep shrinking the distance of rows that are already within eps (static). AutoAttack needs only the verdict
        and switches it off, so that solved rows leave the batch.
      alpha_max, eta, beta: bias to the clean input, overshoot, and pull-back after a success.
      reference: linearise again after a pull-back, as published (static). The default keeps the plane found at the adversarial
        point, which is nearer to the boundary, and so asks the model once per step instead of twice.

    Cost: per step 1 forward and 1 backward (K backwards for the nearest class); one forward more in reference mode.
    Edge cases: a row without a success within eps returns its clean input; for minimal distances give an eps that is large
      enough. Where the gradient is zero a row goes half way back to its clean input; counted in `zero_gradients` inside the
      threat set only, because FAB leaves the set, and far outside many healthy models are flat.
    Source: Croce and Hein 2020 ("Minimally distorted adversarial examples"), algorithm 1, with its final search (which the
    published code lacks) where `minimise`.

    Example:
      >>> import jaxsec
      >>> jaxsec.FAB(targets=9).rounds(n_classes=10)
      9
    """

    name: ClassVar[str] = "fab"
    ascends: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = static(default=100)
    restarts: int = static(default=1)
    targets: int = static(default=0)
    minimise: bool = static(default=True)
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    reference: bool = static(default=False)

    @property
    def total_steps(self) -> int:
        return self.steps

    def rounds(self, n_classes: int) -> int:
        return min(self.targets, n_classes - 1) if self.targets else self.restarts

    def fit(self, n_classes: int, row_shape: tuple[int, ...], norm: str) -> tuple[Method, tuple[str, ...]]:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"FAB got steps={self.steps}, restarts={self.restarts}; both must be at least 1.")
        if self.targets > n_classes - 1:
            return self, (f"FAB-T: {self.targets} targets asked, the model has {n_classes} classes; {n_classes - 1} used",)
        return self, ()

    def done(self, state: _State) -> jax.Array:
        return jnp.zeros_like(state.track.success) if self.minimise else state.track.success

    def init(self, problem: Problem, round: jax.Array | int) -> _State:
        x0 = problem.wide
        target = pick_target(problem, round) if self.targets else problem.y
        start = x0
        if (self.restarts > 1 and not self.targets) or (problem.targeted and self.targets):
            # restarts look from half the budget away; the first one looks from the clean input. With a class to reach there is
            # one boundary only, so the rounds of FAB-T are restarts too
            near = problem.threat.scaled(0.5).sample_boundary(problem.keys, x0)
            start = jnp.where(jnp.asarray(round) > 0, near, x0)
        value, normal, _ = self._boundary(problem, start, 0, target)
        rows = jnp.ones(problem.y.shape, bool)
        track = self._count(start_track(problem), rows, rows, normal, problem)
        if self.targets:
            track = track.replace(queries=track.queries + problem.draws)
        far = jnp.full(problem.y.shape, jnp.inf, x0.dtype)
        return _State(x=start, value=value, normal=normal, best=problem.x0, best_distance=far, target=target, track=track)

    def _count(self, track: Track, live: jax.Array, near: jax.Array, normal: jax.Array, problem: Problem) -> Track:
        """Enters one `_boundary` call; `near` [B]: it was inside the ball."""
        size = jnp.max(jnp.abs(normal), axis=1)
        backwards = 1 if self.targets or problem.targeted else problem.n_classes
        return track.replace(
            queries=track.queries + problem.draws * live,
            gradients=track.gradients + backwards * problem.draws * live,
            zero_gradients=track.zero_gradients + (live & near & (size == 0)),
            bad_gradients=track.bad_gradients + (live & near & ~jnp.isfinite(size)),
        )

    def _boundary(self, problem: Problem, x: jax.Array, i: Any, target: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Value [B] and normal [B, D] of the linearised boundary to cross (the target's, or the nearest one's), and the logits at x.

        The boundary is where the class changes by more than rounding (`Problem.rounding`); in reference mode, where it changes.
        """
        wide, x = x.dtype, problem.at(x)

        def differences(v: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = problem.logits(v, i)
            return z - jnp.take_along_axis(z, problem.y[:, None], axis=1), z

        def one(v: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            if problem.targeted:  # the boundary between the class to reach and the best of the others
                z = problem.logits(v, i)
                f = problem.loss("margin", z)
            else:
                d, z = differences(v)
                f = jnp.take_along_axis(d, target[:, None], axis=1)[:, 0]
            return jnp.sum(f), (f, z)

        if self.targets or problem.targeted:
            g, (f, z) = jax.grad(one, has_aux=True)(x)
            return (f - self._rounding(problem, z)).astype(wide), flat(g).astype(wide), z
        d, pull, z = jax.vjp(differences, x, has_aux=True)
        k = d.shape[1]
        basis = jnp.broadcast_to(jnp.eye(k, dtype=d.dtype)[:, None, :], (k, *d.shape))
        g = jax.vmap(lambda c: flat(pull(c)[0]))(marked_like(basis, d))  # [K, B, D]
        dual = {
            "linf": lambda v: jnp.sum(jnp.abs(v), -1),
            "l2": lambda v: jnp.linalg.norm(v, axis=-1),
            "l1": lambda v: jnp.max(jnp.abs(v), -1),
        }
        far = jnp.abs(d.T) / (dual[problem.threat.norm](g) + 1e-12)
        nearest = jnp.argmin(jnp.where(jax.nn.one_hot(problem.y, k, dtype=bool).T, jnp.inf, far), axis=0)
        chosen = jax.nn.one_hot(nearest, k, dtype=bool)  # a mask, not a gather, so that sharded rows stay where they are
        value = jnp.sum(jnp.where(chosen, d, 0.0), axis=1) - self._rounding(problem, z)
        return value.astype(wide), jnp.sum(jnp.where(chosen.T[:, :, None], g, 0.0), axis=0).astype(wide), z

    def _rounding(self, problem: Problem, logits: jax.Array) -> jax.Array | float:
        return 0.0 if self.reference else problem.unsure(logits)

    def step(self, problem: Problem, state: _State, i: jax.Array) -> _State:
        threat, x0, x = problem.threat, problem.wide, state.x
        lo, hi = (_bound(v, x0) for v in (threat.lo, threat.hi))
        beta = jnp.asarray(self.beta, x.dtype)
        move = Move(flat(x), flat(x0), state.normal, state.value, lo, hi, jnp.asarray(self.alpha_max), jnp.asarray(self.eta))
        moved = boundary_move(threat.norm, move).reshape(x.shape)
        point = problem.at(moved)
        if self.reference:
            logits = problem.logits(point, 2 * i + 2)
            wrong = problem.wrong(logits)
            pulled = jnp.where(expand(wrong, x), x0 + beta * (moved - x0), moved)
            value, normal, _ = self._boundary(problem, pulled, 2 * i + 1, state.target)
        else:
            value, normal, logits = self._boundary(problem, moved, i + 1, state.target)
            wrong = problem.wrong(logits)
            pulled = jnp.where(expand(wrong, x), x0 + beta * (moved - x0), moved)
            # the same plane seen from the pulled point: pulled - moved = (beta - 1) (moved - x0)
            value = value + jnp.where(wrong, (self.beta - 1) * jnp.sum(normal * flat(moved - x0), axis=1), 0.0)
        distance = threat.distance(x0, point)
        sure, more = confirmed(problem, point, logits, i + 1)
        old = state.track
        live = jnp.ones_like(wrong) if self.minimise else ~old.success
        # the box holds by the clip; the front door asks `contains`, which costs more, once at the end
        near = distance <= threat.radius(x0)
        # an input that may be wrong by rounding or luck only is kept until there is a surer one, within eps if it is itself
        closer, unsure = distance < state.best_distance, old.candidate | ~jnp.isfinite(state.best_distance)
        instead = near | (state.best_distance > threat.radius(x0))
        closer = live & wrong & jnp.where(unsure, jnp.where(sure, instead, closer), sure & closer)
        won = closer & sure & near & ~old.success
        track = self._count(old, live, near, normal, problem)
        more = more + problem.draws if self.reference else more
        track = track.replace(
            success=old.success | won,
            candidate=jnp.where(closer, ~sure, old.candidate),
            first_step=jnp.where(won, i + 1, old.first_step),
            queries=track.queries + more * live,
        )
        # a solved row is frozen, so that its result cannot depend on when its batch stops
        return _State(
            x=jnp.where(expand(live, x), pulled, x),
            value=jnp.where(live, value, state.value),
            normal=jnp.where(live[:, None], normal, state.normal),
            best=jnp.where(expand(closer, x), point, state.best),
            best_distance=jnp.where(closer, distance, state.best_distance),
            target=state.target,
            track=track,
        )

    def finish(self, problem: Problem, state: _State) -> Track:
        if self.minimise:
            state = self._final_search(problem, state)
        found = jnp.isfinite(state.best_distance)
        loss = jnp.where(found, -state.best_distance, -jnp.inf).astype(state.track.loss.dtype)  # higher is worse: closer
        return state.track.replace(x=jnp.where(expand(found, state.x), state.best, problem.x0), loss=loss, late=loss)

    def _final_search(self, problem: Problem, state: _State) -> _State:
        """Secant steps on the segment from the clean to the best input, towards the point where the margin exceeds rounding."""
        x0, best = problem.wide, state.best
        found = jnp.isfinite(state.best_distance)

        def at(t: jax.Array) -> jax.Array:
            return problem.at(x0 + expand(t, x0).astype(x0.dtype) * (best.astype(x0.dtype) - x0))

        def margin(x: jax.Array, draw: int) -> tuple[jax.Array, jax.Array, jax.Array]:
            z = problem.logits(x, 2 * self.steps + draw)
            return problem.loss("margin", z) - self._rounding(problem, z), *confirmed(problem, x, z, 2 * self.steps + draw)

        low, high = jnp.zeros_like(state.best_distance), jnp.ones_like(state.best_distance)
        (f_low, _, spent), (f_high, _, more) = margin(problem.x0, 0), margin(best, 1)
        spent = spent + more + 5 * problem.draws
        for draw in range(2, 5):
            gap = f_high - f_low
            share = jnp.clip(-f_low / jnp.where(gap > 0, gap, 1.0), 0.0, 1.0)
            share = share + 1e-3 * (1 - share)  # a hair on the wrong side, where the model errs
            t = low + (high - low) * jnp.where(gap > 0, share, 1.0)
            f, sure, more = margin(at(t), draw)
            wrong, spent = sure & found, spent + more
            low, f_low = jnp.where(wrong, low, t), jnp.where(wrong, f_low, f)
            high, f_high = jnp.where(wrong, t, high), jnp.where(wrong, f, f_high)
        x = jnp.where(expand(found & (high < 1), x0), at(high), best)
        distance = problem.threat.distance(x0, x)
        closer = found & (distance < state.best_distance)
        inside = closer & (distance <= problem.threat.radius(x0))
        old = state.track
        track = old.replace(
            success=old.success | inside,
            candidate=old.candidate & ~closer,
            first_step=jnp.where(inside & ~old.success, self.steps, old.first_step),
            queries=old.queries + spent,
        )
        return state.replace(
            best=jnp.where(expand(closer, x0), x, best), best_distance=jnp.where(closer, distance, state.best_distance), track=track
        )


def _bound(v: jax.Array, like: jax.Array) -> jax.Array:
    """A side of the box as [1 or B, 1 or D]: not filled out, since it is read at every step."""
    v = jnp.asarray(v, like.dtype)
    if v.size == 1:
        return v.reshape(1, 1)
    return flat(jnp.broadcast_to(v, (v.shape[0] if v.ndim == like.ndim else 1, *like.shape[1:])))
