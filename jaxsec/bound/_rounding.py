"""The rounding of floating-point arithmetic as numbers: what `sound=True` adds at every step. `docs/soundness.md` has the argument.

Both the network as a machine evaluates it and the bound's own arithmetic round. Each is bounded by the standard model of a sum:
n products added in any order differ from their exact sum by at most `gamma(n)` times the sum of their absolute values.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._graph import Graph
from ._nodes import Affine, Input, Kink, Lines, Opaque, Product, Range, certain

_SLACK = 1.02  # for the rounding of the error terms themselves
_SMALL = 1e-13  # times a slope of 1e-25, the least of a curve, it is a normal number


def unit(dtype: Any) -> float:
    """The largest relative error of one rounding."""
    return float(jnp.finfo(dtype).eps) / 2


def tiny(dtype: Any) -> float:
    """The smallest normal number: a result below it may be flushed to 0."""
    return float(jnp.finfo(dtype).tiny)


def gamma(n: int, dtype: Any) -> float:
    """`|fl(sum of n products) - sum| <= gamma * sum of absolute values`, for any order, with or without fused multiply-add.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), lemma 3.1.
    Raises: ValueError: so many terms that the bound says nothing.
    """
    nu = n * unit(dtype)
    if nu >= 0.5:
        raise ValueError(f"sums of {n} terms in {dtype} have no useful rounding bound; certify this function without sound=True.")
    return nu / (1 - nu) * _SLACK


def largest(r: Range) -> jax.Array:
    """max |x| over the range."""
    return jnp.maximum(jnp.abs(r[0]), jnp.abs(r[1]))


def numbers(r: Range) -> Range:
    """A range of truth values or integers as of numbers, which is what forms on them are made of."""
    return r if jnp.issubdtype(r[0].dtype, jnp.floating) else (r[0].astype(jnp.float32), r[1].astype(jnp.float32))


def magnitude(node: Affine, ranges: Sequence[Range]) -> jax.Array:
    """The sum of the absolute values of all that an affine node adds up."""
    total = jnp.broadcast_to(node.absolute(*(largest(r) for r in ranges)), node.shape)
    return total if node.bias is None else total + jnp.abs(node.bias)


def evaluation_error(node: Any, ranges: Sequence[Range], own: Range) -> Any:
    """How far the computed value of a node may be from the exact function of its computed inputs; 0 for what does not round.

    Curves carry theirs in their lines and ranges (`Unary`, sound=True).
    """
    dtype = node.dtype
    if not jnp.issubdtype(dtype, jnp.floating) or isinstance(node, Input):
        return 0.0
    if isinstance(node, Affine):
        if node.exact:
            return 0.0
        return gamma(node.terms() + 2, dtype) * magnitude(node, ranges) + (node.terms() + 2) * tiny(dtype)
    if isinstance(node, Kink):
        if all(isinstance(s, float) and s in (-1.0, 0.0, 1.0) for s in (node.neg, node.pos)):
            return 0.0
        return gamma(2, dtype) * largest(own) + tiny(dtype)
    if isinstance(node, Product):
        spread = jnp.abs(node.run(largest(ranges[0]), largest(ranges[1])))
        return gamma(node.summed + 2, dtype) * spread + (node.summed + 2) * tiny(dtype)
    return 0.0


def departure(node: Any, own: Range, ranges: Sequence[Range]) -> Any:
    """How far the program's own value may be from a node that says the same in another way (`Node.slack`), besides the node's rounding."""
    if node.slack is None:
        return 0.0
    indices, error = node.slack
    return error(own, *(ranges[i] for i in indices))


def widened(r: Range, error: Any) -> Range:
    """The range and `error` on both sides, rounded outward."""
    if isinstance(error, float) and error == 0:
        return r
    lo, hi = r[0] - error, r[1] + error
    u = unit(lo.dtype) * 2
    return certain(lo - u * jnp.abs(lo), hi + u * jnp.abs(hi))


@dataclasses.dataclass(frozen=True)
class Charges:
    """What a form on each node costs: `charge[i] . |form|` is taken off the constant whenever a form is moved past node i."""

    of: Mapping[int, jax.Array]
    lost: Mapping[int, jax.Array]  # and for coefficients below the smallest normal number that were flushed, whatever the form
    steps: int  # how many nodes may add to a constant

    def merging(self, r: Range) -> jax.Array:
        """What a form costs where it is the sum of two that met at a node of that range."""
        x = largest(numbers(r))
        return gamma(2, x.dtype) * jnp.where(jnp.isfinite(x), x, 0)

    def intercepts(self, a: jax.Array, line: Lines) -> jax.Array:
        """[S] the rounding of the sum of a node's intercepts, whatever lines were chosen."""
        size = jnp.maximum(jnp.abs(line.lower_at), jnp.abs(line.upper_at))
        terms = jnp.abs(a) * jnp.where(jnp.isfinite(size), size, 0)
        count = int(np.prod(a.shape[1:])) + self.steps + 8
        return gamma(count, a.dtype) * jnp.sum(terms, axis=tuple(range(1, a.ndim))) + count * tiny(a.dtype)

    def sum_of(self, form: jax.Array, r: Range, sums: Any = 1) -> jax.Array:
        """[S] the rounding of `form . range` where it is added to a constant at once: a sum over all elements.

        sums: how many such sums may each lose products below the smallest normal number.
        """
        x = largest(tuple(v.astype(form.dtype) for v in r))  # of booleans too  # pyright: ignore[reportArgumentType]
        terms = jnp.where(form == 0, 0, jnp.abs(form) * x)
        count = int(np.prod(x.shape)) + self.steps + 8
        return gamma(count, x.dtype) * jnp.sum(terms, axis=tuple(range(1, terms.ndim))) + count * tiny(x.dtype) * sums


def charges(graph: Graph, upto: int, ranges: Sequence[Range], lines: Mapping[int, Lines]) -> Charges:
    """For every node up to `upto`: the network's rounding there, and that of the bound's own arithmetic on forms and constants."""
    nodes = graph.ancestors(upto)
    consumers = graph.consumers()
    found: dict[int, jax.Array] = {}
    lost: dict[int, jax.Array] = {}
    for i in nodes:
        node = graph.nodes[i]
        inputs = [numbers(ranges[j]) for j in node.inputs]
        count = int(np.prod(node.shape)) + len(nodes) + 8
        x = largest(numbers(ranges[i]))
        dtype = x.dtype
        # a form's own last operations: one product, and one addition per reader
        total = gamma(4 + len(consumers[i]), dtype) * jnp.where(jnp.isfinite(x), x, 0)
        total = total + evaluation_error(node, inputs, ranges[i])
        if isinstance(node, Affine):  # the transposed sums: |error| <= gamma |W|^T |form|, which meets values of at most max |x|
            terms = node.fan_out
            total = total + gamma(terms + 1, dtype) * magnitude(node, inputs) + terms * tiny(dtype) if terms > 1 else total
        else:
            total = total + evaluation_error(node, inputs, ranges[i])
        total = total + departure(node, ranges[i], ranges)
        if isinstance(node, Affine) and node.bias is not None:
            total = total + gamma(count, dtype) * jnp.abs(jnp.broadcast_to(node.bias, node.shape))
        if isinstance(node, Product):
            corner = jnp.abs(node.run(largest(inputs[0]), largest(inputs[1])))
            total = total + gamma(count + 4 * node.summed, dtype) * 4 * corner
        if isinstance(node, Input | Opaque) or not node.inputs:
            total = total + gamma(count + 8, dtype) * jnp.where(jnp.isfinite(x), x, 0)
        found[i] = (jnp.broadcast_to(total, node.shape) + 8 * tiny(dtype)) * _SLACK
        readers = [graph.nodes[j] for j in consumers[i]]
        products = 4 + sum(4 + (reader.fan_out if isinstance(reader, Affine) else 4) for reader in readers)
        lost[i] = _SLACK * products * jnp.sum(tiny(dtype) * jnp.where(jnp.isfinite(x), x, 0))
    return Charges(found, lost, len(nodes))


def unseen(form: jax.Array, inputs: Sequence[Range]) -> jax.Array:
    """[S] whether coefficients are so small that the next ones may be flushed to 0, in front of values that have no end."""
    endless = [jnp.any(~jnp.isfinite(v)) for r in inputs for v in r if jnp.issubdtype(v.dtype, jnp.floating)]
    if not endless:
        return jnp.zeros(len(form), bool)
    size = jnp.abs(form)
    small = jnp.any((size > 0) & (size < _SMALL), axis=tuple(range(1, form.ndim)))
    return small & jnp.any(jnp.stack(endless))


def outer_lines(line: Lines, lo: jax.Array, hi: jax.Array) -> Lines:
    """A kink's lines moved outward by what computing them may have lost."""
    u = 8 * unit(lo.dtype)
    x = largest((lo, hi))

    def lost(slope: jax.Array, at: jax.Array) -> jax.Array:
        slack = u * (jnp.abs(slope) * x + jnp.abs(at)) + 8 * tiny(lo.dtype) * (1 + x)
        return jnp.where(jnp.isfinite(slack), slack, 0)

    return line._replace(
        lower_at=line.lower_at - lost(line.lower_slope, line.lower_at), upper_at=line.upper_at + lost(line.upper_slope, line.upper_at)
    )
