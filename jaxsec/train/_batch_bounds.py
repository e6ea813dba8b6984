"""Bounds of a whole batch of rows at once, differentiable and cheap: intervals forwards, forms walked back.

Rows stay together in one graph, where `jaxsec.bound` takes them one by one under `vmap`: there every row would have a weight gradient of
its own, summed afterwards, several times the work of training.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp

from ..bound._backward import negative, planes, positive
from ..bound._forward_pass import range_of
from ..bound._graph import Graph, UnsupportedPrimitive, scalar
from ..bound._nodes import Affine, Contract, Curve, Input, Kink, Lines, Node, Product, Range
from ..bound._run import of_model, output
from ..core import Model
from ..threat import Box, LInf, Threat
from ._losses import distribution
from ._net import Net


def graph_of(net: Net, x: jax.Array, native: bool) -> tuple[Graph, int]:
    """The net in evaluation mode as a graph of all rows, and the node of its logits.

    Raises: UnsupportedPrimitive: a value whose first axis is not the rows, such as rows folded into another axis. What mixes rows in
      place only `check_rows_apart` finds.
    """
    model = net.model()
    graph = of_model(model, x, native)
    out = output(graph)
    _check_rows(model, x, graph, out, native)
    return graph, out


def _check_rows(model: Model, x: jax.Array, graph: Graph, out: int, native: bool) -> None:
    """Forms here are a row's own; where values lie otherwise they would meet other rows' in silence. Another size of batch tells."""
    n, shapes = x.shape[0], []

    def more(x: jax.Array) -> jax.Array:
        again = of_model(model, x, native)
        shapes.extend(node.shape for node in again.nodes)
        return x

    try:
        jax.eval_shape(more, jax.ShapeDtypeStruct((n + 1, *x.shape[1:]), x.dtype))
    except (TypeError, ValueError) as e:
        raise UnsupportedPrimitive(
            f"a net that takes a batch of {n} rows and not of {n + 1} ({str(e).splitlines()[0]}). Training on bounds needs nets that take "
            "any number of rows: reshape with x.shape[0]."
        ) from e
    if len(shapes) != len(graph.nodes):
        raise UnsupportedPrimitive(
            f"a net that runs other operations for {n} rows than for {n + 1}; training on bounds needs nets that see rows one by one, and "
            "from a few rows on always in the same way."
        )
    for i in graph.ancestors(out):
        node = graph.nodes[i]
        if node.shape[:1] != (n,) or shapes[i] != (n + 1, *node.shape[1:]):
            raise UnsupportedPrimitive(
                f"a value of shape {node.shape}, of {n} rows, whose first axis is not the rows; used at {node.source}. Training on bounds "
                "needs the rows in front all along: reshape with x.shape[0] first, and move other axes."
            )


Region = Callable[[jax.Array], jax.Array]  # forms [S, B, ...] on the input -> [S, B], their least values over each row's set


class Ranges(Sequence[Range]):
    """Intervals of a graph's nodes, each computed when it is asked for: of a maximum's own parts nothing is, unless lines need them.

    Products with weights, and what only moves, scales or adds them, have (centre, radius) first; the others (lower, upper). The other form
    is made when it is asked for: `tuned` folds a bias into a convolution that nothing else reads.
    """

    def __init__(self, graph: Graph, out: int, box: Range) -> None:
        self._graph, self._box = graph, box
        self._ends: list[Range | None] = [None] * (out + 1)
        self._spreads: list[Range | None] = [None] * (out + 1)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Range:
        self._settle(index)
        if (found := self._ends[index]) is None:
            centre, radius = self.spread(index)
            found = self._ends[index] = centre - radius, centre + radius
        return found

    def spread(self, index: int) -> Range:
        """(centre, radius)."""
        self._settle(index)
        if (found := self._spreads[index]) is None:
            lo, hi = (v if _floats(v) else v.astype(jnp.float32) for v in self[index])
            found = self._spreads[index] = 0.5 * (lo + hi), 0.5 * (hi - lo)
        return found

    def _settle(self, index: int) -> None:
        """Computes a node in its first form, after what it is made of."""
        wanted, waiting = set[int](), [index]
        while waiting:
            i = waiting.pop()
            if i not in wanted and self._ends[i] is None and self._spreads[i] is None:
                wanted.add(i)
                waiting += self._sources(i)
        for i in sorted(wanted):
            self._compute(i)

    def _sources(self, index: int) -> tuple[int, ...]:
        node = self._graph.nodes[index]
        hints = () if node.hint is None else node.hint[0]
        return hints if node.tight else (*node.inputs, *hints)

    def _compute(self, index: int) -> None:
        node = self._graph.nodes[index]
        if isinstance(node, Input):
            lo, hi = self._box
            self._spreads[index] = 0.5 * (lo + hi), 0.5 * (hi - lo)
        elif node.hint is not None and node.tight:
            indices, interval = node.hint
            self._ends[index] = interval(*(self[i] for i in indices))
        elif self._spreads_first(node):
            given = [self.spread(i) for i in node.inputs]
            centre, radius = node.op(*(c for c, _ in given)), node.absolute(*(r for _, r in given))
            self._spreads[index] = centre if node.bias is None else centre + node.bias, radius
        elif _is_relu(node):
            lo, hi = self[node.inputs[0]]
            self._ends[index] = lo, hi = jax.nn.relu(lo), jax.nn.relu(hi)
            self._spreads[index] = 0.5 * (lo + hi), 0.5 * (hi - lo)
        else:
            self._ends[index] = range_of(self._graph, index, [self._box], self, False)

    def _spreads_first(self, node: Node) -> TypeGuard[Affine]:
        """`Contract.interval` has a third product, for what an unbounded input reaches; here such an interval becomes NaN."""
        if node.hint is not None or not isinstance(node, Affine) or not all(_floats(self._graph.nodes[i]) for i in node.inputs):
            return False
        return isinstance(node, Contract) or all(self._spreads[i] is not None for i in node.inputs)


def _floats(v: Any) -> bool:
    return jnp.issubdtype(v.dtype, jnp.floating)


def _is_relu(node: Node) -> bool:
    return isinstance(node, Kink) and node.hint is None and scalar(node.neg) == 0 and scalar(node.pos) == 1  # a slope may be traced


def bounded(net: Net, threat: Threat, x: jax.Array, native: bool) -> tuple[Graph, int, Region, Ranges]:
    """The graph, the node of its logits, the region, and every node's interval.

    Of a net that ends in log-softmax they are those before it: margins are the same, and intervals of exponentials may be infinite.
    """
    lo, hi = threat.interval(x)

    def region(a: jax.Array) -> jax.Array:
        if isinstance(threat, LInf | Box):
            return summed(positive(a), lo) + summed(negative(a), hi)
        return -jnp.moveaxis(threat.support(x, -jnp.moveaxis(a, 0, 1)), 1, 0)

    with jax.numpy_rank_promotion("allow"):
        graph, out = graph_of(net, x, native)
    while out in graph.apart:
        out = graph.apart[out]
    return graph, out, region, Ranges(graph, out, (lo, hi))


def margin_forms(graph: Graph, out: int, y: jax.Array) -> jax.Array:
    """[K, B, K] the forms `p - e_k` on the logits."""
    k = graph.nodes[out].shape[1]
    p = distribution(y, k).astype(graph.nodes[out].dtype)
    return p[None] - jnp.eye(k, dtype=p.dtype)[:, None]


def summed(a: jax.Array, v: Any) -> jax.Array:
    """[S, B] of `a [S, B, ...]` times what broadcasts to `[B, ...]`."""
    return jnp.sum(a * v, axis=tuple(range(2, a.ndim)))


def least(graph: Graph, out: int, a: jax.Array, region: Region, ranges: Ranges, lines: Mapping[int, Lines] | None = None) -> jax.Array:
    """[S, B] lower bounds of the forms `a [S, B, K]` on the output: with the lines of all curves and kinks by CROWN, else by IBP."""
    found = _walk(graph, out, a, region, ranges, lines, frozenset())
    if lines is not None:
        return found
    # a maximum is known better by its own interval than by the parts it is written with, and log-softmax the other way round
    hinted = frozenset(i for i in graph.ancestors(out) if graph.nodes[i].hint is not None)
    return jnp.maximum(found, _walk(graph, out, a, region, ranges, None, hinted)) if hinted else found


def _walk(
    graph: Graph, out: int, a: jax.Array, region: Region, ranges: Ranges, lines: Mapping[int, Lines] | None, ends: frozenset[int]
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
