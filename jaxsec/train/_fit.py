"""`fit`: the verb. It trains a net by a recipe, keeps what was best on held-out rows, and survives being killed."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import optax

from ..attack._method import Method
from ..core import as_key
from ..core._meshes import Meshes, automatic_axes
from ._batches import Reader, arrays_of, batches_of
from ._checkpoint import Checkpoints, held_by_one
from ._given import check_counts, check_recipe, classes_of, floating, held_out, strong
from ._identity import identity_of
from ._log import Log, Report
from ._loop import Fit, Loop
from ._net import net_of
from ._optimizer import optimizer_of
from ._recipe import Recipe
from ._rows import Rows
from ._step import Augment, Setting, first_state
from ._validate import validation_of


@automatic_axes()
def fit(
    net: Any,
    data: Any,
    *,
    recipe: Recipe,
    key: jax.Array,
    variables: Any = None,
    optimizer: optax.GradientTransformation | Callable[[int], optax.GradientTransformation] | None = None,
    epochs: int = 30,
    batch_size: int = 128,
    steps_per_epoch: int | None = None,
    augment: Augment | None = None,
    average: float | None = None,
    accumulate: int = 1,
    dtype: Any = None,
    validation: Any = None,
    validation_attack: Method | None = None,
    validate_every: int = 1,
    patience: int | None = None,
    out: str | os.PathLike[str] | None = None,
    save_every: int | None = None,
    resume: bool = True,
    max_rollbacks: int = 5,
    tensorboard: bool = False,
    progress: bool | Report | None = None,
    train_kwargs: dict[str, Any] | None = None,
    eval_kwargs: dict[str, Any] | None = None,
) -> Fit:
    """Trains a net by a recipe and returns the weights that were most robust on the validation rows (without any, the last ones).

    Guarantee: the result depends on the net, the data, the recipe, the optimizer, the batch size and the key; not on how often the run was
      killed and resumed, and up to rounding not on the mesh. Up to rounding it does not depend on `accumulate` either, but where a batch is
      seen as a whole: BatchNorm's statistics, dropout, and the recipes awp, mixup, spectral, clean-logit-pairing and multi-norm "extreme".
      After the first step nothing retraces: eps, weights, seeds and schedules are traced (another optimizer is another program).
    Args:
      net, variables: whatever `net_of` takes; a Linen module without variables is initialised from `key`. A `Model` is trained further.
      data: (x, y) in memory, or what has both by name, x [N, ...] floating or uint8 (which counts in 1/255), y [N] classes or [N, K]
        shares, shuffled every epoch; a sequence of batches (a batched Grain MapDataset, its shuffled copies one after the other if it is
        repeated); or an iterable of batches, or a function of the epoch that gives one, with `steps_per_epoch`. Batches on a mesh train on
        that mesh: parameters that are not on it yet are replicated.
      recipe: `train.TRADES(threat=...)`, ...; wrapped ones too.
      optimizer: an optax transformation, or a function of the number of updates that gives one (for schedules); None: AdamW, 0.002, with
        a warm-up over the first twentieth and a cosine to 0, gradients clipped to length 10.
      average: decay of an exponential moving average of the weights, such as 0.999; the average is what is validated and returned.
      accumulate: split each batch into so many parts, one after the other, and add their gradients.
      dtype: compute in this type (mixed precision).
      augment: (keys [B], x [B, ...]) -> x, such as `train.Shift(2)`; on the device, inside the step.
      validation: (x, y), or the share of rows to hold out of arrays in memory, in (0, 1). validation_attack: default `PGD(steps=10)`,
        in the recipe's first threat; clean rows count where it has none, or one that PGD does not take. Best is the epoch of the highest
        robust accuracy there, or noisy, or clean one; for recipes on bounds of the highest certified one, of the epochs at which eps is at
        its end. Ties go to clean accuracy.
      patience: stop after so many validations without a better one (robust overfitting).
      out: a folder for checkpoints and metrics.jsonl; called again with the same arguments, the run goes on where it was, exactly.
      save_every: updates between checkpoints; default an epoch's. The updates lost to a kill or to a step that is not finite are at most
        as many.
      max_rollbacks: how often a run may go back to the last good state after a loss or gradient that is not finite; every time all
        draws but the order of the data change, and updates are halved.
    Returns: `Fit`: model (as `attack`, `certify` and `audit` take it), net (to train further), history, best_epoch, stopped, rollbacks.
    Raises: ValueError, TypeError: unusable data, recipe or settings, the message says how to mend it. FloatingPointError: the loss is not
      finite again and again.
    Cost: the recipe's per update, and the validation's. Memory: parameters, optimizer, two more copies of both for what may be gone back
      to, one more of the weights for the best.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params
      >>> x = jnp.tile(jnp.eye(2), (8, 1)); y = jnp.tile(jnp.arange(2), 8)
      >>> recipe = jaxsec.train.PGDAT(threat=jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0), steps=2)
      >>> fit = jaxsec.fit(linear, (x, y), variables=jnp.zeros((2, 2)), recipe=recipe, epochs=3, batch_size=8, key=jax.random.key(0))
      >>> fit.model(x[:2]).argmax(1).tolist(), len(fit.history)
      ([0, 1], 3)
    """
    check_recipe(recipe)
    check_counts({"epochs": epochs, "batch_size": batch_size, "validate_every": validate_every, "accumulate": accumulate})
    check_counts({"save_every": save_every, "patience": patience, "steps_per_epoch": steps_per_epoch})
    check_counts({"max_rollbacks": max_rollbacks}, least=0)
    if patience is not None and validation is None:
        raise ValueError(f"patience is {patience}, and there are no rows to validate on; pass validation=0.1, or rows (x, y).")
    if average is not None and not 0 <= average < 1:
        raise ValueError(f"average is {average}; a decay in [0, 1) is needed, such as 0.999.")
    meshes = Meshes()
    key = meshes.automatic(as_key(key))
    order_key, run_key, init_key, hold_key, judge_key = jax.random.split(key, 5)
    net, variables, recipe = meshes.automatic(net), meshes.automatic(variables), meshes.automatic(recipe)
    rows, judging = (meshes.automatic(v) if isinstance(v, tuple | list | dict) else v for v in map(arrays_of, (data, validation)))
    data, apart = held_out(rows, judging, hold_key)
    batches = batches_of(data, batch_size, order_key, steps_per_epoch).placed(meshes.automatic)
    x = floating(batches.example[0])
    if accumulate > 1 and len(x) % accumulate:
        raise ValueError(f"accumulate is {accumulate} and a batch has {len(x)} rows; it must divide them.")
    trained = net_of(net, variables, x=x, key=init_key, dtype=dtype, train_kwargs=train_kwargs, eval_kwargs=eval_kwargs)
    recipe = jax.tree.map(strong, recipe)
    recipe.check(trained, x)
    rows = Rows(classes_of(trained, x), recipe.threats)
    rows.check(*(batches.example if batches.whole is None else batches.whole), "data")
    trained = recipe.constrained(trained, x)
    total = epochs * batches.steps * recipe.replays
    setting = Setting(
        program=trained.program,
        dtype=trained.dtype,
        optimizer=optimizer_of(optimizer, total),
        accumulate=accumulate,
        averaged=average is not None,
        augment=augment,
    )
    state = _beside(first_state(trained, setting, recipe, x), batches.example[0])
    if accumulate > 1 and jax.tree.leaves(state.carry):
        raise ValueError(
            f"{recipe.name} carries a perturbation from batch to batch, which accumulate={accumulate} would split; leave it 1."
        )
    judge = validation_of(apart, recipe, validation_attack, judge_key, rows, x.shape[1:])
    folder = None if out is None else pathlib.Path(out)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"out is {folder}, which is a file; a folder is needed.")
    with held_by_one(folder):  # two processes would write one history
        kept = None
        if folder is not None:
            identity = identity_of(recipe, batches, key, state, setting, x) | {
                "epochs": epochs,
                "average": average,
                "validation": None if judge is None else judge.identity,
                "validate_every": validate_every,
                "patience": patience,
            }
            kept = Checkpoints(folder / "checkpoints", identity)
            if not resume:
                kept.clear()
        log = Log(folder, epochs, batches.steps * recipe.replays, tensorboard=tensorboard, progress=progress)
        loop = Loop(
            recipe=recipe,
            batches=batches,
            read=Reader(batches, rows.check),
            setting=setting,
            key=run_key,
            epochs=epochs,
            decay=0.0 if average is None else average,
            judge=judge,
            validate_every=validate_every,
            patience=patience,
            kept=kept,
            save_every=save_every or batches.steps * recipe.replays,
            max_rollbacks=max_rollbacks,
            log=log,
        )
        try:
            made = loop.run(state)
            return dataclasses.replace(made, model=meshes.back(made.model), net=meshes.back(made.net))
        finally:
            log.close()
            if kept is not None:
                kept.close()


def _beside(state: Any, x: Any) -> Any:
    """The state replicated over the mesh of the batches, where it is on one device and they are on several."""
    if not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1:
        return state
    everywhere = jax.sharding.NamedSharding(x.sharding.mesh, jax.sharding.PartitionSpec())  # pyright: ignore[reportAttributeAccessIssue]
    like_rows = {id(v) for v in jax.tree.leaves(state.carry) if v.shape[:1] == x.shape[:1]}

    def place(v: jax.Array) -> jax.Array:
        return v if len(v.sharding.device_set) > 1 or id(v) in like_rows else jax.device_put(v, everywhere)

    return jax.tree.map(place, state)
