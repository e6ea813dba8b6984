"""ForwardLinear: linear functions of the input below and above every value, in the order of evaluation."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from ..core._struct import struct
from ._backward import backward, dense, dotted, negative, positive
from ._forms import Pair, constant, lost, settled, stepped, unknown
from ._forward_pass import intersection, range_of
from ._lines import carried, turned_lines
from ._method import BoundMethod, by_intervals
from ._nodes import Affine, Curve, Input, Kink, Lines, Opaque, Product, Range
from ._problem import Problem
from ._rounding import departure, largest

# Arrays of inputs x a layer's elements that one step holds: the functions before and after it, and what they are made of by sign.
_HELD = 12


@struct
class ForwardLinear(BoundMethod):
    """Two linear functions of the input below and above every value, carried from the input to the output.

    For networks with few inputs: one pass bounds every output and every layer, where CROWN walks back once for every element of each.
    Guarantee: at least as tight as `IBP`; between it and `CROWN` as a rule, because a function is bounded before it is known what the
      rest of the network does with it. Differentiable in reverse mode.
    Cost: two forward passes per input element. Memory: inputs x elements of the largest layer, for every row, twelve times; more than
      the budget is refused, because a norm over the inputs cannot be taken in pieces: bound fewer rows at a time, or use `CROWN`.
    Raises: ValueError: the forms do not fit the budget.
    Source: Xu et al. 2020 (LiRPA), section 3.1, "forward mode"; the last affine layers are merged with the forms asked for, and every range
      is intersected with that of intervals.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.bound import IBP, ForwardLinear, bound
      >>> box = (jnp.array([0.0]), jnp.array([1.0]))
      >>> [float(bound(lambda x: jnp.maximum(x + 1, 0) - x, box, method=m).lo[0]) for m in (IBP(), ForwardLinear())]
      [0.0, 1.0]
    """

    name: ClassVar[str] = "forward"

    def lower(self, problem: Problem) -> jax.Array:
        walk = propagated(problem)
        return jnp.maximum(walk.least(), by_intervals(problem, walk.ranges))


@dataclasses.dataclass(frozen=True)
class Walk:
    """What is known of every node up to the output."""

    problem: Problem
    ranges: list[Range]
    lines: Mapping[int, Lines]
    pairs: Mapping[int, Pair]  # of what depends on the input by floating-point numbers

    def least(self) -> jax.Array:
        """[S] the problem's forms, through the affine end of the graph, on the functions of the input that reach it."""
        problem, out, ends = self.problem, self.problem.out, {}
        charged = problem.charges(out, self.ranges, self.lines) if problem.sound else None
        how = {"charged": charged, "stop": True, "ends": ends}
        found, at = backward(problem.graph, out, problem.spec, problem.at, self.ranges, {}, **how)
        shape, reach = (len(at), -1), reach_of(problem)
        blocks = (found.get(i, jnp.zeros((len(at), *lo.shape), at.dtype)) for i, (lo, _) in _inputs(problem))
        total = jnp.concatenate([dense(block).reshape(shape) for block in blocks], 1)
        for index, form in ends.items():
            p, up, down = self.pairs.get(index), positive(form), negative(form)
            if p is None:  # of booleans and integers only the range is known
                lo, hi = self.ranges[index]
                p = constant((lo.astype(form.dtype), hi.astype(form.dtype)), total.shape[1])
            axes = "sn,dn->sd"
            for part, a in ((up, p.low), (down, p.high)):
                total = total + jnp.einsum(axes, part.reshape(shape), a.reshape(len(a), -1), precision=lax.Precision.HIGHEST)
            at = at + dotted(up, p.low_at) + dotted(down, p.high_at)
            if charged is not None:
                # coefficients and constants are sums over the node's elements; twice: of both signs, and with what other nodes add
                size = p.size(reach)
                at = at - 2 * charged.sum_of(form, (-size, size), 1 + jnp.sum(reach))
        return problem.least(_split(problem, total), at)


def propagated(problem: Problem) -> Walk:
    """All nodes in the order of evaluation: a range, lines where it is curved, and the two functions of the input."""
    graph, sound = problem.graph, problem.sound
    fits(problem)
    directions = sum(lo.size for _, (lo, _) in _inputs(problem))
    reach = reach_of(problem)
    wanted = set(carried(graph, problem.out))
    ranges: list[Range] = []
    lines: dict[int, Lines] = {}
    pairs: dict[int, Pair] = {}
    for index, node in enumerate(graph.nodes[: problem.out + 1]):
        own = range_of(graph, index, problem.inputs, ranges, sound)
        inputs = [ranges[i] for i in node.inputs]
        if isinstance(node, Kink | Curve):
            lines[index] = turned_lines(node, *inputs[0], None, sound)
        if isinstance(node, Input):
            pairs[index] = _identity(problem, node.position, directions, own)
        elif isinstance(node, Opaque) or any(i not in pairs for i in node.inputs):
            if jnp.issubdtype(node.dtype, jnp.floating):
                pairs[index] = constant(own, directions)
        else:
            before = [pairs[i] for i in node.inputs]
            wild = [~p.known() for p in before]
            if isinstance(node, Product):
                wild = [w | ~(jnp.isfinite(lo) & jnp.isfinite(hi)) for w, (lo, hi) in zip(wild, inputs, strict=True)]
                inputs = [(jnp.where(w, 0, lo), jnp.where(w, 0, hi)) for w, (lo, hi) in zip(wild, inputs, strict=True)]
            before = [p.cleaned() for p in before]
            line = lines.get(index)
            pair, error = stepped(node, before, inputs, line), 0.0
            if sound and not (isinstance(node, Affine) and node.exact):
                error = lost(node, [p.size(reach) for p in before], inputs, own, line, reach)
            if sound:
                error = error + departure(node, own, ranges)
            pairs[index] = settled(pair, own, unknown(node, wild), error)
        if index in wanted:
            own = intersection(own, concretised(problem, pairs[index]))
        ranges.append(own)
    return Walk(problem, ranges, lines, pairs)


def concretised(problem: Problem, p: Pair) -> Range:
    """A node's range from its two functions."""
    shape = p.low_at.shape

    def least(a: jax.Array, at: jax.Array) -> jax.Array:
        return problem.least(_split(problem, a.reshape(len(a), -1).T), at.reshape(-1)).reshape(shape)

    return least(p.low, p.low_at), -least(-p.high, -p.high_at)


def reach_of(problem: Problem) -> jax.Array:
    """[D] the largest |x| of every input element."""
    return jnp.concatenate([largest(r).reshape(-1) for _, r in _inputs(problem)])


def fits(problem: Problem) -> None:
    """Raises ValueError where the pairs of the largest layer, of all rows, take more than the budget."""
    graph = problem.graph
    directions = sum(lo.size for _, (lo, _) in _inputs(problem))
    own: set[int] = set()  # nodes behind a curve: before it the functions are the network's alone, the same in every row
    need = 0
    for index in graph.ancestors(problem.out)[::-1]:
        node = graph.nodes[index]
        if any(i in own for i in node.inputs) or not isinstance(node, Input | Affine):
            own.add(index)
        rows = problem.rows if index in own else 1
        need = max(need, _HELD * jnp.dtype(node.dtype).itemsize * directions * math.prod(node.shape) * rows)
    if need > problem.budget:
        raise ValueError(
            f"ForwardLinear carries {directions} coefficients (one per input element) for every element of a layer: "
            f"{need >> 20} MiB for {problem.rows} rows at once, and the budget is {problem.budget >> 20} MiB. Bound fewer rows at a time "
            "(certify's max_rows), raise budget, or use CROWN(), which walks back from the outputs."
        )


def _inputs(problem: Problem) -> list[tuple[int, Range]]:
    return list(enumerate(problem.inputs))


def _identity(problem: Problem, position: int, directions: int, own: Range) -> Pair:
    """An input is itself."""
    lo = own[0]
    before = sum(r[0].size for _, r in _inputs(problem)[:position])
    eye = jnp.eye(directions, lo.size, -before, lo.dtype).reshape(directions, *lo.shape)
    zero = jnp.zeros_like(lo)
    return Pair(eye, zero, eye, zero)


def _split(problem: Problem, forms: jax.Array) -> dict[int, Any]:
    """[S, D] as forms on each input."""
    found, start = {}, 0
    for position, (lo, _) in _inputs(problem):
        found[position] = forms[:, start : start + lo.size].reshape(len(forms), *lo.shape)
        start += lo.size
    return found
