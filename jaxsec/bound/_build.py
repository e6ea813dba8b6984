"""How nodes are put together: every rule adds to the graph by these, whether its values are known or depend on the input."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._graph import Graph, Ref, UnsupportedPrimitive, Value, scalar, steady
from ._nodes import Curve, Kink, Move, Opaque, Product, Range, Scale, Sum
from ._unary import UNARY
from ._unary_rounding import errors


def floating(graph: Graph, x: Ref) -> bool:
    return bool(jnp.issubdtype(graph.node(x).dtype, jnp.floating))


def arithmetic(graph: Graph, x: Ref, what: str) -> None:
    """Integers wrap around and truth values are not numbers: no rule bounds their sums and products."""
    if not floating(graph, x):
        raise UnsupportedPrimitive(
            f"{what} of {graph.node(x).dtype} values that depend on the input; used at {graph.source}. "
            "Integers wrap around, which no rule bounds: convert to a floating type before, with .astype(jnp.float32). "
            "Nor has a value a bound whose place (an index) depends on the input."
        )


def moved(graph: Graph, xs: tuple[Ref, ...], run: Any, bias: Any = None, summed: int = 1, over: tuple[int, ...] = ()) -> Ref:
    """A linear operation without negative coefficients. Of one input and `summed` 1, it copies elements or leaves zeros."""
    nodes = [graph.node(x) for x in xs]
    out = jax.eval_shape(run, *[jax.ShapeDtypeStruct(n.shape, n.dtype) for n in nodes])
    node = Move(inputs=tuple(x.index for x in xs), shape=out.shape, dtype=out.dtype, run=run, bias=bias, summed=summed, over=over)
    return graph.add(node)


def spread(graph: Graph, x: Ref, shape: tuple[int, ...]) -> Ref:
    """x broadcast to `shape`."""
    if graph.node(x).shape == shape:
        return x
    return graph.once((x, shape), lambda: moved(graph, (x,), lambda v: jnp.broadcast_to(v, shape)))


def scaled(graph: Graph, x: Ref, scale: Any = None, bias: Any = None, fresh: bool = False) -> Ref:
    """`scale * x + bias`, elementwise, x spread over the result's shape first.

    fresh: not shared with what the program itself writes like this, because a hint that follows is about another way to compute it.
    """
    arithmetic(graph, x, "a sum or product")
    node = graph.node(x)
    x = spread(graph, x, jnp.broadcast_shapes(node.shape, *(jnp.shape(v) for v in (scale, bias) if v is not None)))
    scale = None if scale is None or scalar(scale) == 1 else _cast(scale, node.dtype)
    bias = None if bias is None or scalar(bias) == 0 else _cast(bias, node.dtype)
    if scale is None and bias is None:
        return x
    made = Scale(inputs=(x.index,), shape=graph.node(x).shape, dtype=node.dtype, scale=scale, bias=bias)
    s, b = scalar(scale), scalar(bias)
    if fresh or (s is None) != (scale is None) or (b is None) != (bias is None):
        return graph.add(made)
    return graph.once(("scale", x, s, b), lambda: graph.add(made))


def _cast(v: Any, dtype: Any) -> jax.Array:
    return steady(lambda v: jnp.asarray(v, dtype), v)


def negated(graph: Graph, x: Value) -> Value:
    return scaled(graph, x, -1) if isinstance(x, Ref) else steady(lambda v: -jnp.asarray(v), x)


def summed(graph: Graph, x: Value, y: Value, sign: int = 1, fresh: bool = False) -> Value:
    """`x + sign * y` of any two values."""
    if isinstance(x, Ref) and isinstance(y, Ref):
        if x == y:
            return scaled(graph, x, 1 + sign)
        arithmetic(graph, x, "a sum")
        x, y = alike(graph, x, y)
        node = graph.node(x)
        made = Sum(inputs=(x.index, y.index), shape=node.shape, dtype=node.dtype, sign=sign)
        return graph.add(made) if fresh else graph.once(("sum", x, y, sign), lambda: graph.add(made))
    if isinstance(x, Ref):
        return scaled(graph, x, bias=y if sign > 0 else negated(graph, y), fresh=fresh)
    if isinstance(y, Ref):
        return scaled(graph, y, None if sign > 0 else -1, x, fresh)
    return steady(lambda a, b: jnp.asarray(a) + sign * jnp.asarray(b), x, y)


def alike(graph: Graph, x: Ref, y: Ref) -> tuple[Ref, Ref]:
    """Both in their common shape."""
    shape = jnp.broadcast_shapes(graph.node(x).shape, graph.node(y).shape)
    return spread(graph, x, shape), spread(graph, y, shape)


def product(graph: Graph, x: Ref, y: Ref) -> Ref:
    """`x * y` elementwise, with nothing recognised in it."""
    arithmetic(graph, x, "a product")
    x, y = alike(graph, x, y)
    node = graph.node(x)
    return graph.add(Product(inputs=(x.index, y.index), shape=node.shape, dtype=node.dtype))


def curve(graph: Graph, x: Ref, name: str, *args: Any) -> Ref:
    """A named curve of each element of x."""
    node = graph.node(x)
    made = Curve(inputs=(x.index,), shape=node.shape, dtype=node.dtype, unary=UNARY[name](*args))
    return graph.once((name, args, x), lambda: graph.add(made))


def kink(graph: Graph, x: Ref, neg: Any, pos: Any) -> Ref:
    """`neg x` below 0, `pos x` above."""
    arithmetic(graph, x, "a maximum or absolute value")
    node = graph.node(x)
    return graph.add(Kink(inputs=(x.index,), shape=node.shape, dtype=node.dtype, neg=neg, pos=pos))


def rewritten(graph: Graph, ref: Ref, inputs: tuple[Ref, ...], error: Callable[..., jax.Array]) -> Ref:
    """Says that the program computes the node's function in another way, whose rounding may differ by `error(own, *ranges)`."""
    if any(r.index > ref.index for r in inputs):  # an earlier node that says the same: this one comes after its inputs
        ref = moved(graph, (ref,), lambda v: v)
    graph.node(ref).slack = (tuple(r.index for r in inputs), error)
    return ref


def size(r: Range) -> jax.Array:
    """The largest |x| of a range, 0 where it is unbounded: there rounding adds nothing."""
    largest = jnp.maximum(jnp.abs(r[0]), jnp.abs(r[1]))
    return jnp.where(jnp.isfinite(largest), largest, 0)


def relative(graph: Graph, ref: Ref, *names: str) -> Ref:
    """`rewritten` where the program's own value is made by these curves and a few products, each of which errs relatively to it."""
    return rewritten(graph, ref, (), lambda own: size(own) * erring(own[0].dtype, *names))


def erring(dtype: Any, *names: str) -> jax.Array:
    """The error of these curves one after the other and of eight operations, in units of their value or of 1."""
    total = jnp.asarray(8 * float(jnp.finfo(dtype).eps), dtype)
    for name in names:
        total = total + sum(errors(name, None, dtype))
    return total


def opaque(graph: Graph, out: Any, values: tuple[Value, ...], run: Any) -> Ref:
    """A node of `out`'s shape and dtype that only intervals know. `run` gets a range per value, known ones as ranges of one point."""
    refs = [i for i, v in enumerate(values) if isinstance(v, Ref)]

    def interval(*ranges: Range) -> Range:
        given = dict(zip(refs, ranges, strict=True))
        return run(*(given.get(i, (values[i], values[i])) for i in range(len(values))))

    return graph.add(Opaque(inputs=tuple(values[i].index for i in refs), shape=tuple(out.shape), dtype=out.dtype, run=interval))
