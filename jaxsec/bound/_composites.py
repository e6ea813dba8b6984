"""Functions of `jax.nn` and `jax.numpy` that are tighter known as a whole than by the operations they are made of.

A call is one of them if its program equals, letter by letter, the one that this version of JAX traces for the function itself: another
function of the same name stays what it is, and a new version of JAX with another program loses nothing but tightness. What JAX
writes in line (softmax, gelu) is recognised on the graph, see `_gates`, `_rules_attention` and `_rules_norm`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from ._build import curve, scaled, summed
from ._graph import Graph, Ref, Value, scalar
from ._nodes import Range, certain
from ._rules_choice import elu


def _logaddexp(graph: Graph, x: Value, y: Value) -> Value | None:
    """y + softplus(x - y)."""
    if not isinstance(x, Ref):
        x, y = y, x
    difference = summed(graph, x, y, -1)
    if not isinstance(difference, Ref):
        return None
    out = summed(graph, curve(graph, difference, "softplus"), y, fresh=True)

    def run(r: Range, s: Range) -> Range:
        room = 8 * float(jnp.finfo(r[0].dtype).eps)
        low, high = (jnp.logaddexp(a, b) for a, b in zip(r, s, strict=True))
        return certain(low - room * (1 + jnp.abs(low)), high + room * (1 + jnp.abs(high)))

    return graph.hinted(out, (x, y), run) if isinstance(y, Ref) else out


def _celu(graph: Graph, x: Value, alpha: Value = 1.0) -> Value | None:
    number = scalar(alpha)
    if number is None or number <= 0 or not isinstance(x, Ref):
        return None
    return scaled(graph, elu(graph, scaled(graph, x, 1 / number), 1.0), number)


def _hard_tanh(graph: Graph, x: Value) -> Value:
    from ._rules_curves import largest, smallest

    return smallest(graph, largest(graph, x, -1.0), 1.0)


def _one_curve(name: str) -> Callable[[Graph, Value], Value]:
    return lambda graph, x: curve(graph, x, name)


# name of the call -> (the function itself, the value it stands for)
_KNOWN: dict[str, tuple[Callable[..., Any], Callable[..., Value | None]]] = {
    "logaddexp": (jnp.logaddexp, _logaddexp),
    "celu": (jax.nn.celu, _celu),
    "hard_tanh": (jax.nn.hard_tanh, _hard_tanh),
    "soft_sign": (jax.nn.soft_sign, _one_curve("soft_sign")),
}


def composite(graph: Graph, eqn: Any, values: tuple[Value, ...]) -> Value | None:
    """The value of a known function's call, or None where it is not one."""
    name = _name(eqn)
    if name not in _KNOWN or len(eqn.outvars) != 1:
        return None
    function, make = _KNOWN[name]
    avals = tuple((tuple(v.aval.shape), str(v.aval.dtype), v.aval.weak_type) for v in eqn.invars)
    return make(graph, *values) if str(_body(eqn)) == _reference(function, name, avals) else None


def _body(eqn: Any) -> jex.Jaxpr | None:
    program = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
    return program.jaxpr if isinstance(program, jex.ClosedJaxpr) else program


def _name(eqn: Any) -> str:
    """What is called; a function with a custom derivative carries its name with its program only."""
    body = _body(eqn)
    return eqn.params.get("name") or ("" if body is None else body.debug_info.func_name)


@functools.cache
def _reference(function: Callable[..., Any], name: str, avals: tuple[tuple[tuple[int, ...], str, bool], ...]) -> str:
    """The program inside the call of that name, as this version of JAX traces it."""
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, jnp.dtype(d), weak_type=w) for s, d, w in avals))
    eqns = list(closed.jaxpr.eqns)
    while eqns:
        eqn = eqns.pop(0)
        if _name(eqn) == name:
            return str(_body(eqn))
        eqns.extend(getattr(_body(eqn), "eqns", []))
    return ""
