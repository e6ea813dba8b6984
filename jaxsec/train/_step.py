"""One jitted step of training: the adversary, the gradient, the update, all in one program that every step and every seed shares."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._native import as_float
from ..core import Struct, row_keys, static, struct
from ..core._keys import fold
from ._net import Net
from ._recipe import Gradient, Metrics, Recipe

Augment = Callable[[jax.Array, jax.Array], jax.Array]


@struct
class TrainState(Struct):
    """Everything that a step changes; with the key and the data, all that a resumed run needs.

    `average` is (params, state) averaged over steps, () without averaging. `scale` multiplies updates and `attempt` counts rollbacks: both
    change only after a step that was not finite. `bad` is set from such a step on: the rest is then of no use.
    """

    params: Any
    state: Any
    optimizer: Any
    average: Any
    carry: Any
    step: jax.Array
    scale: jax.Array
    attempt: jax.Array
    bad: jax.Array


@struct
class Setting(Struct):
    """What is static in a step, compared by value; the optimizer and `augment` by identity, unless they compare otherwise."""

    program: Any = static()
    dtype: Any = static(default=None)
    optimizer: optax.GradientTransformation = static()
    accumulate: int = static(default=1)
    averaged: bool = static(default=False)
    augment: Augment | None = static(default=None)

    def net(self, state: TrainState) -> Net:
        """The net as it is after so many steps."""
        return Net(params=state.params, state=state.state, program=self.program, dtype=self.dtype)

    def averaged_net(self, state: TrainState) -> Net:
        """The averaged net, or without averaging the net itself."""
        params, kept = state.average if self.averaged else (state.params, state.state)
        return Net(params=params, state=kept, program=self.program, dtype=self.dtype)


def first_state(net: Net, setting: Setting, recipe: Recipe, x: jax.Array) -> TrainState:
    """The state before the first step; x: a batch as the recipe will see it."""
    # the caller's arrays are not ours to move, and a weak type would compile the step twice
    copy = functools.partial(jax.tree.map, lambda v: jax.lax.convert_element_type(jnp.copy(v), jnp.asarray(v).dtype))
    params, state = copy(net.params), copy(net.state)
    return TrainState(
        params=params,
        state=state,
        optimizer=setting.optimizer.init(params),
        average=copy((params, state)) if setting.averaged else (),
        carry=recipe.begin(net, x),
        step=jnp.zeros((), jnp.int32),
        scale=jnp.ones((), jnp.float32),
        attempt=jnp.zeros((), jnp.uint32),
        bad=jnp.zeros((), bool),
    )


@jax.jit
def train_step(
    state: TrainState, recipe: Recipe, x: jax.Array, y: jax.Array, key: jax.Array, total: jax.Array, decay: jax.Array, setting: Setting
) -> tuple[TrainState, Metrics]:
    """The state after one update, and the step's metrics.

    Args: x [B, ...] floating, or uint8 that counts in 1/255; y [B] or [B, K]; key: the run's; total: [] updates of the whole run;
      decay: of the average.
    """
    recipe = recipe.at(state.step / total)
    run_key = jax.random.fold_in(key, state.attempt)
    ids = jnp.arange(x.shape[0], dtype=jnp.uint32)
    x = as_float(x)
    if setting.augment is not None:  # a batch that is used again is the same batch
        x = setting.augment(fold(row_keys(jax.random.fold_in(run_key, state.step // recipe.replays), ids), 200), x)
    keys = row_keys(jax.random.fold_in(run_key, state.step), ids)
    found = _gradient(setting.net(state), recipe, x, y, keys, state.carry, setting.accumulate)
    length = jnp.sqrt(sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(found.gradient)))
    updates, optimizer = setting.optimizer.update(found.gradient, state.optimizer, state.params)
    updates = jax.tree.map(lambda u: u * state.scale.astype(u.dtype), updates)
    params = optax.apply_updates(state.params, updates)
    params = recipe.constrained(found.net.replace(params=params), x).params
    average = _averaged(state, params, found.net.state, decay) if setting.averaged else ()
    new = state.replace(params=params, state=found.net.state, optimizer=optimizer, average=average, carry=found.carry, step=state.step + 1)
    good = jnp.isfinite(found.loss) & jnp.isfinite(length) & ~state.bad & _sane(new, state)
    metrics = {"loss": found.loss, "gradient_norm": length, **found.metrics}
    if recipe.threats and hasattr(recipe.threats[0], "eps"):
        metrics["eps"] = jnp.mean(recipe.threats[0].eps)
    return new.replace(bad=~good), metrics


def _sane(new: Any, old: Any) -> jax.Array:
    """[] whether all numbers are finite or as they were, such as the -inf of an attention mask; NaN is never taken for what it was.

    Statistics and the optimizer's own may overflow where loss and gradient do not.
    """
    pairs = [(n, o) for n, o in zip(*map(jax.tree.leaves, (new, old)), strict=True) if jnp.issubdtype(n.dtype, jnp.inexact)]
    finite = jnp.isfinite(sum(jnp.abs(jnp.sum(n - n)).astype(jnp.float32) for n, _ in pairs))  # half the time of the exact question
    return jax.lax.cond(finite, lambda: True, lambda: jnp.all(jnp.stack([jnp.all(jnp.isfinite(n) | (n == o)) for n, o in pairs])))


def _averaged(state: TrainState, params: Any, statistics: Any, decay: jax.Array) -> Any:
    """Exponential moving average, whose first steps forget faster so that the start does not linger."""
    count = state.step.astype(jnp.float32)
    d = jnp.minimum(decay, (1 + count) / (10 + count))

    def mix(old: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return new
        return jnp.where(new == old, old, old + (1 - d).astype(old.dtype) * (new - old))  # -inf stays -inf

    return jax.tree.map(mix, state.average, (params, statistics))


def _gradient(net: Net, recipe: Recipe, x: jax.Array, y: jax.Array, keys: jax.Array, carry: Any, parts: int) -> Gradient:
    """The recipe's gradient, of the whole batch at once or as the mean over `parts` of it, one after the other."""
    if parts == 1:
        return recipe.gradient(net, x, y, keys, carry)

    def split(a: jax.Array) -> jax.Array:  # rows in turn, so that a batch axis that is sharded stays so in every part
        return jnp.swapaxes(a.reshape(a.shape[0] // parts, parts, *a.shape[1:]), 0, 1)

    def one(statistics: Any, rows: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Any, tuple[Any, Any, Metrics]]:
        found = recipe.gradient(net.replace(state=statistics), *rows, carry)
        return found.net.state, (found.loss, found.gradient, found.metrics)

    def add(total: Any, rows: Any) -> tuple[Any, None]:
        statistics, found = one(total[0], rows)
        return (statistics, jax.tree.map(jnp.add, total[1], found)), None

    rows = (split(x), split(y), split(keys))
    shapes = jax.eval_shape(lambda: one(net.state, jax.tree.map(lambda a: a[0], rows))[1])
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (statistics, summed), _ = jax.lax.scan(add, (net.state, zero), rows)
    loss, gradient, metrics = jax.tree.map(lambda a: a / parts, summed)
    return Gradient(loss=loss, gradient=gradient, metrics=metrics, net=net.replace(state=statistics), carry=carry)
