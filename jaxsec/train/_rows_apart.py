"""Does every value of a net in row i depend on row i of the input alone? Bounds of a batch walk back row by row, and trust that it does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..bound._apart import ROWS, parts
from ..bound._graph import UnsupportedPrimitive
from ._batch_bounds import Ranges, graph_of
from ._net import Net
from ._worst_case import wide

# (centre, scale) of the points that are drawn: such where logarithms are defined, and others. What replaces a row is a box in which no ReLU
# is dead and no bounded curve is at one end.
SETTINGS, WIDE = ((0.5, 0.1), (0.0, 1.0)), 1e30
_HUGE = 1e20  # weights beyond are a way to write infinity


def check_rows_apart(net: Net, x: jax.Array) -> None:
    """Raises UnsupportedPrimitive where a value mixes or permutes rows and keeps their number (`h[::-1]`, a sum along the batch).

    Rows are points, drawn and those of x; some of them are replaced by boxes of almost all numbers, in as many ways as tell any two rows
    apart, and every value of the others must stay as it is: with the net's weights and statistics, and with such drawn around them, for a
    layer that begins at 0 hides what comes after it.
    Args: x: [B, ...] rows; their values are tried where they are known.
    Cost: 42 forwards of intervals on 7 rows.
    Edge cases: a value of which no point has a finite one cannot be told, and is refused; so is a net that runs other operations in a
      batch of the size of x than in one of 7 rows.
    """
    few, many = (_operations(net, x, n) for n in (ROWS, max(ROWS, len(x))))
    if few != many:
        raise UnsupportedPrimitive(
            f"a net that runs other operations for {len(x)} rows than for {ROWS}. Training on bounds needs nets that see rows one by one."
        )
    r = np.random.default_rng(0)
    drawn = net.replace(params=jax.tree.map(lambda w: _around(w, r), net.params), state=jax.tree.map(lambda w: _around(w, r), net.state))
    for index, finite in _check(net, x, r).items():
        if not finite:
            _refuse(net, x, index, "that is not finite at any of the points tried, so that it cannot be told whether it mixes rows")
    _check(drawn, x, r)


def _operations(net: Net, x: jax.Array, n: int) -> list[Any]:
    """What the net does with n rows: of each value its operation, what it is made of, and its shape in a row."""
    found = []

    def traced(x: jax.Array) -> jax.Array:
        for v in graph_of(net, x, False)[0].nodes:
            found.append((type(v), v.inputs, v.shape[1:], getattr(getattr(v, "unary", None), "name", None)))
        return x

    jax.eval_shape(traced, jax.ShapeDtypeStruct((n, *x.shape[1:]), wide(x)))
    return found


def _around(w: Any, r: np.random.Generator) -> Any:
    """Each weight a factor larger or smaller, with its sign, for a variance below 0 would make everything NaN; a 0 becomes as large as
    the others, 1 at most. What stands for infinity stays."""
    if not jnp.issubdtype(jnp.result_type(w), jnp.floating) or not getattr(w, "is_fully_addressable", True):
        return w
    values = np.asarray(w, np.float64)
    real = values[(np.abs(values) < _HUGE) & (values != 0)]
    size = min(np.sqrt(np.mean(np.square(real))), 1.0) if real.size else 1.0
    factors = np.where(np.abs(values) < _HUGE, np.exp(0.5 * r.normal(size=values.shape)), 1.0)
    return jnp.asarray(np.where(values == 0, size * r.normal(size=values.shape), values * factors), jnp.result_type(w))


def _check(net: Net, x: jax.Array, r: np.random.Generator) -> dict[int, bool]:
    """Of each value, whether it is finite somewhere in a row that is a point."""
    shape, dtype = (ROWS, *x.shape[1:]), wide(x)
    told: dict[int, bool] = {}
    drawn = [centre + scale * r.normal(size=shape) for centre, scale in SETTINGS]
    own = [] if isinstance(x, Tracer) else [np.resize(np.asarray(x if x.is_fully_addressable else x.addressable_data(0)), shape)]
    for values in (*drawn, *own):
        points = jnp.asarray(values, dtype)
        before = _intervals(net, points, jnp.zeros(shape, dtype))
        for kept in parts():
            boxes = np.where(kept.reshape(-1, *(1,) * (len(shape) - 1)), 0, WIDE)
            after = _intervals(net, points, jnp.asarray(np.broadcast_to(boxes, shape), dtype))
            for i, ends in before.items():
                old, new = (np.stack([np.asarray(v)[kept] for v in pair]) for pair in (ends, after[i]))
                if not np.array_equal(old, new, equal_nan=True):  # of one program, to the last bit
                    _refuse(net, x, i, "that in one row depends on other rows of the batch")
                told[i] = told.get(i, False) or not old.size or bool(np.isfinite(old).any())
    return told


@jax.jit
def _intervals(net: Net, centre: jax.Array, radius: jax.Array) -> dict[int, tuple[jax.Array, jax.Array]]:
    """Node -> its interval over the boxes `centre` +- `radius`."""
    with jax.numpy_rank_promotion("allow"):
        graph, out = graph_of(net, centre, False)
        ranges = Ranges(graph, out, (centre - radius, centre + radius))
        return {i: ranges[i] for i in graph.ancestors(out)}


def _refuse(net: Net, x: jax.Array, index: int, why: str) -> None:
    said = []

    def traced(x: jax.Array) -> jax.Array:
        node = graph_of(net, x, False)[0].nodes[index]
        said.append(f"a value of shape {node.shape} {why}; used at {node.source}")
        return x

    jax.eval_shape(traced, jax.ShapeDtypeStruct((ROWS, *x.shape[1:]), wide(x)))
    raise UnsupportedPrimitive(f"{said[0]}. Training on bounds needs nets that see rows one by one.")
