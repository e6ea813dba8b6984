"""Primitives that are affine in what depends on the input: sums, multiples, products with known weights."""

import math
from typing import Any

import jax.numpy as jnp
from jax import lax

from ._build import arithmetic, curve, moved, negated, summed
from ._conv import convolve
from ._graph import Graph, Ref, UnsupportedPrimitive, Value, rule, steady
from ._nodes import Contract, Product
from ._rules_attention import averaged, log_softmax, logsumexp
from ._rules_norm import variance

HIGHEST = lax.Precision.HIGHEST


@rule("add", "add_any")
def _add(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    if isinstance(x, Ref) and isinstance(y, Ref):
        for one, two in ((x, y), (y, x)):
            if (found := logsumexp(graph, one, two)) is not None:
                return found
    return summed(graph, x, y)


@rule("sub")
def _sub(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    if isinstance(x, Ref) and isinstance(y, Ref):
        for known_as in (log_softmax, variance):
            if (found := known_as(graph, x, y)) is not None:
                return found
    return summed(graph, x, y, -1)


@rule("neg")
def _neg(graph: Graph, eqn: Any, x: Ref) -> Value:
    return negated(graph, x)


@rule("dot_general")
def _dot(graph: Graph, eqn: Any, x: Value, y: Value) -> Ref:
    p, prim, out = dict(eqn.params, precision=HIGHEST), eqn.primitive, eqn.outvars[0].aval
    (cx, cy), (bx, by) = p["dimension_numbers"]
    known_left = not isinstance(x, Ref)
    shape = jnp.shape(x) if known_left else graph.node(x).shape
    count = math.prod(shape[i] for i in cx)
    for v in (x, y):
        if isinstance(v, Ref):
            arithmetic(graph, v, "a product")
    if isinstance(x, Ref) and isinstance(y, Ref):
        if x == y and cx == cy and bx == by == tuple(range(len(bx))) and len(cx) + len(bx) == len(shape):
            # each element times itself: a sum of squares
            return moved(graph, (curve(graph, x, "square"),), lambda v: jnp.sum(v, tuple(cx)), summed=count, over=tuple(cx))
        node = Product(inputs=(x.index, y.index), shape=out.shape, dtype=out.dtype, run=lambda a, b: prim.bind(a, b, **p))
        node.elementwise, node.summed = False, count
        return averaged(graph, graph.add(node), p["dimension_numbers"], x, y)
    w, ref = (x, y) if known_left else (y, x)
    run = (lambda w, v: prim.bind(w, v, **p)) if known_left else (lambda w, v: prim.bind(v, w, **p))
    return _contraction(graph, ref, run, w, out, count)


@rule("conv_general_dilated")
def _conv(graph: Graph, eqn: Any, x: Value, w: Value) -> Ref:
    out, native = eqn.outvars[0].aval, graph.native
    spec = eqn.params["dimension_numbers"].rhs_spec
    wshape = graph.node(w).shape if isinstance(w, Ref) else jnp.shape(w)
    count = math.prod(wshape) // max(wshape[spec[0]], 1)
    if isinstance(x, Ref) and isinstance(w, Ref):
        node = Product(inputs=(x.index, w.index), shape=out.shape, dtype=out.dtype, run=lambda a, b: convolve(eqn, b, a, False))
        node.elementwise, node.summed = False, count
        return graph.add(node)
    if isinstance(w, Ref):
        return _contraction(graph, w, lambda a, v: convolve(eqn, v, a, False), x, out, count)
    ref = _contraction(graph, x, lambda w, v: convolve(eqn, w, v, native), w, out, count)
    graph.nodes[ref.index].conv = eqn  # pyright: ignore[reportAttributeAccessIssue]
    return ref


def _contraction(graph: Graph, x: Ref, run: Any, w: Any, out: Any, count: int) -> Ref:
    dtype = graph.node(x).dtype
    w = steady(lambda w: jnp.asarray(w), w)
    if out.dtype != dtype or w.dtype != dtype:
        raise UnsupportedPrimitive(
            f"a product of {dtype} and {w.dtype} values in {out.dtype}; used at {graph.source}. Certify the model in {dtype} throughout."
        )
    return graph.add(Contract(inputs=(x.index,), shape=out.shape, dtype=out.dtype, run=run, weights=w, summed=count))
