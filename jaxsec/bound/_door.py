"""`bound`: the verb. Lower and upper bounds of what a function returns, over all inputs of a box or of a threat set."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core._meshes import on_any_mesh, whole
from ..core._model import Model, ModelInfo
from ..core._struct import Struct, struct
from ..threat import Box, Threat
from ._apart import check_apart
from ._method import CROWN, BoundMethod
from ._names import ALLOWED
from ._run import both_rows, lower_function, lower_rows

BUDGET = 1 << 30


@struct
class Interval(Struct):
    """`lo <= value <= hi`, elementwise: arrays, or trees of arrays like the function's value."""

    lo: Any
    hi: Any


def bound(
    fn: Callable[..., Any] | Model,
    region: Any,
    *,
    method: BoundMethod | None = None,
    spec: Any = None,
    sound: bool = False,
    budget: int = BUDGET,
) -> Any:
    """Bounds of `fn`'s value over every input of a region.

    Guarantee: for every input of the region the value lies within the bounds: in exact arithmetic up to float32 rounding of the bounds
      themselves, of a relative size of about 1e-6 of the largest numbers met; with `sound=True` for the value as float32 hardware
      evaluates it, in any order of summation (docs/soundness.md).
    Args:
      fn: any traceable function of arrays, all of whose operations have rules; or a `Model`, bounded row by row.
      region: `(lo, hi)` (a pair of arrays, or of equal trees whose leaves are fn's arguments in order), an `Interval`, or `(threat, x)`
        for a `Model` and rows x [B, ...].
      method: `IBP()`, `CROWNIBP()`, `ForwardLinear()` (few inputs), `CROWN()` (default), `AlphaCROWN()`, or `BetaCROWN()`, which is
        AlphaCROWN here: only `certify` branches.
      spec: [S, *output shape], for a Model [B, S, K] or [S, K]: linear forms of the value to bound from below, such as margins.
      sound: add all rounding; about twice the work.
      budget: bytes that forms may take at once; more work is done in pieces.
    Returns: `Interval`, or with `spec` the lower bounds: [S], for a Model [B, S].
    Raises: UnsupportedPrimitive: an operation without a rule, with its name and line; a `Model` that mixes rows (not seen where its
        weights are traced).
      ValueError: shapes, lo > hi, or a constant function.
    Cost: the method's, and of a `Model` 13 forwards of 7 rows. Works under `jit`, `vmap` and, where the method says so, `grad`; a plain
      function is traced at every call: wrap the call in `jax.jit`. Edge cases: an unbounded value has infinite bounds, never NaN; a plain
      function's box is no batch of rows, so what an explicit mesh has in shards is laid whole on each of its devices.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.bound import bound
      >>> out = bound(lambda x: jnp.maximum(x, 0) - x, (jnp.array([-1.0]), jnp.array([1.0])))
      >>> float(out.lo[0]), float(out.hi[0])
      (-1.0, 1.0)
    """
    method = CROWN() if method is None else method
    if not isinstance(method, BoundMethod):
        shown = f"the class {method.__name__}; write {method.__name__}()" if isinstance(method, type) else type(method).__name__
        raise TypeError(f"method is {shown}; {ALLOWED}.")
    if isinstance(fn, Model):
        return _of_rows(fn, region, method, spec, sound=sound, budget=budget)
    lo, hi = (region.lo, region.hi) if isinstance(region, Interval) else region
    if isinstance(lo, Threat):
        raise TypeError("a region (threat, x) is for a Model and rows x [B, ...]; bind the function, or give a box (lo, hi).")
    lows, tree = jax.tree.flatten(lo)
    highs, other = jax.tree.flatten(hi)
    if tree != other or any(jnp.shape(a) != jnp.shape(b) for a, b in zip(lows, highs, strict=True)):
        raise ValueError(f"lo and hi differ in structure or shape ({tree} and {other}); give two equal trees of arrays.")
    box = [(whole(jnp.asarray(a)), whole(jnp.asarray(b))) for a, b in zip(lows, highs, strict=True)]
    box = [(a.astype(jnp.result_type(a, b, jnp.float32)), b.astype(jnp.result_type(a, b, jnp.float32))) for a, b in box]
    function = fn if isinstance(lo, tuple) else lambda argument: fn(argument)
    packed = tree if isinstance(lo, tuple) else jax.tree.structure((jax.tree.unflatten(tree, lows),))
    out = lower_function(
        function, box, packed, None if spec is None else jnp.asarray(spec, box[0][0].dtype), method, sound=sound, budget=budget
    )
    return out if spec is not None else Interval(lo=out[0], hi=out[1])


@on_any_mesh
def _of_rows(model: Model, region: Any, method: BoundMethod, spec: Any, *, sound: bool, budget: int) -> Any:
    """Of a model, row by row. (What a plain function closes over stays on its mesh, and so does its box.)"""
    threat, x = _rows_of(region)
    model = model.replace(info=ModelInfo())
    check_apart(model, x)
    if spec is None:
        lo, hi = _both_jit(model, x, threat, method, sound=sound, budget=budget)
        return Interval(lo=lo, hi=hi)
    spec = jnp.asarray(spec, x.dtype)
    spec = jnp.broadcast_to(spec, (len(x), *spec.shape[-2:]))
    return _lower_jit(model, x, threat, spec, jnp.zeros(spec.shape[:2], x.dtype), method, sound=sound, budget=budget)


def _rows_of(region: Any) -> tuple[Threat, jax.Array]:
    """(threat, x) of any region of rows; a box becomes `Box` around its middle."""
    if isinstance(region, Interval):
        region = (region.lo, region.hi)
    first, second = region
    if isinstance(first, Threat):
        x = jnp.asarray(second)
        return first, x
    lo, hi = jnp.asarray(first), jnp.asarray(second)
    return Box(lower=lo, upper=hi), jnp.clip(0.5 * (lo + hi), lo, hi)


@functools.partial(jax.jit, static_argnames=("sound", "budget"))
def _both_jit(model: Model, x: jax.Array, threat: Threat, method: BoundMethod, *, sound: bool, budget: int) -> Any:
    return both_rows(model, x, threat, method, sound=sound, budget=budget)


@functools.partial(jax.jit, static_argnames=("sound", "budget"))
def _lower_jit(
    model: Model, x: jax.Array, threat: Threat, spec: jax.Array, at: jax.Array, method: BoundMethod, *, sound: bool, budget: int
) -> jax.Array:
    return lower_rows(model, x, threat, spec, at, method, sound=sound, budget=budget)
