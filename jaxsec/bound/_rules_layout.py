"""Primitives that move elements: layout, selection, joining, reading and writing at known indices, plain sums."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._walk import rebound
from ._build import arithmetic, moved, opaque, scaled, summed
from ._graph import Graph, Ref, UnsupportedPrimitive, Value, concrete, rule, steady
from ._nodes import Range


@rule(
    *"stop_gradient copy copy_p optimization_barrier name sharding_constraint layout_constraint mesh_cast reshard device_put pvary "
    "reduce_precision".split()
)
def _same(graph: Graph, eqn: Any, *xs: Value) -> list[Value]:
    if eqn.primitive.name == "reduce_precision":
        raise UnsupportedPrimitive(f"reduce_precision rounds, which no rule bounds; used at {graph.source}. Certify the float32 model.")
    return list(xs)


@rule("convert_element_type")
def _convert(graph: Graph, eqn: Any, x: Ref) -> Ref:
    """Exact conversions are linear; from numbers to integers and truth values, and from integers, the ends go to the ends."""
    old, new, out = graph.node(x).dtype, np.dtype(eqn.params["new_dtype"]), eqn.outvars[0].aval
    if old == new:
        return x
    to_float, from_float = jnp.issubdtype(new, jnp.floating), jnp.issubdtype(old, jnp.floating)
    wider = to_float and from_float and jnp.finfo(new).nmant >= jnp.finfo(old).nmant
    if wider and jnp.finfo(old).bits < 32:  # forms have more digits than operations of the narrow type take
        return opaque(graph, out, (x,), lambda r: (r[0].astype(new), r[1].astype(new)))
    if old == jnp.bool_ or wider:
        return moved(graph, (x,), lambda v: v.astype(new))
    if new == jnp.bool_:
        return opaque(graph, out, (x,), lambda r: ((r[0] > 0) | (r[1] < 0), (r[0] != 0) | (r[1] != 0)))
    if jnp.issubdtype(old, jnp.integer) and to_float:
        return opaque(graph, out, (x,), lambda r: (r[0].astype(new), r[1].astype(new)))
    if jnp.issubdtype(new, jnp.integer):
        return opaque(graph, out, (x,), lambda r: _whole(r, new))
    if jnp.issubdtype(new, jnp.complexfloating):
        raise UnsupportedPrimitive(f"complex numbers, which have no order and so no bounds; used at {graph.source}.")
    raise UnsupportedPrimitive(
        f"a conversion from {old} to {new} rounds, which no rule bounds; used at {graph.source}. Certify the model in {old}."
    )


def _whole(r: Range, new: np.dtype) -> Range:
    """Converted to integers: towards 0, and anything where it is beyond the largest."""
    limits = jnp.iinfo(new)
    lo, hi = r
    if jnp.issubdtype(lo.dtype, jnp.integer):
        old = jnp.iinfo(lo.dtype)
        inside = (lo >= max(limits.min, old.min)) & (hi <= min(limits.max, old.max))
    else:
        least, most = (np.nextafter(np.asarray(v, lo.dtype), np.asarray(0, lo.dtype)) for v in (limits.min, limits.max))
        inside = (lo >= least) & (hi <= most)
    low, high = (jnp.where(inside, v, 0).astype(new) for v in r)
    return jnp.where(inside, low, limits.min), jnp.where(inside, high, limits.max)


_LAYOUT = "reshape transpose squeeze expand_dims rev slice broadcast_in_dim tile real reduce_sum cumsum reduce_window_sum"


@rule(*_LAYOUT.split())
def _layout(graph: Graph, eqn: Any, x: Ref, *rest: Value) -> Ref:
    if rest:
        raise UnsupportedPrimitive(f"{eqn.primitive.name} with a shape known at run time only; used at {graph.source}.")
    before, after = math.prod(graph.node(x).shape), math.prod(eqn.outvars[0].aval.shape)
    name, p, over, count = eqn.primitive.name, eqn.params, (), 1
    if name in ("reduce_sum", "cumsum", "reduce_window_sum"):
        arithmetic(graph, x, name)
    if name == "reduce_sum":
        over, count = tuple(int(a) for a in p["axes"]), max(before // max(after, 1), 1)
    elif name == "cumsum":
        count = graph.node(x).shape[p["axis"]]
    elif name == "reduce_window_sum":
        count = math.prod(p["window_dimensions"])
    return moved(graph, (x,), lambda v: rebound(eqn, [v])[0], summed=count, over=over)


@rule("split", "unstack")
def _split(graph: Graph, eqn: Any, x: Ref) -> list[Ref]:
    return [moved(graph, (x,), lambda v, i=i: rebound(eqn, [v])[i]) for i in range(len(eqn.outvars))]


@rule("concatenate", "stack")
def _joined(graph: Graph, eqn: Any, *values: Value) -> Ref:
    """Affine in all that is perturbed: known parts stand in the bias."""
    return affine_in(graph, eqn, values, tuple(range(len(values))))


@rule("pad")
def _pad(graph: Graph, eqn: Any, x: Value, fill: Value) -> Ref:
    if not isinstance(fill, Ref):
        return affine_in(graph, eqn, (x, fill), (0, 1))
    # JAX does not transpose this one: the fill by itself, where the array is not
    a, b = (v.aval for v in eqn.invars)
    inside = steady(lambda one: rebound(eqn, [jnp.full(a.shape, one, a.dtype), jnp.zeros(b.shape, b.dtype)])[0] != 0, np.float32(1))
    around = moved(graph, (fill,), lambda v: jnp.where(inside, 0, v))
    within = affine_in(graph, eqn, (x, np.zeros(b.shape, b.dtype)), (0, 1)) if isinstance(x, Ref) else None
    if within is None:
        known = steady(lambda v: rebound(eqn, [jnp.asarray(v, a.dtype), jnp.zeros(b.shape, b.dtype)])[0], x)
        return scaled(graph, around, bias=known)
    return summed(graph, within, around)  # pyright: ignore[reportReturnType]


@rule("dynamic_update_slice")
def _update(graph: Graph, eqn: Any, *values: Value) -> Ref:
    _at_known(graph, eqn, values[2:])
    return affine_in(graph, eqn, values, (0, 1))


@rule("dynamic_slice")
def _dynamic_slice(graph: Graph, eqn: Any, *values: Value) -> Ref:
    _at_known(graph, eqn, values[1:])
    return affine_in(graph, eqn, values, (0,))


@rule("gather")
def _gather(graph: Graph, eqn: Any, x: Value, indices: Value) -> Ref:
    """What an index beyond the end reads (nan, unless the program says otherwise) stands in the bias.

    One that the program promised away reads the last element, which the transpose has to be told: JAX's drops it.
    """
    _at_known(graph, eqn, (indices,))
    node, bias = graph.node(x), None
    if eqn.params["mode"] == lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        eqn = eqn.replace(params=dict(eqn.params, mode=lax.GatherScatterMode.CLIP))
    if eqn.params["mode"] == lax.GatherScatterMode.FILL_OR_DROP:
        bias = _unless_zero(steady(lambda i: rebound(eqn, [jnp.zeros(node.shape, node.dtype), i])[0], indices))
        eqn = eqn.replace(params=dict(eqn.params, fill_value=0))
    return moved(graph, (x,), lambda v: rebound(eqn, [v, jnp.asarray(indices)])[0], bias)


@rule("scatter", "scatter-add")
def _scatter(graph: Graph, eqn: Any, x: Value, indices: Value, updates: Value) -> Ref:
    """A write beyond the end that the program promised away is none, which the transpose has to be told: JAX's reads there."""
    _at_known(graph, eqn, (indices,))
    if eqn.params["mode"] == lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        eqn = eqn.replace(params=dict(eqn.params, mode=lax.GatherScatterMode.FILL_OR_DROP))
    if eqn.primitive.name == "scatter" and (update := eqn.params["update_jaxpr"]) is not None:
        if update.eqns or update.outvars[0] is not update.invars[1]:  # not what is written, but a function of it and of what was there
            raise UnsupportedPrimitive(
                f"x.at[...].apply, which no rule bounds; used at {graph.source}. Write x.at[i].set(f(x[i])), which is bounded."
            )
    places = math.prod(jnp.shape(indices)[:-1])
    if eqn.primitive.name == "scatter-add":
        for v in (x, updates):
            if isinstance(v, Ref):
                arithmetic(graph, v, "scatter-add")
        return affine_in(graph, eqn, (x, indices, updates), (0, 2), summed=1 + places)
    if places > 1:
        met = _met(eqn, indices)
        if met or (met is None and not eqn.params["unique_indices"]):
            raise UnsupportedPrimitive(
                f"a write at indices that may repeat, where which value stays is not defined; used at {graph.source}. "
                "Say x.at[...].set(..., unique_indices=True) if they do not."
            )
    eqn = eqn.replace(params=dict(eqn.params, unique_indices=True))
    return affine_in(graph, eqn, (x, indices, updates), (0, 2))


def _met(eqn: Any, indices: Value) -> bool | None:
    """Whether two writes meet, so that a program that adds ones adds two somewhere; None where the indices are not known yet."""
    array = concrete(indices)
    if array is None:
        return None
    base, _, updates = (v.aval.shape for v in eqn.invars)
    with jax.ensure_compile_time_eval():
        zeros, ones = jnp.zeros(base, jnp.int32), jnp.ones(updates, jnp.int32)
        added = lax.scatter_add(zeros, jnp.asarray(array), ones, eqn.params["dimension_numbers"], mode=eqn.params["mode"])
        return int(jnp.max(added, initial=0)) > 1


def _at_known(graph: Graph, eqn: Any, indices: tuple[Value, ...]) -> None:
    if any(isinstance(i, Ref) for i in indices):
        raise UnsupportedPrimitive(
            f"{eqn.primitive.name} at indices that depend on the input; used at {graph.source}. "
            "Only known indices can be bounded: choose among few values with jnp.where instead."
        )


def affine_in(graph: Graph, eqn: Any, values: tuple[Value, ...], linear: tuple[int, ...], summed: int = 1) -> Ref:
    """One node for an equation that is linear, without negative coefficients, in the operands at `linear` taken together."""
    refs = [i for i in linear if isinstance(values[i], Ref)]
    avals = [v.aval for v in eqn.invars]
    rest = [i for i in range(len(values)) if i not in refs]

    def at(given: dict[int, Any]) -> jax.Array:
        return rebound(eqn, [given[i] if i in given else jnp.zeros(a.shape, a.dtype) for i, a in enumerate(avals)])[0]

    def run(*xs: jax.Array) -> jax.Array:
        fixed = {i: jnp.asarray(values[i], avals[i].dtype) for i in rest if i not in linear}
        known = {i: jnp.zeros(avals[i].shape, xs[0].dtype) for i in rest if i in linear}  # truth values are laid out as numbers
        return at(fixed | known | dict(zip(refs, xs, strict=True)))

    bias = None
    if set(linear) - set(refs):
        bias = steady(
            lambda *vs: at({i: jnp.asarray(v, avals[i].dtype) for i, v in zip(rest, vs, strict=True)}), *(values[i] for i in rest)
        )
    return moved(graph, tuple(values[i] for i in refs), run, _unless_zero(bias), summed)


def _unless_zero(bias: Any) -> Any:
    fixed = None if bias is None else concrete(bias)
    return bias if fixed is None or np.any(fixed != 0) else None
