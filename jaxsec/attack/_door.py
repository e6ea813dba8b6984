"""`attack`: the verb. It validates, chooses between the eager run and one traced program, and never trusts a method."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core._check import check_batch, n_classes_of
from ..core._keys import as_key
from ..core._meshes import on_any_mesh
from ..core._model import Model, ModelInfo
from ..core._result import AttackResult
from ..core._rewrite import tuned
from ..threat import Threat
from ._flags import flags_of
from ._method import Method
from ._progress import Report
from ._pure import pure
from ._run import Run
from ._square import NoImage
from ._suite import NO_BLACK_BOX, AutoAttack


@on_any_mesh
def attack(
    model: Model,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    method: Method | AutoAttack,
    key: jax.Array,
    targeted: bool = False,
    draws: int | None = None,
    row_ids: Any = None,
    max_rows: int = 512,
    min_rows: int = 1,
    checks: bool | None = None,
    progress: bool | Report | None = None,
    state: str | os.PathLike[str] | None = None,
) -> AttackResult:
    """Searches the threat set around each row for an input that the model gets wrong.

    Guarantee: where `result.success`, the returned input is inside the set and wrong, both recomputed here on the returned
    array. A row's result depends on the model, the row, the threat, the method, the key and the row's id, and on nothing
    else: not on its neighbours, `max_rows`, restarts from disk, or earlier calls (XLA's own operations may round differently on other
    batch sizes, and the sign of a tiny gradient may magnify that). A second call with another eps, key, or weights traces
    nothing, except where so many rows fall that a batch shrinks to a size never met before; `min_rows=max_rows` rules that out too.

    Args:
      model: `jaxsec.bind` or `jaxsec.load` makes one.
      x: [B, ...] floating, inside the threat's box. y: [B] integer labels (with `targeted`, the classes to reach).
      threat: the set; eps a scalar or [B].
      method: one method, or `AutoAttack()`.
      key: one PRNG key, consumed; row i uses `fold_in(key, row_ids[i])`.
      draws: model draws averaged per query for a stochastic model (default 20 for AutoAttack "rand", else 1).
      row_ids: [B] ids of the rows in the whole data set, when this call sees a part of it (default 0..B-1).
      max_rows: rows worked on at once, at most; memory grows with it. On CPUs fewer where a batch would fall out of the caches.
      min_rows: the smallest batch that rows still standing are moved to; between the two, sizes are powers of two, and each is
        compiled when it is first met.
      checks: look for signs that the evaluation misleads (masked gradients, randomness, probabilities for logits); None means
        yes for AutoAttack. The cheap checks always run.
      progress: True, False, a function, or None: a bar on a terminal after 3 s.
      state: a folder to keep the run's state in; call again with the same arguments to go on after a kill.

    Returns:
      AttackResult: one row per input; `1 - success.mean()` is robust accuracy.

    Raises: ValueError, TypeError: shapes, NaN, labels, box or key are unusable; the message says how to mend it.
    Status: see `Status`; a row with NaN clean logits is NONFINITE and not attacked.

    Cost: the method's, on live rows only: rows leave at pauses and between rounds, and the rest move to a batch of the next
    power of two. Called under `jit` (or on inputs sharded over several devices) it runs as one program with masks instead:
    no compaction, no flags, no state on disk (asking for them on sharded inputs raises), shardings flow through.
    Edge cases: an empty batch returns an empty result.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> x, y = jnp.array([[0.6, 0.4]]), jnp.array([0])
      >>> threat = jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0)
      >>> r = jaxsec.attack(model, x, y, threat=threat, method=jaxsec.PGD(steps=5), key=jax.random.key(0))
      >>> bool(r.success[0])
      True
    """
    if not isinstance(model, Model):
        bound = "jaxsec.bind(fn, params) makes one of fn(params, x) or of a network, jaxsec.load(path) of an .onnx file"
        raise TypeError(f"model is {type(model).__name__}; a jaxsec.Model is needed: {bound}.")
    if draws is None:
        draws = method.draws if isinstance(method, AutoAttack) and method.version == "rand" and model.stochastic else 1
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, x, y, threat, key, row_ids))):
        x, y = jnp.asarray(x), jnp.asarray(y)
        model = tuned(model).replace(info=ModelInfo())
        stages, _ = stages_of(method, threat.norm, n_classes_of(model, x), x.shape[1:], targeted)
        return pure(model, x, y, threat, stages, as_key(key), targeted, draws, row_ids)
    x, y, n_classes = check_batch(model, x, y, threat, max_rows)
    if not 1 <= min_rows <= max_rows:
        raise ValueError(f"min_rows is {min_rows}; it must be from 1 to max_rows, which is {max_rows}.")
    key = as_key(key)
    ids = _checked_ids(row_ids, len(y))
    stages, notes = stages_of(method, threat.norm, n_classes, x.shape[1:], targeted)
    if isinstance(method, AutoAttack) and method.version == "rand" and not model.stochastic:
        notes += ("AutoAttack: version 'rand' is for randomised models and weaker on this one, which is not bound as one; use 'standard'",)
    model = tuned(model).replace(info=ModelInfo())  # names are static: they must not decide what is compiled
    if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
        if checks or state is not None:
            asked = "checks=True" if checks else f"state={str(state)!r}"
            raise ValueError(f"{asked} needs the eager run, and x is sharded over several devices; pass np.asarray(x), or leave it out.")
        return _sharded(model, x, y, threat, tuple(stages), key, targeted, draws, ids)
    run = Run(model, np.asarray(x), np.asarray(y), threat, stages, key, targeted, draws, ids, max_rows, min_rows, n_classes)
    record = run.go(progress, state)
    full = isinstance(method, AutoAttack) if checks is None else checks
    found = flags_of(run, record, notes, full=full)
    return record.result(run.distances(record), tuple(name for name, _ in stages), found)


def _checked_ids(row_ids: Any, n: int) -> np.ndarray:
    """[n] uint32."""
    ids = np.arange(n) if row_ids is None else np.asarray(row_ids)
    if ids.shape != (n,):
        raise ValueError(f"row_ids has shape {ids.shape}, y has {(n,)}; give one id per row.")
    if ids.size and (not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() >= 2**32):
        raise ValueError(
            f"row_ids has dtype {ids.dtype} and values from {ids.min()} to {ids.max()}; integers from 0 to 2**32 - 1 are needed."
        )
    return ids.astype(np.uint32)


def _stages(method: Method | AutoAttack, norm: str) -> list[tuple[str, Method]]:
    return method.stages(norm) if isinstance(method, AutoAttack) else [(method.name, method)]


def stages_of(
    method: Method | AutoAttack, norm: str, n_classes: int, row_shape: tuple[int, ...], targeted: bool
) -> tuple[list[tuple[str, Method]], tuple[str, ...]]:
    """The methods to run, in turn, by name and fitted to the problem; notes. ValueError, TypeError: a method that cannot."""
    if not isinstance(method, Method | AutoAttack):
        shown = f"the class {method.__name__}; write {method.__name__}()" if isinstance(method, type) else type(method).__name__
        raise TypeError(f"method is {shown}; allowed: AutoAttack() or a Method such as PGD(), APGD(), FAB(), Square().")
    notes = list(method.missing(norm)) if isinstance(method, AutoAttack) else []
    stages = []
    for name, m in _stages(method, norm):
        try:
            fitted, said = m.fit(n_classes, row_shape, norm)
        except NoImage:
            if not isinstance(method, AutoAttack):
                raise
            notes.append(f"AutoAttack: Square was left out, rows of shape {row_shape} being no images it can read: {NO_BLACK_BOX}")
            continue
        if norm not in fitted.norms:
            raise ValueError(f"{m.name} does not support the threat {norm!r}; it supports {', '.join(fitted.norms)}.")
        # one dtype, so that 0.1, np.float32(0.1) and jnp.asarray(0.1) share a program
        stages.append((name, jax.tree.map(lambda v: v if isinstance(v, Tracer) else np.asarray(v, np.float32), fitted)))
        notes += said
        if targeted and n_classes == 3 and getattr(fitted, "loss", "") == "dlr":
            notes.append(f"{m.name}: DLR towards a class needs 4 classes, the model has 3; the margin loss was used")
    return stages, tuple(notes)


@partial(jax.jit, static_argnames=("names", "targeted", "draws"))
def _sharded_jit(
    model: Model,
    x: jax.Array,
    y: jax.Array,
    threat: Threat,
    methods: Any,
    key: jax.Array,
    ids: jax.Array,
    names: Any,
    targeted: bool,
    draws: int,
) -> AttackResult:
    return pure(model, x, y, threat, list(zip(names, methods, strict=True)), key, targeted, draws, ids)


def _sharded(
    model: Model,
    x: jax.Array,
    y: Any,
    threat: Threat,
    stages: Sequence[tuple[str, Method]],
    key: jax.Array,
    targeted: bool,
    draws: int,
    ids: Any,
) -> AttackResult:
    names, methods = tuple(n for n, _ in stages), tuple(m for _, m in stages)
    return _sharded_jit(
        model, x, jnp.asarray(y), threat.canonical(x), methods, key, jnp.asarray(ids), names=names, targeted=targeted, draws=draws
    )
