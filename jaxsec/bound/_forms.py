"""Two linear functions of the input below and above a node's value, and their way through every kind of node, towards the output.

Source: Xu et al. 2020 (LiRPA), section 3.1, "forward mode", equations of appendix A: a step multiplies the lower function where its
coefficient is positive and the upper one where it is negative, the same for constants. Here each step also knows what rounding costs.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._backward import negative, positive
from ._nodes import Affine, Contract, Lines, Node, Product, Range, Scale, Sum
from ._rounding import evaluation_error, gamma, largest, tiny, widened


class Pair(NamedTuple):
    """`sum_d low[d] x[d] + low_at <= value <= sum_d high[d] x[d] + high_at` for every input x of the region.

    low, high [D, *shape] are finite; where nothing is known they are 0, and the constants [*shape] infinite.
    """

    low: jax.Array
    low_at: jax.Array
    high: jax.Array
    high_at: jax.Array

    def known(self) -> jax.Array:
        """[*shape] where both functions say something."""
        return jnp.isfinite(self.low_at) & jnp.isfinite(self.high_at)

    def cleaned(self) -> "Pair":
        """Zeros where nothing is known: 0 * inf would spread."""
        ok = self.known()
        return Pair(*(jnp.where(ok, v, 0) for v in self))

    def size(self, reach: jax.Array) -> jax.Array:
        """[*shape] the sum of the absolute values of all terms, either function's; reach [D]: the largest |x|."""
        terms = jnp.maximum(jnp.abs(self.low), jnp.abs(self.high)) * reach.reshape(-1, *(1,) * (self.low.ndim - 1))
        at = jnp.maximum(jnp.abs(self.low_at), jnp.abs(self.high_at))
        return (jnp.sum(terms, 0) + at) * (1 + gamma(len(reach) + 4, at.dtype)) + len(reach) * tiny(at.dtype)


def constant(own: Range, directions: int) -> Pair:
    """What only an interval knows."""
    zero = jnp.zeros((directions, *own[0].shape), own[0].dtype)
    return Pair(zero, own[0], zero, own[1])


def signed(node: Affine) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The linear part as a sum of two: coefficients above 0, and below."""
    if isinstance(node, Scale) and node.scale is not None:
        scale = jnp.asarray(node.scale)
        return lambda x: x * positive(scale), lambda x: x * negative(scale)
    if isinstance(node, Contract):
        return lambda x: node.run(positive(node.weights), x), lambda x: node.run(negative(node.weights), x)
    if isinstance(node, Sum) and node.sign < 0:
        return lambda x, y: x, lambda x, y: -y
    return node.op, lambda *xs: jnp.zeros((), node.dtype)  # sums and moves


def stepped(node: Node, pairs: Sequence[Pair], inputs: Sequence[Range], line: Lines | None) -> Pair:
    """The pair of a node with linear or lined operation, from those of its inputs; exact arithmetic."""
    if isinstance(node, Affine):
        return _affine(node, pairs)
    if isinstance(node, Product):
        return _product(node, pairs[0], pairs[1], *inputs)
    assert line is not None
    (p,) = pairs
    a, b = line.lower_slope, line.upper_slope
    return Pair(
        jnp.where(a >= 0, a * p.low, a * p.high),
        jnp.where(a >= 0, a * p.low_at, a * p.high_at) + line.lower_at,
        jnp.where(b >= 0, b * p.high, b * p.low),
        jnp.where(b >= 0, b * p.high_at, b * p.low_at) + line.upper_at,
    )


def _affine(node: Affine, pairs: Sequence[Pair]) -> Pair:
    above, below = signed(node)
    bias = 0 if node.bias is None else node.bias

    def op(xs: Any, ys: Any) -> jax.Array:
        return jnp.broadcast_to(above(*xs) + below(*ys), node.shape).astype(node.dtype)

    lows, highs = [p.low for p in pairs], [p.high for p in pairs]
    low_ats, high_ats = [p.low_at for p in pairs], [p.high_at for p in pairs]
    each = jax.vmap(op)
    return Pair(each(lows, highs), op(low_ats, high_ats) + bias, each(highs, lows), op(high_ats, low_ats) + bias)


def _product(node: Product, p: Pair, q: Pair, x: Range, y: Range) -> Pair:
    """McCormick's planes, those of `_backward.planes`: `c x + a y - a c` below, `d x + a y - a d` above."""
    (a, _), (c, d) = x, y
    run = node.run

    def plane(x_low: Any, x_high: Any, y_low: Any, y_high: Any, v: jax.Array) -> jax.Array:
        """The least of `v x + a y`, given the least and the greatest of both."""
        along_x = run(x_low, positive(v)) + run(x_high, negative(v))
        return along_x + run(positive(a), y_low) + run(negative(a), y_high)

    def each(*args: Any, v: jax.Array) -> jax.Array:
        return jax.vmap(lambda s, t, u, w: plane(s, t, u, w, v))(*args)

    return Pair(
        each(p.low, p.high, q.low, q.high, v=c),
        plane(p.low_at, p.high_at, q.low_at, q.high_at, c) - run(a, c),
        each(p.high, p.low, q.high, q.low, v=d),
        plane(p.high_at, p.low_at, q.high_at, q.low_at, d) - run(a, d),
    )


def unknown(node: Node, wild: Sequence[jax.Array]) -> jax.Array:
    """[*shape] what has a part in an element of the inputs of which nothing is known."""
    parts = [w.astype(node.dtype) for w in wild]
    if isinstance(node, Affine):
        return jnp.broadcast_to(node.absolute(*parts), node.shape) > 0
    if isinstance(node, Product):
        x, y = parts
        return node.run(x, jnp.ones_like(y)) + node.run(jnp.ones_like(x), y) > 0
    return wild[0]


def lost(node: Node, sizes: Sequence[jax.Array], inputs: Sequence[Range], own: Range, line: Lines | None, reach: jax.Array) -> jax.Array:
    """[*shape] the rounding of one step: of the machine that evaluates the node, and of the coefficients and constants computed here.

    sizes: `Pair.size` of the inputs. An error of a coefficient meets |x| <= reach, so the errors of all of a form's coefficients
    together are at most gamma(number of terms) times the size of the terms, through the node's absolute values.
    """
    dtype = node.dtype
    if isinstance(node, Affine):
        n = 2 * node.terms() + 4  # both signs' sums, their sum, the bias
        terms = jnp.broadcast_to(node.absolute(*sizes), node.shape)
        terms = terms if node.bias is None else terms + jnp.abs(node.bias)
    elif isinstance(node, Product):
        x, y = (largest(r) for r in inputs)
        n = 4 * node.summed + 8
        terms = jnp.abs(node.run(sizes[0], y)) + jnp.abs(node.run(x, sizes[1])) + jnp.abs(node.run(x, y))
    else:
        assert line is not None
        n = 4
        slope = jnp.maximum(jnp.abs(line.lower_slope), jnp.abs(line.upper_slope))
        at = jnp.maximum(jnp.abs(line.lower_at), jnp.abs(line.upper_at))
        terms = slope * sizes[0] + at
    flushed = n * tiny(dtype) * (2 + 1.02 * jnp.sum(reach))
    return gamma(n, dtype) * terms + flushed + evaluation_error(node, inputs, own)


def settled(p: Pair, own: Range, wild: jax.Array, error: Any) -> Pair:
    """The constants moved outward by `error`; the interval itself where nothing else is known."""
    low_at, high_at = widened((p.low_at, p.high_at), error)

    def kept(a: jax.Array, at: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
        ok = ~wild & jnp.isfinite(at) & jnp.all(jnp.isfinite(a), 0)
        return jnp.where(ok, a, 0), jnp.where(ok, at, end)

    return Pair(*kept(p.low, low_at, own[0]), *kept(p.high, high_at, own[1]))
