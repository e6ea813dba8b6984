"""Searches that run all their steps: for models that draw, where one wrong answer on the way is luck, and for surrogates that disagree."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..attack import FAB, AutoAttack, Method, Problem
from ..attack._door import stages_of
from ..core import Model, static, struct
from ..core._keys import fold
from ..threat import Threat


@struct
class Unmet(Problem):
    """A problem whose goal is never met, so that no method stops, skips a row, or keeps an input for one lucky answer.

    What a method remembers is the iterate where the mean prediction of a step's draws has the largest margin, whatever loss it climbs.

    Attributes:
      mean: the gradient is of that margin, through the mean over the draws, in place of the method's own loss (static). Of a model that
        answers surely and wrongly on some draws, the mean cross-entropy counts how sure the wrong ones are; this is what decides.
      deployed: a deterministic model whose margin is remembered in place of `model`'s, which only lends its gradients; or None.
      around: a draw is of the deterministic `model` at a random point of the set around the iterate (static). The mean of its gradients
        is that of the model averaged over the set, which a ripple does not turn.
    """

    mean: bool = static(default=False)
    deployed: Any = None
    around: bool = static(default=False)

    def draw(self, x: jax.Array, step: jax.Array | int, draw: jax.Array | int) -> jax.Array:
        if not self.around:
            return super().draw(x, step, draw)
        keys = fold(fold(self.keys, step), 2_000_003 + draw)
        return super().draw(x + jax.lax.stop_gradient(self.threat.sample(keys, x) - x), step, draw)

    def wrong(self, logits: jax.Array) -> jax.Array:
        return jnp.zeros(logits.shape[:1], bool)

    def evaluate(
        self, x: jax.Array, step: jax.Array | int, loss: str, target: jax.Array | None = None, *, last: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        if self.mean:
            gradient, z = jax.grad(self._margin, has_aux=True)(self.at(x), step)
            gradient = gradient.astype(x.dtype)
        else:
            z, _, gradient = super().evaluate(x, step, loss, target)
        if self.deployed is not None:
            z = self.deployed(self.at(x)).astype(jnp.float32)
        return z, jnp.where(jnp.all(jnp.isfinite(z), axis=1), self.loss("margin", z), jnp.inf), gradient  # NaN is no right answer

    def _margin(self, x: jax.Array, step: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        @jax.checkpoint  # or the activations of all draws would be kept
        def one(d: jax.Array) -> jax.Array:
            return jax.nn.log_softmax(self.draw(x, step, d))

        z = jax.nn.logsumexp(jax.lax.map(one, jnp.arange(self.draws)), axis=0) - jnp.log(float(self.draws))
        return jnp.sum(self.loss("margin", z)), z


def stages(method: Method | AutoAttack, n_classes: int, row_shape: tuple[int, ...], norm: str) -> list[Method]:
    """The parts of a method that can search without stopping: all but FAB, which looks for the nearest wrong input, and so needs one.

    Raises: ValueError: as `attack`, for methods that do not support the threat or the rows.
    """
    return [m for _, m in stages_of(method, norm, n_classes, row_shape, False)[0] if not isinstance(m, FAB)]


def unstopped(
    model: Model, parts: Sequence[Method], x: Any, y: Any, threat: Threat, keys: jax.Array, *, draws: int, n_classes: int, mean: bool,
    deployed: Model | None = None, around: bool = False,
) -> tuple[list[jax.Array], jax.Array, jax.Array]:  # fmt: skip
    """(inputs [B, ...] to be judged, [B] bool: met a gradient of zero, [B] bool: one that is not finite) of every part's rounds.

    A round proposes two inputs: the iterate of the largest margin over its own draws, which luck may have chosen, and the last.
    Args: parts: of `stages`. threat: canonical. keys: [B] of the rows. draws, mean, deployed, around: as `Unmet`.
    """
    found, flat, bad = [], jnp.zeros(len(y), bool), jnp.zeros(len(y), bool)
    for s, part in enumerate(parts):
        for r in range(part.rounds(n_classes)):
            own = fold(fold(keys, s), r)
            (best, last), zero, infinite = _searched(
                model, part, x, y, threat, own, jnp.int32(r), deployed, draws=draws, n_classes=n_classes, mean=mean,
                around=around,
            )  # fmt: skip
            found += [best, last]
            flat, bad = flat | zero, bad | infinite
    return found, flat, bad


@functools.partial(jax.jit, static_argnames=("draws", "n_classes", "mean", "around"))
def _searched(
    model: Model,
    method: Method,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    keys: jax.Array,
    number: jax.Array,
    deployed: Model | None,
    *,
    draws: int,
    n_classes: int,
    mean: bool,
    around: bool,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
    sizes = {"draws": draws, "n_classes": n_classes, "mean": mean, "around": around}
    problem = Unmet(model=model, x0=x, y=y, threat=threat, keys=keys, deployed=deployed, **sizes)
    start = method.init(problem, number)
    state = jax.lax.fori_loop(0, method.total_steps, lambda i, state: method.step(problem, state, i), start)
    track = state.track
    last = problem.at(state.x) if hasattr(state, "x") else track.x
    return (track.x, last), track.zero_gradients > 0, track.bad_gradients > 0
