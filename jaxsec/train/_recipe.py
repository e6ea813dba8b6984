"""`Recipe`: the protocol of a training-time defence, and its plain loss for loops of one's own."""

import abc
from typing import Any, ClassVar, Self, final

import jax
import jax.numpy as jnp

from ..core import Model, Struct, as_key, row_keys, struct
from ..core._meshes import on_any_mesh
from ._defence import Defence, defence_of
from ._net import Net, net_of

Metrics = dict[str, jax.Array]


@struct
class Gradient(Struct):
    """What one evaluation of a recipe gives a step: the loss [], its gradient in the parameters, metrics, the net with its new
    statistics, and what the recipe carries on to the next step."""

    loss: jax.Array
    gradient: Any
    metrics: Metrics
    net: Net
    carry: Any = ()


class Recipe(Struct, abc.ABC):
    """A defence: what the adversary does to a batch (`prepare`), and the loss that the parameters then descend (`objective`).

    Both are pure and traced; numbers among a recipe's fields (eps, beta, ...) are traced leaves, so a sweep compiles once. A row's random
    numbers come from the row's own key. A recipe works for any `Net`: it asks `net(x)` in evaluation mode and `net.training(x, keys)` where
    statistics of the batch are meant to count. In `prepare` the net is asked in evaluation mode, unless a recipe says otherwise.

    Attributes:
      name: as the command line and the table of recipes call it. summary: one line. cost: backward passes per step, in words.
      source: the paper. single_step: the adversary takes one step, so that training may overfit to it (catastrophic overfitting).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    cost: ClassVar[str]
    source: ClassVar[str]
    single_step: ClassVar[bool] = False

    def check(self, net: Net, x: jax.Array) -> None:
        """Raises ValueError or TypeError where the recipe cannot train this net on rows like `x` [B, ...]; runs before training."""
        for threat in self.threats:
            threat.check(x)

    @property
    def threats(self) -> tuple[Any, ...]:
        """The threat sets that the recipe defends against, the first one for validation; none for a recipe without."""
        threat = getattr(self, "threat", None)
        return () if threat is None else (threat,)

    @property
    def replays(self) -> int:
        """Updates made of each batch that is loaded (static)."""
        return 1

    @property
    def grows(self) -> bool:
        """Whether the eps of its threat may be scheduled from outside, as `Curriculum` does: there is one, and no schedule of its own."""
        return bool(self.threats)

    @property
    def noise(self) -> Any:
        """Deviation of the noise under which validation asks the net; None for a recipe without."""
        return None

    @property
    def bounds(self) -> str | None:
        """By which bounds validation proves rows, "ibp" or "crown-ibp"; None for a recipe that does not train on bounds."""
        return None

    @property
    def settled(self) -> float:
        """Share of training after which its own schedules are at their ends; weights from before are not compared with later ones."""
        return 0.0

    @property
    def shares_pass(self) -> bool:
        """Whether the adversary moves in the very pass that trains, so that there is no `objective` apart to wrap."""
        return type(self).gradient is not Recipe.gradient

    def at(self, progress: jax.Array) -> Self:
        """The recipe at that share of training, [] in [0, 1): schedules go here, traced."""
        return self

    def scaled(self, factor: jax.Array) -> Self:
        """The recipe with its adversary's budget times `factor`."""
        if not self.threats:
            raise TypeError(f"the recipe {self.name} has no threat, so there is no eps to scale.")
        return self.replace(threat=self.threats[0].scaled(factor))

    def begin(self, net: Net, x: jax.Array) -> Any:
        """What is carried from step to step before the first one; leaves that begin with the batch axis belong to rows."""
        return ()

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> Any:
        """What the adversary makes of the batch, through which no gradient flows."""
        return x

    def constrained(self, net: Net, x: jax.Array) -> Net:
        """The net brought back to where the recipe needs it, after every update and before the first one; x: a batch, for its shape."""
        return net

    @abc.abstractmethod
    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        """(mean loss [], metrics, the net with its new statistics), differentiated with respect to `net.params`.

        Args: x [B, ...]; y [B] classes or [B, K] distributions; keys [B]. Folds 0 to 99 of a key are `prepare`'s, the others free.
        """

    def gradient(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array, carry: Any) -> Gradient:
        """One step's gradient; a recipe whose adversary shares the backward pass (Free-AT) has its own."""
        prepared = jax.lax.stop_gradient(self.prepare(net, x, y, keys))

        def total(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
            loss, metrics, new = self.objective(net.replace(params=params), prepared, x, y, keys)
            return loss, (metrics, new.state)

        (loss, (metrics, state)), gradient = jax.value_and_grad(total, has_aux=True)(net.params)
        return Gradient(loss=loss, gradient=gradient, metrics=metrics, net=net.replace(state=state), carry=carry)

    def defence(self, model: Model) -> Defence:
        """A model that this recipe made, with what an adversary who knows the recipe attacks in its place: what `evaluate` takes."""
        return defence_of(model)

    @final
    @on_any_mesh
    def loss(self, model: Model | Net, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        """The recipe as a plain loss, to be differentiated with respect to the model's parameters in any loop.

        Args: model: a `Model`, or a `Net` where BatchNorm or dropout have a training mode. x [B, ...]; y [B] or [B, K]; key: consumed,
          row i uses `fold_in(key, i)`.
        Returns: (loss [], metrics); the metrics of a net with statistics hold the new ones under "state".
        Edge cases: unlike `fit` it does not `check` the net, as it may be traced; bounds are those of nets that see rows one by one, which
          `check` tests.

        Example:
          >>> import jax, jax.numpy as jnp, jaxsec, optax
          >>> def linear(params, x):
          ...     return x @ params
          >>> recipe = jaxsec.train.PGDAT(threat=jaxsec.LInf(eps=0.1), steps=2)
          >>> x, y = jnp.eye(2), jnp.array([0, 1])
          >>> def loss(params, key):
          ...     return recipe.loss(jaxsec.bind(linear, params), x, y, key)
          >>> (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.eye(2), jax.random.key(0))
          >>> gradient.shape
          (2, 2)
        """
        net = net_of(model)
        keys = row_keys(as_key(key), jnp.arange(x.shape[0], dtype=jnp.uint32))
        prepared = jax.lax.stop_gradient(self.prepare(jax.lax.stop_gradient(net), x, y, keys))
        loss, metrics, new = self.objective(net, prepared, x, y, keys)
        return loss, {**metrics, "state": new.state} if jax.tree.leaves(net.state) else metrics
