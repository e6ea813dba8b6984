"""From rows and a threat to one program: the graph of one row, the method on it, side by side for all rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._native import cpu_devices, on_one_cpu
from ..core._model import Model
from ..threat import Threat
from ._graph import Graph, Ref, trace
from ._lines import carried
from ._method import BoundMethod
from ._problem import Known, Problem, identity
from ._region import Region, by_row, of_row, one_row


def on_platform(run: Callable[..., Any], *args: Any) -> Any:
    """`run(*args, native=...)`: with compiled convolutions where the program is lowered for a single CPU that has them.

    Forms have one axis more than the values they are about, and meet them by broadcasting; a user's stricter setting is for user code.
    """
    with jax.numpy_rank_promotion("allow"):
        if cpu_devices() == 0 or not on_one_cpu():
            return run(*args, native=False)
        return lax.platform_dependent(*args, cpu=partial(run, native=True), default=partial(run, native=False))


def of_model(model: Model, x: jax.Array, native: bool) -> Graph:
    """The graph of rows `x [B, ...]` side by side, one as a rule, with logits [B, K]; the same one for every B."""
    return trace(model, jax.ShapeDtypeStruct(x.shape, x.dtype), native=native, rows=x.shape[0])


def output(graph: Graph) -> int:
    """The node of the only output."""
    (out,) = graph.outputs
    if not isinstance(out, Ref):
        raise ValueError("the function's output does not depend on its input: there is nothing to bound.")
    return out.index


def unknown(model: Model, shape: tuple[int, ...], dtype: Any) -> Known:
    """What is known of the layers before anything has been bounded, [1, ...]: nothing. Pure."""
    graph = of_model(model, jnp.zeros((1, *shape), dtype), False)
    shapes = [(1, *graph.nodes[t].shape) for t in carried(graph, output(graph))]
    return tuple((jnp.full(s, -jnp.inf, dtype), jnp.full(s, jnp.inf, dtype)) for s in shapes)


def box_problem(
    model: Model, shape: tuple[int, ...], lo: jax.Array, hi: jax.Array, spec: jax.Array, at: jax.Array, *,
    sound: bool, rows: int, budget: int, native: bool,
) -> Problem:  # fmt: skip
    """Forms spec [S, K], at [S] of a model's output over the box lo, hi [n] of one row of that shape; `rows` such problems side by side."""
    box = (lo.reshape(1, *shape), hi.reshape(1, *shape))
    graph = of_model(model, box[0], native)
    out = output(graph)
    return Problem(graph, out, Region([box]), spec.reshape(len(at), *graph.nodes[out].shape), at, sound, rows, budget)


def lower_rows(
    model: Model,
    x: jax.Array,
    threat: Threat,
    spec: jax.Array,
    at: jax.Array,
    method: BoundMethod,
    *,
    sound: bool,
    budget: int,
) -> jax.Array:
    """[B, S] lower bounds of `spec[b] . logits + at[b]`, spec [B, S, K], at [B, S], over each row's set. Pure; traces once per shape."""

    def run(model: Model, x: jax.Array, threat: Threat, spec: jax.Array, at: jax.Array, *, native: bool) -> jax.Array:
        def row(x: jax.Array, threat: Threat, spec: jax.Array, at: jax.Array) -> jax.Array:
            graph = of_model(model, x[None], native)
            out = output(graph)
            region = of_row(one_row(threat), x[None])
            forms = spec.reshape(len(at), *graph.nodes[out].shape)
            return method.lower(Problem(graph, out, region, forms, at, sound, rows, budget))

        return jax.vmap(row)(x, threat, spec, at)

    rows = len(x)
    return on_platform(run, model, x, by_row(threat, x), spec, at)


def both_rows(model: Model, x: jax.Array, threat: Threat, method: BoundMethod, *, sound: bool, budget: int) -> tuple[jax.Array, jax.Array]:
    """Lower and upper bounds [B, K] of the logits themselves."""
    k = jax.eval_shape(model, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)).shape[1]
    eye = identity((k,), x.dtype)
    spec = jnp.broadcast_to(jnp.concatenate([eye, -eye]), (len(x), 2 * k, k))
    values = lower_rows(model, x, threat, spec, jnp.zeros((len(x), 2 * k), x.dtype), method, sound=sound, budget=budget)
    return values[:, :k], -values[:, k:]


def lower_function(
    fn: Callable[..., Any], box: list[Any], tree: Any, spec: jax.Array | None, method: BoundMethod, *, sound: bool, budget: int
) -> Any:
    """Bounds of any function of arrays over a box: (lower, upper) trees like its value, or [S] for forms on its only output."""

    def run(box: list[Any], spec: jax.Array | None, *, native: bool) -> Any:
        args = [jax.ShapeDtypeStruct(lo.shape, lo.dtype) for lo, _ in box]
        graph = trace(lambda *leaves: fn(*jax.tree.unflatten(tree, leaves)), *args, native=native)
        region = Region(box)
        if spec is not None:
            out = output(graph)
            forms = spec.reshape(len(spec), *graph.nodes[out].shape)
            return method.lower(Problem(graph, out, region, forms, jnp.zeros(len(spec), spec.dtype), sound, 1, budget))
        ends = []
        for value in graph.outputs:
            if not isinstance(value, Ref):
                ends.append((value, value))
                continue
            shape, dtype = graph.nodes[value.index].shape, graph.nodes[value.index].dtype
            if not jnp.issubdtype(dtype, jnp.floating):
                ends.append(Problem(graph, value.index, region, jnp.zeros(0), jnp.zeros(0), sound, 1, budget).intervals()[value.index])
                continue
            eye = identity(shape, dtype)
            forms = jnp.concatenate([eye, -eye])
            low = method.lower(Problem(graph, value.index, region, forms, jnp.zeros(len(forms), dtype), sound, 1, budget))
            ends.append((low[: len(eye)].reshape(shape), -low[len(eye) :].reshape(shape)))
        return tuple(jax.tree.unflatten(graph.out_tree, [e[i] for e in ends]) for i in (0, 1))

    return on_platform(run, box, spec)
