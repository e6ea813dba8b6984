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
