"""Which nodes need lines, and the lines of all of them from their inputs' ranges."""

from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp

from ._graph import Graph
from ._nodes import Curve, Input, Kink, Lines, Move, Opaque, Product, Range, Scale, held
from ._rounding import outer_lines


def curved(graph: Graph, upto: int) -> list[int]:
    """Nodes with lines before `upto`."""
    return [i for i in graph.ancestors(upto)[::-1] if isinstance(graph.nodes[i], Kink | Curve)]


def lines_of(
    graph: Graph,
    upto: int,
    ranges: Sequence[Range],
    *,
    sound: bool = False,
    done: Collection[int] = (),
) -> dict[int, Lines]:
    """The lines of every curve and kink that `upto` is made of, each by the node's own choice; done: nodes that have theirs already."""
    found = {}
    for i in curved(graph, upto):
        if i in done:
            continue
        node = graph.nodes[i]
        assert isinstance(node, Kink | Curve)
        found[i] = turned_lines(node, *ranges[node.inputs[0]], None, sound)
    return found


def turned_lines(node: Kink | Curve, lo: jax.Array, hi: jax.Array, t: jax.Array | None, sound: bool) -> Lines:
    """A node's lines at the parameters t, or by its own choice; moved outward by their rounding where `sound`."""
    if isinstance(node, Curve):
        return node.lines(lo, hi, t, sound)
    line = node.lines(lo, hi, t)
    if t is None:
        line = Lines(*held(tuple(line)))
    return outer_lines(line, lo, hi) if sound else line


def targets(graph: Graph, upto: int) -> list[int]:
    """Nodes whose ranges the lines up to `upto` depend on, in order: what curves, kinks, products and opaque nodes read."""
    wanted = set()
    for i in graph.ancestors(upto):
        node = graph.nodes[i]
        if isinstance(node, Kink | Curve | Product | Opaque):
            wanted.update(node.inputs)
    return sorted(i for i in wanted if jnp.issubdtype(graph.nodes[i].dtype, jnp.floating))  # a truth value has no lines


def is_copy_of_input(graph: Graph, index: int) -> bool:
    """Each element is one element of the input, scaled: its interval is exact for a box."""
    while not isinstance(graph.nodes[index], Input):
        node = graph.nodes[index]
        single = isinstance(node, Scale) or (isinstance(node, Move) and node.summed == 1 and len(node.inputs) == 1)
        if not single:
            return False
        index = node.inputs[0]
    return True


def carried(graph: Graph, out: int) -> list[int]:
    """The targets whose ranges are worth tightening, in order: not the output itself, nor what is the input, scaled."""
    return [t for t in targets(graph, out) if t != out and not is_copy_of_input(graph, t)]


def only_sign_matters(graph: Graph, index: int, consumers: Sequence[Sequence[int]]) -> bool:
    """All that read the node are kinks, which are exact where the sign is known."""
    return all(isinstance(graph.nodes[i], Kink) for i in consumers[index])
