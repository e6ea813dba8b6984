"""Calls and control flow: entered, unrolled, or chosen, so that every other rule sees plain operations only."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from ._build import moved
from ._composites import composite
from ._graph import Graph, Ref, UnsupportedPrimitive, Value, concrete, evaluate, rule, steady
from ._rules_choice import among

_MOST_ROUNDS = 10_000


def _body(program: Any) -> tuple[jex.Jaxpr, list[Any]]:
    return (program.jaxpr, list(program.consts)) if isinstance(program, jex.ClosedJaxpr) else (program, [])


@rule("jit", "pjit", "closed_call", "core_call", "call", "checkpoint", "remat", "remat2", "custom_jvp_call", "custom_vjp_call", "composite")
def _call(graph: Graph, eqn: Any, *values: Value) -> list[Value]:
    if (found := composite(graph, eqn, values)) is not None:
        return [found]
    program = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr") or eqn.params.get("fun_jaxpr")
    jaxpr, consts = _body(program)
    return evaluate(graph, jaxpr, consts, list(values))


@rule("scan")
def _scan(graph: Graph, eqn: Any, *values: Value) -> list[Value]:
    """Unrolled: `length` is static."""
    p = eqn.params
    if p["length"] > _MOST_ROUNDS:
        raise UnsupportedPrimitive(f"a scan of more than {_MOST_ROUNDS} steps, which is unrolled; used at {graph.source}.")
    jaxpr, consts = _body(p["jaxpr"])
    carried = _same_rank(eqn.outvars, jaxpr.outvars)
    last = _same_rank(eqn.invars, jaxpr.invars)
    fixed, carry, xs = list(values[: last - carried]), list(values[last - carried : last]), values[last:]
    steps = range(p["length"])
    rows: list[list[Value]] = []
    for i in reversed(steps) if p["reverse"] else steps:
        row = [moved(graph, (x,), lambda v, i=i: v[i]) if isinstance(x, Ref) else steady(lambda v, i=i: v[i], x) for x in xs]
        out = evaluate(graph, jaxpr, consts, [*fixed, *carry, *row])
        carry = out[:carried]
        rows.append(out[carried:])
    rows = rows[::-1] if p["reverse"] else rows
    stacked = [v.aval for v in eqn.outvars[carried:]]
    return [*carry, *(_stack(graph, [row[k] for row in rows], aval) for k, aval in enumerate(stacked))]


def _same_rank(outer: Any, inner: Any) -> int:
    """How many of a scan's values are its body's as they are; those it goes along have one more axis. Parameters say it too, in names that
    JAX 0.11 has changed."""
    return sum(len(a.aval.shape) == len(b.aval.shape) for a, b in zip(outer, inner, strict=True))


def _stack(graph: Graph, rows: list[Value], aval: Any) -> Value:
    refs = [i for i, r in enumerate(rows) if isinstance(r, Ref)]
    rest = [i for i, r in enumerate(rows) if not isinstance(r, Ref)]

    def stacked(given: dict[int, Any]) -> Any:
        zero = jnp.zeros(aval.shape[1:], aval.dtype)
        return jnp.stack([given.get(i, zero) for i in range(len(rows))]) if rows else jnp.zeros(aval.shape, aval.dtype)

    known = None
    if rest or not rows:
        known = steady(
            lambda *vs: stacked({i: jnp.asarray(v, aval.dtype) for i, v in zip(rest, vs, strict=True)}), *(rows[i] for i in rest)
        )
    if not refs:
        return known
    return moved(graph, tuple(rows[i] for i in refs), lambda *xs: stacked(dict(zip(refs, xs, strict=True))), known)


@rule("while")
def _while(graph: Graph, eqn: Any, *values: Value) -> list[Value]:
    """Unrolled while the condition is a plain number."""
    p = eqn.params
    c, b = p["cond_nconsts"], p["body_nconsts"]
    cond_consts, body_consts, carry = list(values[:c]), list(values[c : c + b]), list(values[c + b :])
    (test, test_consts), (body, consts) = _body(p["cond_jaxpr"]), _body(p["body_jaxpr"])
    for _ in range(_MOST_ROUNDS):
        (more,) = evaluate(graph, test, test_consts, [*cond_consts, *carry])
        decided = None if isinstance(more, Ref) else concrete(more)
        if decided is None:
            raise UnsupportedPrimitive(
                f"a loop whose number of rounds depends on the input or on traced values; used at {graph.source}. "
                "Use a fixed number of rounds (jax.lax.fori_loop with Python integers, or scan)."
            )
        if not decided:
            return carry
        carry = evaluate(graph, body, consts, [*body_consts, *carry])
    raise UnsupportedPrimitive(f"a loop of more than {_MOST_ROUNDS} rounds; used at {graph.source}.")


@rule("cond")
def _cond(graph: Graph, eqn: Any, index: Value, *values: Value) -> list[Value]:
    """The branch taken, where that is known; else all branches, and whichever may be taken."""
    branches = [_body(b) for b in eqn.params["branches"]]
    decided = None if isinstance(index, Ref) else concrete(index)
    if decided is not None:
        jaxpr, consts = branches[int(np.clip(decided, 0, len(branches) - 1))]
        return evaluate(graph, jaxpr, consts, list(values))
    results = [evaluate(graph, jaxpr, consts, list(values)) for jaxpr, consts in branches]
    pick = among if isinstance(index, Ref) else _switched
    return [pick(graph, v.aval, index, column) for column, v in zip(zip(*results, strict=True), eqn.outvars, strict=True)]


def _switched(graph: Graph, aval: Any, index: Any, cases: tuple[Value, ...]) -> Value:
    """By a traced index that does not depend on the input."""
    refs = [i for i, c in enumerate(cases) if isinstance(c, Ref)]

    def chosen(given: dict[int, Any]) -> Any:
        zero = jnp.zeros(aval.shape, aval.dtype)
        which = jnp.clip(jnp.asarray(index, jnp.int32), 0, len(cases) - 1)
        return lax.select_n(which, *(jnp.asarray(given.get(i, zero), aval.dtype) for i in range(len(cases))))

    known = {i: c for i, c in enumerate(cases) if not isinstance(c, Ref)}
    bias = chosen(known) if known else None
    if not refs:
        return bias
    return moved(graph, tuple(cases[i] for i in refs), lambda *xs: chosen(dict(zip(refs, xs, strict=True))), bias)
