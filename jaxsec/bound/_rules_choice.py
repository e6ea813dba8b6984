"""Conditions and choices. A truth value is bounded by (surely, possibly); an undecided choice by the hull of what may be chosen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._walk import rebound
from ._build import curve, erring, kink, moved, opaque, rewritten, scaled, spread, summed
from ._graph import Graph, Ref, UnsupportedPrimitive, Value, concrete, rule, scalar, steady
from ._nodes import Curve, Kink, Range, Scale, certain
from ._patterns import copied, multiple


@rule("lt", "le", "gt", "ge", "eq", "ne")
def _compare(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    """A number is not NaN as long as all is finite, so `x != x` is False."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    if isinstance(x, Ref) and isinstance(y, Ref) and x == y:
        return np.full(shape, name in ("le", "ge", "eq"))

    def run(p: Range, q: Range) -> Range:
        (a, b), (c, d) = (_decidable(*(jnp.broadcast_to(v, shape) for v in r)) for r in (p, q))
        if name in ("gt", "ge"):
            (a, b), (c, d) = (c, d), (a, b)
        if name in ("lt", "gt"):
            return b < c, a < d
        if name in ("le", "ge"):
            return b <= c, a <= d
        same, apart = (a == b) & (c == d) & (a == c), (b < c) | (d < a)
        return (same, ~apart) if name == "eq" else (apart, ~same)

    ref = opaque(graph, eqn.outvars[0].aval, (x, y), run)
    graph.comparisons[ref.index] = (name, x, y)
    return ref


def _decidable(lo: jax.Array, hi: jax.Array) -> Range:
    """No end is NaN, with which every comparison would seem decided."""
    return certain(lo, hi) if jnp.issubdtype(lo.dtype, jnp.floating) else (lo, hi)


@rule("and", "or", "not", "xor")
def _logic(graph: Graph, eqn: Any, *values: Value) -> Value:
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    if eqn.outvars[0].aval.dtype != bool:
        raise UnsupportedPrimitive(f"the bits of an integer that depends on the input; used at {graph.source}. No rule bounds them.")
    for v in values:  # what a known value decides by itself
        fixed = None if isinstance(v, Ref) else concrete(v)
        if fixed is not None and name in ("and", "or") and (fixed == (name == "or")).all():
            return np.full(shape, name == "or")

    def run(*ranges: Range) -> Range:
        if name == "not":
            return ~ranges[0][1], ~ranges[0][0]
        (a, b), (c, d) = (tuple(jnp.broadcast_to(v, shape) for v in r) for r in ranges)
        if name == "xor":
            decided = (a == b) & (c == d)
            return decided & (a ^ c), ~decided | (a ^ c)
        return (a & c, b & d) if name == "and" else (a | c, b | d)

    return opaque(graph, eqn.outvars[0].aval, values, run)


@rule("is_finite")
def _is_finite(graph: Graph, eqn: Any, x: Ref) -> Ref:
    def run(r: Range) -> Range:
        unbounded = (r[0] == r[1]) & jnp.isinf(r[0])
        return jnp.isfinite(r[0]) & jnp.isfinite(r[1]), ~unbounded

    ref = opaque(graph, eqn.outvars[0].aval, (x,), run)
    graph.finite[ref.index] = x
    return ref


@rule("reduce_and", "reduce_or")
def _reduce_logic(graph: Graph, eqn: Any, x: Ref) -> Ref:
    if graph.node(x).dtype != bool:
        raise UnsupportedPrimitive(f"{eqn.primitive.name} of integers that depend on the input; used at {graph.source}.")
    axes = tuple(eqn.params["axes"])
    run = jnp.all if eqn.primitive.name == "reduce_and" else jnp.any
    return opaque(graph, eqn.outvars[0].aval, (x,), lambda r: (run(r[0], axis=axes), run(r[1], axis=axes)))


@rule("select_n")
def _select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Value:
    """With a known condition affine; by x against a number and affine in x on both sides a kink; else whichever may be chosen."""
    if not isinstance(which, Ref):
        return _known_choice(graph, eqn, which, cases)
    out = eqn.outvars[0].aval
    if len(cases) != 2:
        return among(graph, out, which, cases)
    if isinstance(cases[0], Ref) and isinstance(cases[1], Ref) and cases[0] == cases[1]:
        return cases[0]
    for known_as in (_kinked, _elu):
        if (found := known_as(graph, which, cases)) is not None:
            return found
    found = among(graph, out, which, cases)
    if isinstance(cases[1], Ref) and cases[1] == graph.finite.get(which.index) and scalar(cases[0]) == 0:  # logsumexp's maximum
        at = copied(graph, cases[1])
        if at is not None and at.factor == 1 and at.source.index in graph.maxima and not (at.picked < 0).any():
            of, axes, stands = graph.maxima[at.source.index]
            graph.maxima[found.index] = (of, axes, stands.reshape(-1)[at.picked])
    return found


def among(graph: Graph, out: Any, which: Ref, cases: tuple[Value, ...]) -> Ref:
    """One of several values by a number (or truth value) that depends on the input: the hull of those it may choose."""

    def run(which: Range, *ranges: Range) -> Range:
        least, most = (jnp.clip(jnp.broadcast_to(v, out.shape).astype(jnp.int32), 0, len(cases) - 1) for v in which)
        (lo, hi), seen = ranges[0], least == 0
        for i, (a, b) in enumerate(ranges[1:], 1):
            able = (least <= i) & (i <= most)
            lo = jnp.where(able, jnp.where(seen, jnp.minimum(lo, a), a), lo)
            hi = jnp.where(able, jnp.where(seen, jnp.maximum(hi, b), b), hi)
            seen = seen | able
        return jnp.broadcast_to(lo, out.shape), jnp.broadcast_to(hi, out.shape)

    return opaque(graph, out, (which, *cases), run)


def _known_choice(graph: Graph, eqn: Any, which: Any, cases: tuple[Value, ...]) -> Value:
    fixed = concrete(which)
    shape = eqn.outvars[0].aval.shape
    if fixed is not None and fixed.size and (fixed == fixed.flat[0]).all():
        case = cases[int(fixed.flat[0])]
        return spread(graph, case, shape) if isinstance(case, Ref) else case
    refs = [i for i, c in enumerate(cases) if isinstance(c, Ref)]
    rest = [i for i, c in enumerate(cases) if not isinstance(c, Ref)]
    avals = [v.aval for v in eqn.invars[1:]]

    def chosen(which: Any, given: dict[int, Any]) -> jax.Array:
        return rebound(eqn, [jnp.asarray(which), *(given[i] if i in given else jnp.zeros(a.shape, a.dtype) for i, a in enumerate(avals))])[
            0
        ]

    bias = None
    if rest:
        bias = steady(lambda w, *vs: chosen(w, {i: jnp.asarray(v, avals[i].dtype) for i, v in zip(rest, vs, strict=True)}), which,
                      *(cases[i] for i in rest))  # fmt: skip
        fixed = concrete(bias)
        bias = bias if fixed is None or np.any(fixed != 0) else None
    return moved(graph, tuple(cases[i] for i in refs), lambda *xs: chosen(which, dict(zip(refs, xs, strict=True))), bias)


def _against(graph: Graph, which: Ref) -> tuple[bool, Ref, Value] | None:
    """(True for x > t or x >= t and False for < or <=, x, t) of a comparison with something known."""
    name, x, y = graph.comparisons.get(which.index, ("", None, None))
    if isinstance(y, Ref) and not isinstance(x, Ref):
        name, x, y = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}.get(name, ""), y, x
    if not isinstance(x, Ref) or isinstance(y, Ref) or name not in ("gt", "ge", "lt", "le"):
        return None
    return name in ("gt", "ge"), x, y


def _kinked(graph: Graph, which: Ref, cases: tuple[Value, Value]) -> Value | None:
    """`where(x > t, p x + q, r x + s)` in any of its spellings, where both sides meet at t."""
    if (found := _against(graph, which)) is None:
        return None
    above, x, threshold = found
    t = scalar(threshold)
    sides = [_affine_of(graph, case, x) for case in (cases if above else cases[::-1])]
    if t is None or sides[0] is None or sides[1] is None:
        return None
    (neg, s), (pos, q) = sides  # pyright: ignore[reportGeneralTypeIssues, reportOptionalIterable]
    shape = graph.node(which).shape
    dtype = graph.node(x).dtype
    if t == 0 and scalar(s) == 0 and scalar(q) == 0:
        return kink(graph, spread(graph, x, shape), neg, pos)
    numbers = [scalar(v) for v in (neg, s, pos, q)]
    if any(v is None for v in numbers):
        return None
    r, s, p, q = (np.asarray(v, dtype) for v in numbers)
    t = np.asarray(t, dtype)
    if r * t + s != p * t + q:
        return None
    return scaled(graph, kink(graph, scaled(graph, spread(graph, x, shape), bias=-t), r, p), bias=r * t + s)


def _affine_of(graph: Graph, case: Value, x: Ref) -> tuple[Any, Any] | None:
    """(scale, bias) with case = scale * x + bias."""
    if not isinstance(case, Ref):
        return 0.0, case
    if case == x:
        return 1.0, 0.0
    node = graph.node(case)
    if isinstance(node, Scale) and node.inputs == (x.index,):
        return (1.0 if node.scale is None else node.scale), (0.0 if node.bias is None else node.bias)
    return None


def _elu(graph: Graph, which: Ref, cases: tuple[Value, Value]) -> Ref | None:
    """`where(x > 0, x, alpha * (exp(x) - 1))`, with the exponential guarded against large x or not."""
    if (found := _against(graph, which)) is None or scalar(found[2]) != 0:
        return None
    above, x, _ = found
    no, yes = cases if above else cases[::-1]
    if not isinstance(no, Ref) or not isinstance(yes, Ref) or yes != x:
        return None
    scale, bias, inner = multiple(graph, no)
    node = graph.node(inner)
    if not isinstance(node, Curve) or node.unary.name not in ("exp", "expm1"):
        return None
    source = Ref(node.inputs[0])
    guard = graph.node(source)
    guarded = isinstance(guard, Kink) and guard.inputs == (x.index,) and scalar(guard.neg) == 1 and scalar(guard.pos) == 0
    if not (source == x or guarded) or scalar(scale + bias if node.unary.name == "exp" else bias) != 0:
        return None
    return elu(graph, x, scale)


def elu(graph: Graph, x: Ref, alpha: Any) -> Value:
    """x above 0, `alpha * (exp(x) - 1)` below."""
    number = scalar(alpha)
    if number is not None and number >= 0:
        out = curve(graph, x, "elu", number)
        return rewritten(graph, out, (), lambda own: jnp.full_like(own[0], number) * erring(own[0].dtype, "exp", "expm1"))
    below = curve(graph, kink(graph, x, 1.0, 0.0), "expm1")
    rewritten(graph, below, (), lambda own: jnp.ones_like(own[0]) * erring(own[0].dtype, "exp"))
    return summed(graph, kink(graph, x, 0.0, 1.0), scaled(graph, below, alpha))
