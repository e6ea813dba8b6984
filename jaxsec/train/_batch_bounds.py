"""Bounds of a whole batch of rows at once, differentiable and cheap: intervals forwards, forms walked back.

Rows stay together in one graph, where `jaxsec.bound` takes them one by one under `vmap`: there every row would have a weight gradient of
its own, summed afterwards, several times the work of training.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..bound._backward import negative, planes, positive
from ..bound._forward_pass import range_of
from ..bound._graph import Graph, scalar
from ..bound._nodes import Affine, Contract, Curve, Input, Kink, Lines, Move, Node, Product, Range, Scale
from ..bound._run import of_model, output
from ..threat import Box, LInf, Threat
from ._losses import distribution
from ._net import Net


def graph_of(net: Net, x: jax.Array, native: bool) -> tuple[Graph, int]:
    """The net in evaluation mode as a graph of all rows, and the node of its logits."""
    graph = of_model(net.model(), x, native)
    return graph, output(graph)


Region = Callable[[jax.Array], jax.Array]  # forms [S, B, ...] on the input -> [S, B], their least values over each row's set


class _Ranges(Sequence[Range]):
    """Intervals of nodes, each as (lower, upper) or as (centre, radius); the other form is made when it is asked for.

    `tuned` folds a bias into a convolution that nothing else reads, so a form that nobody asked for must not be in the program.
    """

    def __init__(self) -> None:
        self._ends: list[Range | None] = []
        self.spreads: dict[int, Range] = {}

    def add(self, ends: Range) -> None:
        self._ends.append(ends)

    def add_spread(self, centre: jax.Array, radius: jax.Array) -> None:
        self.spreads[len(self._ends)] = centre, radius
        self._ends.append(None)

    def spread(self, index: int) -> Range:
        if index in self.spreads:
            return self.spreads[index]
        lo, hi = self[index]
        return 0.5 * (lo + hi), 0.5 * (hi - lo)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        found = self._ends[index]
        if found is None:
            centre, radius = self.spreads[index]
            found = self._ends[index] = centre - radius, centre + radius
        return found


def _spread(node: Node, ranges: _Ranges) -> Range | None:
    """(centre, radius) of products with weights and ReLUs, and of what only moves or shifts one of them; None for another node.

    `Contract.interval` has a third product, for what an unbounded input reaches; here such an interval becomes NaN.
    """
    if node.hint is not None or len(node.inputs) != 1:
        return None
    (i,) = node.inputs
    if isinstance(node, Kink) and scalar(node.neg) == 0 and scalar(node.pos) == 1:  # a slope may be traced
        lo, hi = (jax.nn.relu(v) for v in ranges[i])
        return 0.5 * (lo + hi), 0.5 * (hi - lo)
    if isinstance(node, Contract) or (isinstance(node, Scale | Move) and i in ranges.spreads):
        centre, radius = ranges.spread(i)
        centre = node.op(centre)
        return centre if node.bias is None else centre + node.bias, node.absolute(radius)
    return None


def bounded(net: Net, threat: Threat, x: jax.Array, native: bool) -> tuple[Graph, int, Region, _Ranges]:
    """The graph, its output, the region, and every node's interval."""
    lo, hi = threat.interval(x)

    def region(a: jax.Array) -> jax.Array:
        if isinstance(threat, LInf | Box):
            return summed(positive(a), lo) + summed(negative(a), hi)
        return -jnp.moveaxis(threat.support(x, -jnp.moveaxis(a, 0, 1)), 1, 0)

    with jax.numpy_rank_promotion("allow"):
        graph, out = graph_of(net, x, native)
        ranges = _Ranges()
        for index, node in enumerate(graph.nodes[: out + 1]):
            if isinstance(node, Input):
                ranges.add_spread(0.5 * (lo + hi), 0.5 * (hi - lo))
            elif (spread := _spread(node, ranges)) is not None:
                ranges.add_spread(*spread)
            else:
                ranges.add(range_of(graph, index, [(lo, hi)], ranges, False))
    return graph, out, region, ranges


def margin_forms(graph: Graph, out: int, y: jax.Array) -> jax.Array:
    """[K, B, K] the forms `p - e_k` on the logits."""
    k = graph.nodes[out].shape[1]
    p = distribution(y, k).astype(graph.nodes[out].dtype)
    return p[None] - jnp.eye(k, dtype=p.dtype)[:, None]


def summed(a: jax.Array, v: Any) -> jax.Array:
    """[S, B] of `a [S, B, ...]` times what broadcasts to `[B, ...]`."""
    return jnp.sum(a * v, axis=tuple(range(2, a.ndim)))


def least(graph: Graph, out: int, a: jax.Array, region: Region, ranges: _Ranges, lines: Mapping[int, Lines] | None = None) -> jax.Array:
    """[S, B] lower bounds of the forms `a [S, B, K]` on the output: with the lines of all curves and kinks by CROWN, else by IBP."""
    found = _walk(graph, out, a, region, ranges, lines, frozenset())
    if lines is not None:
        return found
    # a maximum is known better by its own interval than by the parts it is written with, and log-softmax the other way round
    hinted = frozenset(i for i in graph.ancestors(out) if graph.nodes[i].hint is not None)
    return jnp.maximum(found, _walk(graph, out, a, region, ranges, None, hinted)) if hinted else found


def _walk(
    graph: Graph, out: int, a: jax.Array, region: Region, ranges: _Ranges, lines: Mapping[int, Lines] | None, ends: frozenset[int]
) -> jax.Array:
    """One walk back, rows side by side (`bound._backward` has one row). It ends at the nodes `ends`, and at others than affine ones without
    `lines`, with their intervals."""
    waiting, at = {out: a}, jnp.zeros(a.shape[:2], a.dtype)
    with jax.numpy_rank_promotion("allow"):
        for index in graph.ancestors(out):
            form = waiting.pop(index, None)
            if form is None:
                continue
            node = graph.nodes[index]
            up, down = positive(form), negative(form)
            parts: Sequence[jax.Array] = ()
            if isinstance(node, Input):
                at = at + region(form)
            elif isinstance(node, Affine) and index not in ends:
                parts = transposed(node, form)
                at = at if node.bias is None else at + summed(form, node.bias)
            elif isinstance(node, Kink | Curve) and lines is not None:
                line = lines[index]
                parts = [up * line.lower_slope + down * line.upper_slope]
                at = at + summed(up, line.lower_at) + summed(down, line.upper_at)
            elif isinstance(node, Product) and lines is not None:
                (x0, _), (y0, y1) = (ranges[i] for i in node.inputs)
                parts, _ = planes(node, form, *(ranges[i] for i in node.inputs))
                at = at - summed(up, node.run(x0, y0)) - summed(down, node.run(x0, y1))
            else:
                centre, radius = ranges.spread(index)
                at = at + summed(form, centre) - summed(jnp.abs(form), radius)
            for i, part in zip(node.inputs if parts else (), parts, strict=True):
                waiting[i] = waiting[i] + part if i in waiting else part
    return at


def transposed(node: Affine, form: jax.Array) -> list[jax.Array]:
    """Forms on the value as forms on the inputs; those of a convolution join the batch, where its kernel is one for all of them."""
    if not isinstance(node, Contract) or node.conv is None:
        return node.transpose(form)
    (s, b), shape = form.shape[:2], node.input_shapes[0]
    _, pull = jax.vjp(node.op, jnp.zeros((s * b, *shape[1:]), form.dtype))
    return [pull(form.reshape(s * b, *form.shape[2:]))[0].reshape(s, b, *shape[1:])]
