"""What a method sees: the rows, the threat, the goal, and the only two ways to ask the model anything."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import losses
from ..core._keys import fold
from ..core._manual import marked_like
from ..core._model import Model
from ..core._struct import Struct, static, struct
from ..threat import Targeted, Untargeted
from ..threat._rows import inward, working_dtype


@struct
class Problem(Struct):
    """A batch of rows to attack.

    Attributes:
      model: the model, already tuned for the platform.
      x0: [B, ...] clean inputs. y: [B] int32 labels (the class to leave; for a targeted goal, the class to reach).
      threat: canonical: eps is [B], all leaves strongly typed.
      keys: [B] row keys of this stage and round.
      targeted: the goal is to reach `y` instead of leaving it.
      draws: model draws averaged per query (expectation over transformation); 1 for a deterministic model.
      n_classes: K.
      scale: [B] the `deciding` logit of the clean row; near a boundary logits may be small, and the sums behind them are not.
      rounding: a margin below this share of the largest logit may be a matter of rounding.
    """

    model: Model
    x0: jax.Array
    y: jax.Array
    threat: Any
    keys: jax.Array
    scale: Any = 0.0
    targeted: bool = static(default=False)
    draws: int = static(default=1)
    n_classes: int = static(default=0)
    rounding: float = static(default=0.0)

    @property
    def wide(self) -> jax.Array:
        """`x0` in the dtype that iterates have: at least float32, or a small step from a half-precision row would round back to it."""
        return self.x0.astype(working_dtype(self.x0))

    def at(self, x: jax.Array) -> jax.Array:
        """The point that is asked and returned for an iterate: in the rows' dtype, rounded towards `x0` and so inside the set."""
        return inward(self.x0, x)

    def logits(self, x: jax.Array, step: jax.Array | int) -> jax.Array:
        """[B, ...] -> [B, K] in float32; for a stochastic model, the log of the mean softmax over the draws of this `step`."""
        if self.draws == 1:
            return self.draw(x, step, 0)
        return self._mean(jax.lax.map(lambda d: self.draw(x, step, d), jnp.arange(self.draws)))

    def draw(self, x: jax.Array, step: jax.Array | int, draw: jax.Array | int) -> jax.Array:
        """One answer [B, K] in float32; `draw` numbers the draws of a step."""
        keys = fold(fold(self.keys, step), 1_000_003 + draw) if self.model.stochastic else None
        return self.model(x, keys).astype(jnp.float32)

    def _mean(self, logits: jax.Array) -> jax.Array:
        """[draws, B, K] -> [B, K]."""
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(float(self.draws))

    def wrong(self, logits: jax.Array) -> jax.Array:
        """[B] bool: the goal is met. NaN logits never meet it. Ties go to the lower class, as in argmax."""
        return (Targeted(target=self.y) if self.targeted else Untargeted(y=self.y)).success(logits)

    def unsure(self, logits: jax.Array) -> jax.Array:
        """[B] the margin that another order of summation could make or take."""
        return self.rounding * jnp.maximum(self.deciding(logits), self.scale)

    def deciding(self, logits: jax.Array) -> jax.Array:
        """[B] the larger in magnitude of the two logits that decide: the label's and the best of the others (masked ones are neither)."""
        own = jnp.take_along_axis(logits, self.y[:, None], axis=1)[:, 0]
        return jnp.maximum(jnp.abs(own), jnp.abs(losses.runner_up(logits, self.y)))

    def loss(self, name: str, logits: jax.Array, target: jax.Array | None = None) -> jax.Array:
        """[B] objective to maximise; `target` [B] asks for the targeted DLR from `y` to that class."""
        if target is not None:
            return losses.dlr_targeted(logits, self.y, target)
        return (losses.targeted if self.targeted else losses.untargeted)(name, logits, self.y)

    def evaluate(
        self, x: jax.Array, step: jax.Array | int, loss: str, target: jax.Array | None = None, *, last: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """One query with gradient at an iterate: (logits [B, K], objective [B], its gradient [B, ...] in the iterate's dtype).

        Cost: one forward and one backward to the input per draw. With several draws the gradient is the mean of the draws'
        gradients, and logits and objective belong to the mean prediction of the same draws (`last`: to the last draw alone).
        """

        def total(v: jax.Array, d: jax.Array | int) -> tuple[jax.Array, jax.Array]:
            z = self.draw(v, step, d)
            # the sum's gradient is the rows' gradients because rows are independent; summed in float32 whatever x is
            return jnp.sum(self.loss(loss, z, target)), z

        def add(gradient: jax.Array, d: jax.Array | int) -> tuple[jax.Array, jax.Array]:
            g, z = jax.grad(total, has_aux=True)(x, d)
            return gradient + g / self.draws, z

        wide, x = x.dtype, self.at(x)
        if self.draws == 1:
            gradient, z = jax.grad(total, has_aux=True)(x, 0)
        else:  # a loop, so that the program holds the model once
            gradient, draws = jax.lax.scan(add, marked_like(jnp.zeros_like(x), x), jnp.arange(self.draws))
            z = draws[-1] if last else self._mean(draws)
        return z, self.loss(loss, z, target), gradient.astype(wide)


def expand(v: jax.Array, like: jax.Array) -> jax.Array:
    """A [B] array as [B, 1, ..., 1], to meet rows of `like`."""
    return v.reshape(v.shape[0], *([1] * (like.ndim - 1)))


def where_rows(mask: jax.Array, a: Any, b: Any) -> Any:
    """Row-wise choice between two trees whose leaves all have the batch axis first (keys included)."""

    def choose(u: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.where(expand(mask, u), u, v)

    return jax.tree.map(choose, a, b)
