"""Every equation of a traced program, inner programs included."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core as jex


def inner_programs(eqn: Any) -> Iterator[jex.Jaxpr | jex.ClosedJaxpr]:
    """The programs that an equation runs: bodies of calls and loops, branches."""
    for leaf in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: isinstance(v, jex.Jaxpr | jex.ClosedJaxpr)):
        if isinstance(leaf, jex.Jaxpr | jex.ClosedJaxpr):
            yield leaf


def equations(jaxpr: jex.Jaxpr) -> Iterator[Any]:
    """Depth first; the body of a loop once."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in inner_programs(eqn):
            yield from equations(inner.jaxpr if isinstance(inner, jex.ClosedJaxpr) else inner)


def rebound(eqn: Any, values: list[Any]) -> list[Any]:
    """The equation on other values, as JAX would have traced it: its custom derivative rule, if any, included."""
    if not eqn.primitive.name.startswith("custom_"):
        out = eqn.primitive.bind(*values, **eqn.params)
        return list(out) if eqn.primitive.multiple_results else [out]
    # the equation alone as a program, so that JAX itself restores the custom derivative
    free = {a: v for a, v in zip(eqn.invars, values, strict=True) if not isinstance(a, jex.Literal)}
    info = next(q.jaxpr.debug_info for q in eqn.params.values() if isinstance(q, jex.ClosedJaxpr))
    alone = jex.Jaxpr((), list(free), eqn.outvars, [eqn], eqn.effects, debug_info=info)
    return list(jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, ()))(*free.values()))
