"""`certify`: the verb. Methods run cheapest first, each on the rows that are still open."""

import os
from collections.abc import Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..attack._checkpoint import held
from ..attack._progress import Report
from ..attack._progress import progress as progress_bar
from ..bound._apart import check_apart
from ..bound._beta_crown import BetaCROWN
from ..bound._door import BUDGET
from ..bound._method import CROWN, IBP, BoundMethod
from ..bound._names import ALLOWED
from ..core._check import check_batch
from ..core._meshes import on_any_mesh
from ..core._model import Model, ModelInfo
from ..smooth import MedianSmoothing, Randomizer, SegmentationSmoothing, SmoothedCertificate, SmoothingMethod, certify_smoothed
from ..threat import Threat
from ._branched import check_boxes
from ._certificate import Certificate, Verdict
from ._kept import Kept, identity_of
from ._ladder import Ladder
from ._rows import all_rows


@overload
def certify(
    model: Model, x: Any, y: Any, *, threat: Threat, method: SmoothingMethod, key: Any = ..., max_samples: int | None = ...,
    progress: bool | Report | None = ..., state: str | os.PathLike[str] | None = ...,
) -> SmoothedCertificate: ...  # fmt: skip
@overload
def certify(
    model: Model, x: Any, y: Any, *, threat: Threat, method: BoundMethod | Sequence[BoundMethod] | None = ..., key: Any = ...,
    max_samples: int | None = ..., sound: bool = ..., max_rows: int = ..., min_rows: int = ..., budget: int = ...,
    progress: bool | Report | None = ..., state: str | os.PathLike[str] | None = ...,
) -> Certificate: ...  # fmt: skip
@on_any_mesh
def certify(
    model: Model,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    method: BoundMethod | Sequence[BoundMethod] | SmoothingMethod | None = None,
    key: Any = None,
    max_samples: int | None = None,
    sound: bool = False,
    max_rows: int = 128,
    min_rows: int = 1,
    budget: int = BUDGET,
    progress: bool | Report | None = None,
    state: str | os.PathLike[str] | None = None,
) -> Certificate | SmoothedCertificate:
    """Proves, row by row, that no input of the threat set changes the class: of the model, or of the smoothed one by sampling.

    Guarantee: no certified row has an adversarial input in the set (see `Certificate` for the arithmetic). A row's certificate depends on
      the row, the threat and the methods only. A second call with another eps, other rows or weights of equal shapes traces nothing.
    Args:
      model: `jaxsec.bind` or `jaxsec.load` makes one. x: [B, ...] in the threat's box. y: [B] integer labels.
      threat: `LInf`, `L2`, `L1`, `L0`, `Box` or `Patch`; eps a scalar or [B].
      method: one, or several from cheap to dear, each for the rows that those before it left open; default IBP, then CROWN. Or one
        smoothing method, `Smoothing`, `SequentialSmoothing`, `SplittingNoise` or `PatchAblation`, alone: its certificates are about
        another classifier.
      key: PRNG key of a smoothing method; row r samples from `fold_in(key, r)`. None for the last two, which draw nothing.
      max_samples: noised copies in one forward pass; by default what fits a CPU's caches.
      sound: count all floating-point rounding, of the network and of the bound; looser, about twice the work.
      max_rows, min_rows: rows bounded at once, between the two in powers of two, each compiled when it is first met.
      budget: bytes for the bounds' working arrays.
      progress: True, False, a function `(method, fraction done, rows open)`, or None: a bar on a terminal after 3 s.
      state: a folder; what is found is kept there after each batch, and the same call goes on after a kill. It may hold many calls' files.
    Returns: Certificate; SmoothedCertificate of a smoothing method, which takes uint8 images too, and token ids with `smooth.Ablation`.
    Raises: ValueError, TypeError: unusable inputs. UnsupportedPrimitive: an operation of the model has no rule, whatever the rows are; or
      a row's logits depend on other rows of the batch, which is asked of 7 rows, and not under `jit`.
    Cost: the methods' on the rows left. Under `jit`, and on rows sharded over several devices, every method runs on all rows, as one
      program, without progress or state; inside `jax.shard_map` say `check_vma=False`: the primitives that bounds are made of take no
      operands of mixed replication.
    Edge cases: an empty batch; eps = 0 certifies what is classified with a margin above the tolerance.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> c = jaxsec.certify(model, jnp.array([[0.8, 0.2]]), jnp.array([0]), threat=jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0))
      >>> bool(c.robust[0]), round(float(c.margin[0]), 3)
      (True, 0.2)
    """
    if not isinstance(model, Model):
        raise TypeError(f"model is {type(model).__name__}; a jaxsec.Model is needed: jaxsec.bind(fn, params), or jaxsec.load(path).")
    if model.stochastic:
        raise ValueError("the model draws random numbers; bounds are about one function: certify its deterministic part, or smooth it.")
    if isinstance(method, SmoothingMethod):
        _unread(f"{type(method).__name__}, which samples", sound=(sound, False), max_rows=(max_rows, 128), min_rows=(min_rows, 1),
                budget=(budget, BUDGET))  # fmt: skip
        how = {"max_samples": max_samples, "progress_to": progress, "state": state}
        return certify_smoothed(model.replace(info=ModelInfo()), x, y, threat=threat, method=method, key=key, **how)
    methods = _methods((IBP(), CROWN()) if method is None else method)
    _unread("bounds, which draw nothing", key=(key, None), max_samples=(max_samples, None))
    if any(isinstance(m, BetaCROWN) for m in methods):
        check_boxes(threat)
    names = tuple(m.name for m in methods)
    precision = "sound" if sound else "highest"
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, x, y, threat)))
    bare = model.replace(info=ModelInfo())
    if traced or (isinstance(x, jax.Array) and len(x.sharding.device_set) > 1):
        if state is not None:
            raise ValueError(
                f"state={str(state)!r} needs the eager run, not jit nor rows on several devices; pass np.asarray(x) or no state."
            )
        x, y = jnp.asarray(x), jnp.asarray(y)
        check_apart(bare, x)
        return all_rows(bare, x, y, threat.canonical(x), methods, names=names, precision=precision, budget=budget)
    x, y, _ = check_batch(model, x, y, threat, max_rows)
    check_apart(bare, jnp.asarray(x))
    if not 1 <= min_rows <= max_rows:
        raise ValueError(f"min_rows is {min_rows}; it must be from 1 to max_rows, which is {max_rows}.")
    x, y = np.asarray(x), np.asarray(y)
    threat = jax.tree.map(np.asarray, threat.canonical(jnp.asarray(x)))
    ladder = Ladder(model=bare, x=x, y=y, threat=threat, methods=methods, sound=sound, budget=budget, max_rows=max_rows, min_rows=min_rows)
    with held(state), progress_bar(progress, "open") as report:
        identity = "" if state is None else identity_of(bare, x, y, threat, methods, sound=sound)
        found = ladder.run(Kept(state, identity), report)
    arrays = {name: jnp.asarray(getattr(found, name)) for name in ("margin", "method", "status")}
    return Certificate(robust=arrays["status"] == Verdict.CERTIFIED.value, **arrays, methods=names, precision=precision)


def _unread(who: str, **given: tuple[Any, Any]) -> None:
    """ValueError for an argument that is given and not read. given: the value and its default."""
    for name, (value, default) in given.items():
        if value is not default and not (isinstance(value, int | np.integer) and value == default):
            raise ValueError(f"{name} is given and not read by {who}; leave it out.")


def _methods(method: BoundMethod | Sequence[BoundMethod]) -> tuple[BoundMethod, ...]:
    methods: tuple[Any, ...] = tuple(method) if isinstance(method, list | tuple) else (method,)
    for m in methods:
        if not isinstance(m, BoundMethod):
            shown = f"the class {m.__name__}; write {m.__name__}()" if isinstance(m, type) else type(m).__name__
            if isinstance(m, SmoothingMethod):
                raise TypeError(f"method lists {shown}; it certifies the smoothed classifier, another function: give it alone, in no list.")
            if isinstance(m, Randomizer):
                raise TypeError(f"method is {shown}, which makes samples; give Smoothing(distribution={shown}(...)).")
            if isinstance(m, MedianSmoothing | SegmentationSmoothing):
                door = "regression" if isinstance(m, MedianSmoothing) else "segmentation"
                raise TypeError(f"method is {shown}, which certifies other outputs than classes: smooth.certify_{door}(..., method=...).")
            raise TypeError(f"method has {shown}; {ALLOWED}, or a list of them.")
    if not methods:
        raise ValueError("method is an empty list; give at least one, e.g. [IBP(), CROWN()].")
    return methods
