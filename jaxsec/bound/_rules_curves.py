"""Elementwise primitives that are not affine: curves, kinks, products, quotients, powers, maxima, steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..core._walk import rebound
from ._build import (
    alike,
    arithmetic,
    curve,
    erring,
    floating,
    kink,
    moved,
    negated,
    opaque,
    product,
    relative,
    rewritten,
    scaled,
    size,
    spread,
    summed,
)
from ._gates import gated, monomial, softplus_of
from ._graph import Graph, Ref, UnsupportedPrimitive, Value, concrete, rule, scalar, steady
from ._nodes import Curve, Move, Range, Scale
from ._patterns import copied, curve_of, nonnegative
from ._rules_attention import softmax
from ._rules_norm import normalised

# JAX primitives of one argument whose ranges and lines are in the table of curves under the same name
_CURVES = "exp exp2 expm1 log log1p sqrt rsqrt cbrt square logistic tanh erf erfc sin cos tan sinh cosh asinh atan"
# Of numbers that large programs take the maximum with to say "no limit": added to ordinary ones they leave nothing of them.
_SWAMPS = 2.0**30


@rule(*_CURVES.split())
def _curve(graph: Graph, eqn: Any, x: Ref) -> Ref:
    name = eqn.primitive.name
    if name in ("log", "log1p") and (v := softplus_of(graph, name, x)) is not None:
        return rewritten(graph, curve(graph, v, "softplus"), (v,), _of_exponential)
    return curve(graph, x, name)


def _of_exponential(own: Range, r: Range) -> jax.Array:
    """What log(1 + exp(x)) loses: everything beyond the largest exponent, where it says infinity."""
    most = float(np.log(jnp.finfo(own[0].dtype).max)) - 1
    return jnp.where(r[1] > most, jnp.inf, (1 + size(own)) * erring(own[0].dtype, "exp", "log", "log1p"))


@rule("integer_pow")
def _integer_pow(graph: Graph, eqn: Any, x: Ref) -> Ref:
    return power(graph, x, eqn.params["y"])


def power(graph: Graph, x: Ref, n: float) -> Ref:
    if n == 1:
        return x
    if n == 2:
        return curve(graph, x, "square")
    return curve(graph, x, "integer_pow", int(n)) if n == int(n) and abs(n) < 64 else curve(graph, x, "pow", float(n))


@rule("pow")
def _pow(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """One curve per exponent, where these are numbers; a known base above 0 is an exponential."""
    exponent = None if isinstance(y, Ref) else concrete(y)
    if isinstance(x, Ref) and exponent is not None:
        different = np.unique(exponent)
        if len(different) == 1:
            out = power(graph, x, float(different[0]))
            return spread(graph, out if out == x else relative(graph, out, "pow"), eqn.outvars[0].aval.shape)
        x = spread(graph, x, eqn.outvars[0].aval.shape)
        parts = []
        for n in different[:32]:
            here = np.broadcast_to(exponent == n, graph.node(x).shape)
            parts.append(moved(graph, (power(graph, x, float(n)),), lambda v, here=here: jnp.where(here, v, 0)))
        total = parts[0]
        for part in parts[1:]:
            total = summed(graph, total, part)
        if len(different) <= 32:
            return total
    if isinstance(y, Ref) and not isinstance(x, Ref) and ((at := concrete(x)) is None or (at > 0).all()):
        return relative(graph, curve(graph, scaled(graph, y, steady(jnp.log, x)), "exp"), "pow")
    raise UnsupportedPrimitive(
        f"a power whose exponent is not a plain number; used at {graph.source}. Where the base is positive, "
        "write jnp.exp(y * jnp.log(x)); else use Python numbers as exponents."
    )


@rule("abs")
def _abs(graph: Graph, eqn: Any, x: Ref) -> Ref:
    return x if nonnegative(graph, x) else kink(graph, x, -1.0, 1.0)


@rule("mul")
def _mul(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    return times(graph, x, y)


def times(graph: Graph, x: Value, y: Value) -> Value:
    """The product of any two values, elementwise."""
    if not isinstance(x, Ref):
        x, y = y, x
    if not isinstance(x, Ref):
        return steady(lambda a, b: jnp.asarray(a) * jnp.asarray(b), x, y)
    if not isinstance(y, Ref):
        return scaled(graph, x, y)
    arithmetic(graph, x, "a product")
    if (same := monomial(graph, x, y)) is not None and same[2] < 16:
        return scaled(graph, power(graph, same[1], same[2]), same[0])
    x, y = alike(graph, x, y)
    for known_as in (gated, normalised):
        if (found := known_as(graph, x, y)) is not None:
            return found
    return product(graph, x, y)


@rule("div")
def _div(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    for v in (x, y):
        if isinstance(v, Ref) and not floating(graph, v):
            raise UnsupportedPrimitive(f"an integer division rounds, which no rule bounds; used at {graph.source}.")
    if not isinstance(y, Ref):
        return scaled(graph, x, steady(lambda v: 1 / jnp.asarray(v), y))
    if isinstance(x, Ref) and (found := softmax(graph, x, y)) is not None:
        return found
    return times(graph, x, reciprocal(graph, y))


def reciprocal(graph: Graph, y: Ref) -> Ref:
    """1 / y: of roots, exponentials and 1 + exp(v) as one curve; of repeated or scaled elements before they are."""
    node = graph.node(y)
    if (v := curve_of(graph, y, "sqrt")) is not None:
        return relative(graph, curve(graph, v, "rsqrt"), "sqrt")
    if (v := curve_of(graph, y, "exp")) is not None:
        return relative(graph, curve(graph, negated(graph, v), "exp"), "exp")
    if (v := softplus_of(graph, "log", y)) is not None:
        return relative(graph, curve(graph, negated(graph, v), "logistic"), "exp")
    if isinstance(node, Curve) and node.unary.name in ("square", "integer_pow", "pow"):
        exponent = 2.0 if node.unary.parameter is None else node.unary.parameter
        return relative(graph, power(graph, Ref(node.inputs[0]), -exponent), "pow")
    if isinstance(node, Scale) and node.bias is None and (s := scalar(node.scale)):
        return scaled(graph, reciprocal(graph, Ref(node.inputs[0])), 1 / s)
    if isinstance(node, Move) and (at := copied(graph, y)) is not None and (at.picked >= 0).all() and at.source != y:
        return moved(graph, (reciprocal(graph, Ref(node.inputs[0])),), node.run)
    return curve(graph, y, "reciprocal")


@rule("max", "min", "clamp")
def _extreme(graph: Graph, eqn: Any, *values: Value) -> Value:
    if not all(floating(graph, v) for v in values if isinstance(v, Ref)):  # integers: the ends go to the ends
        cast = [v.aval.dtype for v in eqn.invars]

        def run(*rs: Range) -> Range:
            low, high = (rebound(eqn, [jnp.asarray(r[i], d) for r, d in zip(rs, cast, strict=True)])[0] for i in (0, 1))
            return low, high

        return opaque(graph, eqn.outvars[0].aval, values, run)
    if eqn.primitive.name == "clamp":
        low, x, high = values
        return smallest(graph, largest(graph, x, low), high)
    return (largest if eqn.primitive.name == "max" else smallest)(graph, *values)


def largest(graph: Graph, x: Value, y: Value) -> Value:
    """`max(x, y) = y + relu(x - y)`: exact for lines, and split like any ReLU by branch and bound.

    A known y of minus infinity, or of the least number there is, does nothing. Taking y off would swamp x where y is large: there the
    maximum is a curve.
    """
    if not isinstance(x, Ref):
        x, y = y, x
    if not isinstance(x, Ref):
        return steady(lambda a, b: jnp.maximum(jnp.asarray(a), jnp.asarray(b)), x, y)
    if isinstance(y, Ref):
        if x == y:
            return x
        out = summed(graph, kink(graph, summed(graph, x, y, -1), 0.0, 1.0), y, fresh=True)
        return graph.hinted(out, (x, y), lambda a, b: (jnp.maximum(a[0], b[0]), jnp.maximum(a[1], b[1])), tight=True)
    shape = jnp.broadcast_shapes(graph.node(x).shape, jnp.shape(y))
    x, value = spread(graph, x, shape), concrete(y)
    dtype = graph.node(x).dtype
    if value is not None and jnp.issubdtype(dtype, jnp.floating) and (value <= float(jnp.finfo(dtype).min)).all():
        return x
    if scalar(y) == 0:
        if not nonnegative(graph, x):
            return kink(graph, x, 0.0, 1.0)
        # nothing to do but for rounding; other readers of x see what it is without
        return graph.hinted(moved(graph, (x,), lambda v: v), (), lambda: (jnp.zeros(()), jnp.full((), jnp.inf)))
    if value is not None and not np.isfinite(value).all():
        return opaque(graph, graph.node(x), (x,), lambda r: (jnp.maximum(r[0], y), jnp.maximum(r[1], y)))
    if (number := scalar(y)) is not None and abs(number) >= _SWAMPS and jnp.issubdtype(dtype, jnp.floating):
        return curve(graph, x, "at_least", float(np.asarray(number, dtype)))
    out = scaled(graph, kink(graph, scaled(graph, x, bias=negated(graph, y)), 0.0, 1.0), bias=y, fresh=True)
    return graph.hinted(out, (x,), lambda r: (jnp.maximum(r[0], y), jnp.maximum(r[1], y)), tight=True)


def smallest(graph: Graph, x: Value, y: Value) -> Value:
    """`min(x, y)`, as `largest`."""
    refs = tuple(v for v in (x, y) if isinstance(v, Ref))
    if len(refs) == 1 and scalar(y if isinstance(x, Ref) else x) == 0:
        shape = jnp.broadcast_shapes(*(graph.node(v).shape if isinstance(v, Ref) else jnp.shape(v) for v in (x, y)))
        return kink(graph, spread(graph, refs[0], shape), 1.0, 0.0)
    found = largest(graph, negated(graph, x), negated(graph, y))
    if len(refs) == 2 and isinstance(found, Ref):
        a, b = refs
        if a == b:
            return a
        out = scaled(graph, found, -1, fresh=True)
        return graph.hinted(out, refs, lambda a, b: (jnp.minimum(a[0], b[0]), jnp.minimum(a[1], b[1])), tight=True)
    return negated(graph, found)


# Never falling (or, acos, never rising) on their domain; of these only ranges are known.
_DOMAINS = {"asin": (-1.0, 1.0), "acos": (-1.0, 1.0), "acosh": (1.0, np.inf), "atanh": (-1.0, 1.0), "erf_inv": (-1.0, 1.0)}


@rule("sign", "floor", "ceil", "round", *_DOMAINS)
def _monotone(graph: Graph, eqn: Any, x: Ref) -> Ref:
    """The ends go to the ends; outside the domain nothing is known."""
    falls = eqn.primitive.name == "acos"
    least, most = _DOMAINS.get(eqn.primitive.name, (None, None))

    def run(r: Range) -> Range:
        lo, hi = (rebound(eqn, [v])[0] for v in (r[::-1] if falls else r))
        if least is None or most is None:
            return lo, hi
        inside = (r[0] >= least) & (r[1] <= most)
        return jnp.where(inside, lo, -jnp.inf), jnp.where(inside, hi, jnp.inf)

    return opaque(graph, eqn.outvars[0].aval, (x,), run)


@rule("rem")
def _rem(graph: Graph, eqn: Any, x: Value, y: Value) -> Ref:
    """The remainder, of the sign of x, by a known number."""
    if isinstance(y, Ref) or not floating(graph, x):
        raise UnsupportedPrimitive(f"a remainder by what depends on the input, or of integers; used at {graph.source}.")
    size = steady(lambda v: jnp.abs(jnp.asarray(v)), y)

    def run(r: Range, _: Any) -> Range:
        lo, hi = (lax.rem(v, jnp.broadcast_to(jnp.asarray(y, v.dtype), v.shape)) for v in r)
        # no multiple of y lies between: the remainder rises with x, and its ends are exact
        whole = (r[1] - r[0] < 0.99 * size) & (lo <= hi) & ((r[0] >= 0) | (r[1] <= 0))
        return jnp.where(whole, lo, jnp.where(r[0] < 0, -size, 0)), jnp.where(whole, hi, jnp.where(r[1] > 0, size, 0))

    return opaque(graph, eqn.outvars[0].aval, (x, y), run)
