"""Maxima and products along axes and over windows, as trees of pairwise ones; orders and their places, of which only ranges are known."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._walk import rebound
from ._build import arithmetic, floating, moved, opaque
from ._graph import Graph, Ref, UnsupportedPrimitive, Value, rule
from ._nodes import Range
from ._patterns import copied
from ._rules_curves import largest, smallest, times

Pair = Callable[[Graph, Value, Value], Value]


@rule("reduce_max", "reduce_min", "reduce_prod")
def _reduce(graph: Graph, eqn: Any, x: Ref) -> Value:
    name, axes = eqn.primitive.name, tuple(int(a) for a in eqn.params["axes"])
    if not axes:
        return x
    if math.prod(graph.node(x).shape[i] for i in axes) == 0:
        raise UnsupportedPrimitive(f"{name} over no elements; used at {graph.source}.")
    reduce = {"reduce_max": jnp.max, "reduce_min": jnp.min, "reduce_prod": jnp.prod}[name]
    if name == "reduce_prod":
        arithmetic(graph, x, "a product")
        return _folded(graph, x, axes, times)
    if not floating(graph, x):
        return opaque(graph, eqn.outvars[0].aval, (x,), lambda r: (reduce(r[0], axis=axes), reduce(r[1], axis=axes)))
    out = _folded(graph, x, axes, largest if name == "reduce_max" else smallest)
    if name == "reduce_max" and not (graph.rows > 1 and 0 in axes) and (at := copied(graph, out)) is not None and at.factor == 1:
        graph.maxima[at.source.index] = (x.index, axes, _inverse(at.picked, graph.of_row(graph.node(at.source).shape)))
    return graph.hinted(out, (x,), lambda r: (reduce(r[0], axis=axes), reduce(r[1], axis=axes)), tight=True)


def _inverse(picked: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which element of the copy each element of the source stands at; -1 for none."""
    at = np.full(math.prod(shape), -1)
    at[picked[picked >= 0]] = np.flatnonzero(picked >= 0)
    return at.reshape(shape)


def _folded(graph: Graph, x: Ref, axes: tuple[int, ...], pair: Pair) -> Ref:
    """The axes as one, halved again and again, so that the program grows with the logarithm. It stands last: rows stay in front."""
    shape = graph.node(x).shape
    rest = [i for i in range(len(shape)) if i not in axes]
    n = math.prod(shape[i] for i in axes)
    kept = tuple(shape[i] for i in rest)
    x = moved(graph, (x,), lambda v, n=n: jnp.transpose(v, (*rest, *axes)).reshape(*kept, n))
    while n > 1:
        half, odd = n // 2, n % 2
        first = moved(graph, (x,), lambda v, half=half: v[..., :half])
        second = moved(graph, (x,), lambda v, half=half: v[..., half : 2 * half])
        y = pair(graph, first, second)
        if odd:
            last = moved(graph, (x,), lambda v, n=n: v[..., n - 1 :])
            y = moved(graph, (y, last), lambda a, b: jnp.concatenate([a, b], -1))
        x, n = y, half + odd
    return moved(graph, (x,), lambda v: v[..., 0])


@rule("cummax", "cummin", "cumprod")
def _cumulative(graph: Graph, eqn: Any, x: Ref) -> Value:
    """The first 1, 2, 4, ... elements up to each place: each round pairs every element with the one that far before it."""
    name, axis = eqn.primitive.name, eqn.params["axis"]
    arithmetic(graph, x, name)
    pair = {"cummax": largest, "cummin": smallest, "cumprod": times}[name]
    n, out, step = graph.node(x).shape[axis], x, 1
    while step < n:
        # the last element in a reversed walk is the first
        ends = [slice(None)] * axis
        later, earlier = ((..., slice(step, None)), (..., slice(None, -step)))
        if eqn.params["reverse"]:
            later, earlier = earlier, later

        def part(v: Any, where: Any, axis: int = axis) -> Any:
            return jnp.moveaxis(jnp.moveaxis(v, axis, -1)[where], -1, axis)

        done = slice(None, step) if not eqn.params["reverse"] else slice(-step, None)
        new = pair(graph, *(moved(graph, (out,), lambda v, w=w: part(v, w)) for w in (later, earlier)))
        rest = moved(graph, (out,), lambda v, w=(..., done): part(v, w))
        order = (rest, new) if not eqn.params["reverse"] else (new, rest)
        out, step = moved(graph, order, lambda a, b: jnp.concatenate([a, b], axis)), 2 * step
        del ends
    if name == "cumprod":
        return out
    return graph.hinted(out, (x,), lambda r: (rebound(eqn, [r[0]])[0], rebound(eqn, [r[1]])[0]), tight=True) if out != x else x


@rule("reduce_window_max", "reduce_window_min")
def _window(graph: Graph, eqn: Any, x: Ref) -> Value:
    """The maximum of strided slices, one per place of the window."""
    p, name = eqn.params, eqn.primitive.name
    arithmetic(graph, x, name)
    sign = 1 if name == "reduce_window_max" else -1
    if set(p["base_dilation"]) != {1}:
        raise UnsupportedPrimitive(f"{name} with base dilation; used at {graph.source}.")
    shape, out = graph.node(x).shape, eqn.outvars[0].aval.shape
    rows = [_taps(*axis) for axis in zip(shape, out, p["window_dimensions"], p["window_strides"], p["window_dilation"], p["padding"],
                                         strict=True)]  # fmt: skip
    if any(r is None for r in rows):
        raise UnsupportedPrimitive(
            f"{name} with windows that lie in the padding altogether, whose maximum is infinite; used at {graph.source}. Pad less."
        )
    parts: list[Value] = []
    for offset in itertools.product(*(range(w) for w in p["window_dimensions"])):
        places = [r[o] for r, o in zip(rows, offset, strict=True)]  # pyright: ignore[reportOptionalSubscript]
        parts.append(moved(graph, (x,), lambda v, places=places: _strided(v, places)))
    while len(parts) > 1:
        pair = largest if sign > 0 else smallest
        parts = [pair(graph, *parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
    hint = (x,), lambda r: tuple(rebound(eqn, [v])[0] for v in r)
    return graph.hinted(parts[0], *hint, tight=True)  # pyright: ignore[reportArgumentType]


def _taps(size: int, out: int, window: int, stride: int, dilation: int, padding: tuple[int, int]) -> np.ndarray | None:
    """[window, out] rows of the array that each place of the window reads; None where a window has no row at all.

    Where a window sticks out of the array, another element of the same window stands in, which changes no maximum. (Padding with
    minus infinity would make lines infinite.)
    """
    rows = np.arange(out)[None] * stride + np.arange(window)[:, None] * dilation - padding[0]
    inside = (rows >= 0) & (rows < size)
    if not inside.any(0).all():
        return None
    return np.where(inside, rows, rows[inside.argmax(0), np.arange(out)])


def _strided(v: Any, places: list[np.ndarray]) -> Any:
    """The rows of every axis: by slices where they are regular."""
    for axis, rows in enumerate(places):
        step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
        if len(rows) == 0 or (step > 0 and (np.diff(rows) == step).all()):
            start = int(rows[0]) if len(rows) else 0
            v = lax.slice_in_dim(v, start, start + (len(rows) - 1) * step + 1 if len(rows) else start, step, axis)
        else:
            v = jnp.take(v, rows, axis=axis, mode="clip")
    return v


@rule("argmax", "argmin")
def _arg(graph: Graph, eqn: Any, x: Ref) -> Ref:
    """From the first to the last place that may hold the extreme."""
    (axis,), dtype = eqn.params["axes"], eqn.params["index_dtype"]

    def run(r: Range) -> Range:
        lo, hi = r
        best = jnp.max(lo, axis, keepdims=True) if eqn.primitive.name == "argmax" else jnp.min(hi, axis, keepdims=True)
        able = hi >= best if eqn.primitive.name == "argmax" else lo <= best
        last = able.shape[axis] - 1 - jnp.argmax(jnp.flip(able, axis), axis)
        return jnp.argmax(able, axis).astype(dtype), last.astype(dtype)

    return opaque(graph, eqn.outvars[0].aval, (x,), run)


@rule("sort")
def _sort(graph: Graph, eqn: Any, *xs: Value) -> Ref:
    """The k-th smallest rises with every element."""
    if len(xs) > 1:
        raise UnsupportedPrimitive(f"sort of several arrays at once, as in argsort; used at {graph.source}. Sort one array by itself.")
    return opaque(graph, eqn.outvars[0].aval, xs, lambda r: (rebound(eqn, [r[0]])[0], rebound(eqn, [r[1]])[0]))


@rule("top_k")
def _top_k(graph: Graph, eqn: Any, x: Ref) -> list[Ref]:
    values, places = (v.aval for v in eqn.outvars)
    last = graph.node(x).shape[eqn.params.get("axis", -1)] - 1
    anywhere = (jnp.zeros(places.shape, places.dtype), jnp.full(places.shape, last, places.dtype))
    return [
        opaque(graph, values, (x,), lambda r: (rebound(eqn, [r[0]])[0], rebound(eqn, [r[1]])[0])),
        opaque(graph, places, (x,), lambda r: anywhere),
    ]
