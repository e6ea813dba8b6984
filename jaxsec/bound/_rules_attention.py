"""Softmax, log-softmax, logsumexp, and averages by softmax weights, recognised by what they compute."""

import math

import jax.numpy as jnp
import numpy as np

from ._build import curve, moved, negated, scaled, spread, summed
from ._graph import Graph, Ref
from ._nodes import Sum
from ._patterns import copied, curve_of, spread_back, total


def softmax(graph: Graph, x: Ref, y: Ref) -> Ref | None:
    """`x / y` where x is exp(z) and y its sum; None where it is not."""
    z = curve_of(graph, x, "exp")
    of = None if z is None else total(graph, spread(graph, y, graph.node(x).shape))
    if z is None or of is None or of.terms != x or of.factor <= 0 or not spread_back(graph, of):
        return None
    return scaled(graph, softmax_of(graph, unshifted(graph, z, of.axes), of.axes), 1 / of.factor)


def unshifted(graph: Graph, z: Ref, axes: tuple[int, ...]) -> Ref:
    """z without what is the same for all elements along the axes, such as their maximum."""
    while isinstance(node := graph.node(z), Sum):
        one, two = (Ref(i) for i in node.inputs)
        if (at := copied(graph, two)) is not None and at.along(axes):
            z = one
        elif (at := copied(graph, one)) is not None and at.along(axes):
            z = two if node.sign > 0 else negated(graph, two)
        else:
            break
    return z


FORM = "A"


def softmax_of(graph: Graph, logits: Ref, axes: tuple[int, ...]) -> Ref:
    shape = graph.node(logits).shape
    n = math.prod(shape[a] for a in axes)
    rest = [i for i in range(len(shape)) if i not in axes]
    kept = tuple(shape[i] for i in rest)
    z = moved(graph, (logits,), lambda v: jnp.transpose(v, (*rest, *axes)).reshape(*kept, n))
    if FORM in "ABE":
        others = np.array([[j for j in range(n) if j != i] for i in range(n)])
        own = moved(graph, (z,), lambda v: jnp.broadcast_to(v[..., None], (*kept, n, n - 1)))
        d = summed(graph, moved(graph, (z,), lambda v: v[..., others]), own, -1)
        if n == 2:
            p = curve(graph, negated(graph, moved(graph, (d,), lambda v: v[..., 0])), "logistic")
        else:
            s = moved(graph, (curve(graph, d, "exp"),), lambda v: jnp.sum(v, -1), summed=n - 1, over=(len(kept) + 1,))
            if FORM == "A":
                p = curve(graph, scaled(graph, s, bias=1), "reciprocal")
            elif FORM == "B":
                p = curve(graph, negated(graph, curve(graph, s, "log")), "logistic")
            else:
                p = curve(graph, negated(graph, curve(graph, scaled(graph, s, bias=1), "log")), "exp")
    else:
        m = scaled(graph, moved(graph, (z,), lambda v: jnp.broadcast_to(jnp.sum(v, -1, keepdims=True), (*kept, n)), summed=n), 1 / n)
        z = summed(graph, z, m, -1)
        e = curve(graph, z, "exp")
        s = moved(graph, (e,), lambda v: jnp.sum(v, -1, keepdims=True), summed=n)
        if FORM == "C":
            p = curve(graph, summed(graph, z, curve(graph, s, "log"), -1), "exp")
        else:
            from ._build import product

            p = product(graph, e, curve(graph, s, "reciprocal"))
    return moved(graph, (p,), lambda v: jnp.transpose(v.reshape(*kept, *(shape[a] for a in axes)), np.argsort((*rest, *axes))))


def log_softmax(graph, x, y):
    return None


def averaged(graph, ref, dims, x, y):
    return ref
