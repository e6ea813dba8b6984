"""What counts as success: `Untargeted` (leave the true class) and `Targeted` (reach a chosen class)."""

import abc
from typing import Any, ClassVar, Self, final

import jax
import jax.numpy as jnp

from ..core._struct import Struct, struct


class Goal(Struct, abc.ABC):
    """A condition on a row's logits, for each row its own class.

    The class decides as it does in deployment, by argmax: of tied logits the lower class index wins. A row with a NaN logit never
    succeeds, and has margin +inf: nothing is proven by a broken forward pass.
    """

    targeted: ClassVar[bool]

    @property
    @abc.abstractmethod
    def label(self) -> Any:
        """[B] the class that the goal is about."""

    @abc.abstractmethod
    def success(self, logits: jax.Array) -> jax.Array:
        """[B, K] -> [B] bool: the goal is met."""

    @abc.abstractmethod
    def margin(self, logits: jax.Array) -> jax.Array:
        """[B, K] -> [B], in logits: what is left to success. Negative: success. Success: not positive (0 is a tie)."""

    def canonical(self, rows: int) -> Self:
        """The same goal with an int32 array of one class per row; a single class is repeated."""
        name = "target" if self.targeted else "y"
        value = jnp.asarray(self.label)
        if not jnp.issubdtype(value.dtype, jnp.integer) or value.shape not in ((), (rows,)):
            raise ValueError(
                f"{name} has dtype {value.dtype} and shape {value.shape}; allowed: integer class indices of shape ({rows},), one per row, "
                "or one integer. One-hot labels: pass labels.argmax(1)."
            )
        return self.replace(**{name: jnp.broadcast_to(value.astype(jnp.int32), (rows,))})


@final
@struct
class Untargeted(Goal):
    """The prediction is anything but `y`.

    Args: y: [B] int32 true classes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import Untargeted
      >>> Untargeted(y=jnp.array([0, 1])).success(jnp.array([[2.0, 1.0], [2.0, 1.0]])).tolist()
      [False, True]
    """

    targeted: ClassVar[bool] = False
    y: Any

    @property
    def label(self) -> Any:
        return self.y

    def success(self, logits: jax.Array) -> jax.Array:
        return (_predicted(logits) != self.y) & ~_broken(logits)

    def margin(self, logits: jax.Array) -> jax.Array:
        """`z_y - max over the other classes`."""
        own, others = _split(logits, self.y)
        return _difference(own, others, logits)


@final
@struct
class Targeted(Goal):
    """The prediction is `target`.

    Args: target: [B] int32 classes to reach.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.threat import Targeted
      >>> Targeted(target=jnp.array([0, 1])).margin(jnp.array([[2.0, 1.0], [2.0, 1.0]])).tolist()
      [-1.0, 1.0]
    """

    targeted: ClassVar[bool] = True
    target: Any

    @property
    def label(self) -> Any:
        return self.target

    def success(self, logits: jax.Array) -> jax.Array:
        return (_predicted(logits) == self.target) & ~_broken(logits)

    def margin(self, logits: jax.Array) -> jax.Array:
        """`max over the other classes - z_target`."""
        own, others = _split(logits, self.target)
        return _difference(others, own, logits)


def _predicted(logits: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=1).astype(jnp.int32)


def _broken(logits: jax.Array) -> jax.Array:
    return jnp.any(jnp.isnan(logits), axis=1)


def _split(logits: jax.Array, label: Any) -> tuple[jax.Array, jax.Array]:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits have shape {logits.shape}; a goal needs [B, K] with K >= 2. One output per row: stack [-z, z].")
    own = jnp.arange(logits.shape[1])[None, :] == jnp.asarray(label)[:, None]
    return jnp.max(logits, axis=1, where=own, initial=-jnp.inf), jnp.max(logits, axis=1, where=~own, initial=-jnp.inf)


def _difference(a: jax.Array, b: jax.Array, logits: jax.Array) -> jax.Array:
    # equal infinities are a tie, not a NaN
    same = a == b
    return jnp.where(_broken(logits), jnp.inf, jnp.where(same, 0, jnp.where(same, 0, a) - jnp.where(same, 0, b)))
