"""`certify`: the verb. Methods run cheapest first, each on the rows that are still open."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..bound._door import BUDGET
from ..bound._method import CROWN, IBP, BoundMethod
from ..bound._run import lower_rows
from ..core._batch import bucket, pad_rows, take_leaves
from ..core._check import check_batch
from ..core._model import Model, ModelInfo
from ..threat import Threat
from ._certificate import Certificate, Verdict
from ._question import TOLERANCE


def certify(
    model: Model,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    method: BoundMethod | Sequence[BoundMethod] | None = None,
    sound: bool = False,
    max_rows: int = 128,
    budget: int = BUDGET,
) -> Certificate:
    """Proves, row by row, that no input of the threat set changes the class.

    Guarantee: no certified row has an adversarial input in the set (see `Certificate` for the arithmetic). A row's certificate depends on
      the row, the threat and the methods only. A second call with another eps, other rows or weights of equal shapes traces nothing.
    Args:
      model: `jaxsec.bind` or `jaxsec.load` makes one. x: [B, ...] in the threat's box. y: [B] integer labels.
      threat: `LInf`, `L2`, `L1` or `Box`; eps a scalar or [B].
      method: one, or several from cheap to dear, each for the rows that those before it left open; default IBP, then CROWN.
      sound: count all floating-point rounding, of the network and of the bound; looser, about twice the work.
      max_rows: rows bounded at once; between that and 1 in powers of two. budget: bytes for the bounds' working arrays.
    Returns: Certificate. Raises: ValueError, TypeError: unusable inputs. UnsupportedPrimitive: an operation of the model has no rule.
    Cost: the methods' on the rows left. Under `jit`, and for rows on several devices, every method runs on all rows, as one program;
      inside `jax.shard_map` say `check_vma=False`: the primitives that bounds are made of take no operands of mixed replication.
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
    methods = _methods((IBP(), CROWN()) if method is None else method)
    names = tuple(m.name for m in methods)
    precision = "sound" if sound else "highest"
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, x, y, threat)))
    bare = model.replace(info=ModelInfo())
    if traced or (isinstance(x, jax.Array) and len(x.sharding.device_set) > 1):
        x, y = jnp.asarray(x), jnp.asarray(y)
        return _all_rows(bare, x, y, threat.canonical(x), methods, names=names, precision=precision, budget=budget)
    x, y, _ = check_batch(model, x, y, threat, max_rows)
    x, y = np.asarray(x), np.asarray(y)
    threat = jax.tree.map(np.asarray, threat.canonical(jnp.asarray(x)))
    n = len(y)
    margin, by = np.full(n, -np.inf, x.dtype), np.full(n, -1, np.int32)
    status = np.full(n, Verdict.OPEN, np.int32)
    for start in range(0, n, max_rows):
        rows = np.arange(start, min(start + max_rows, n))
        status[rows] = _clean(bare, x, y, rows, max_rows)
    for i, m in enumerate(methods):
        left = np.flatnonzero(status == Verdict.OPEN)
        for start in range(0, len(left), max_rows):
            rows = left[start : start + max_rows]
            index = pad_rows(rows, bucket(len(rows), max_rows))
            part = jax.tree.map(jnp.asarray, take_leaves(threat, index, n))
            low, slack = (np.asarray(v)[: len(rows)] for v in _margins(bare, x[index], y[index], part, m, sound=sound, budget=budget))
            margin[rows] = np.fmax(margin[rows], low)
            proved = low > slack
            by[rows[proved]], status[rows[proved]] = i, Verdict.CERTIFIED
    robust = status == Verdict.CERTIFIED
    arrays = (jnp.asarray(v) for v in (robust, margin, by, status))
    return Certificate(**dict(zip(("robust", "margin", "method", "status"), arrays, strict=True)), methods=names, precision=precision)


def _methods(method: BoundMethod | Sequence[BoundMethod]) -> tuple[BoundMethod, ...]:
    methods: tuple[Any, ...] = tuple(method) if isinstance(method, list | tuple) else (method,)
    for m in methods:
        if not isinstance(m, BoundMethod):
            shown = f"the class {m.__name__}; write {m.__name__}()" if isinstance(m, type) else type(m).__name__
            raise TypeError(f"method has {shown}; allowed: IBP(), CROWNIBP(), ForwardLinear(), CROWN(), AlphaCROWN(), or a list of them.")
    if not methods:
        raise ValueError("method is an empty list; give at least one, e.g. [IBP(), CROWN()].")
    return methods


def margins(y: jax.Array, k: int, dtype: Any) -> jax.Array:
    """[B, K - 1, K] the forms `logit[y] - logit[j]` for j other than y, in rising order of j."""
    others = jnp.arange(k - 1)[None] + (jnp.arange(k - 1)[None] >= y[:, None])
    return jax.nn.one_hot(y, k, dtype=dtype)[:, None] - jax.nn.one_hot(others, k, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("sound", "budget"))
def _margins(model: Model, x: jax.Array, y: jax.Array, threat: Threat, method: BoundMethod, *, sound: bool, budget: int) -> Any:
    """([B] the least margin's lower bound, [B] what it must exceed)."""
    logits = model(x)
    spec = margins(y, logits.shape[1], x.dtype)
    low = jnp.min(lower_rows(model, x, threat, spec, jnp.zeros(spec.shape[:2], x.dtype), method, sound=sound, budget=budget), axis=1)
    slack = jnp.zeros_like(low) if sound else TOLERANCE * jnp.max(jnp.abs(logits), axis=1)
    return low, slack


@jax.jit
def _status(model: Model, x: jax.Array, y: jax.Array) -> jax.Array:
    logits = model(x)
    right = jnp.argmax(logits, axis=1) == y
    state = jnp.where(right, Verdict.OPEN.value, Verdict.WRONG_BEFORE.value)
    return jnp.where(jnp.all(jnp.isfinite(logits), axis=1), state, Verdict.NONFINITE.value).astype(jnp.int32)


def _clean(model: Model, x: np.ndarray, y: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    index = pad_rows(rows, bucket(len(rows), most))
    return np.asarray(_status(model, x[index], y[index]))[: len(rows)]


@functools.partial(jax.jit, static_argnames=("names", "precision", "budget"))
def _all_rows(model: Model, x: Any, y: Any, threat: Threat, methods: Any, *, names: Any, precision: str, budget: int) -> Certificate:
    """Every method on every row, as one program."""
    status = _status(model, x, y)
    margin = jnp.full(len(y), -jnp.inf, x.dtype)
    by = jnp.full(len(y), -1, jnp.int32)
    for i, m in enumerate(methods):
        low, slack = _margins(model, x, y, threat, m, sound=precision == "sound", budget=budget)
        proved = (status == Verdict.OPEN.value) & (low > slack)
        margin = jnp.where(status == Verdict.OPEN.value, jnp.fmax(margin, low), margin)
        by, status = jnp.where(proved, i, by), jnp.where(proved, Verdict.CERTIFIED.value, status)
    robust = status == Verdict.CERTIFIED.value
    return Certificate(robust=robust, margin=margin, method=by, status=status, methods=names, precision=precision)
