"""Linear forms on a node's value as linear forms on the input that are nowhere larger: one walk from the node back to the inputs.

Source: CROWN (Zhang et al. 2018), theorem 3.2; on general graphs Xu et al. 2020, algorithm 1. A form is a row of `a [S, *shape]` and
a constant in `at [S]`; the walk keeps `a . value + at >= sum over inputs + at'` at every step.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._graph import Graph
from ._lines import turned_lines
from ._nodes import Affine, Contract, Curve, Input, Kink, Lines, Node, Opaque, Product, Range, Scale, Sum
from ._patches import Patch, through
from ._rounding import Charges, unseen

Form = jax.Array | Patch
# (node, shape wanted, its argument's range in the forms' layout) -> parameters in [0, 1] of the forms' own lines, or None: shared ones
Turn = Callable[[int, tuple[int, ...], Range], jax.Array | None]


class Split(NamedTuple):
    """What branch and bound knows of a node's value besides its range: multipliers of `value >= point` (and `<=`)."""

    form: jax.Array  # [S, *shape] what the multipliers add to the form
    at: jax.Array  # [S] and to its constant


def negative(a: jax.Array) -> jax.Array:
    return jnp.minimum(a, 0)


def positive(a: jax.Array) -> jax.Array:
    return jnp.maximum(a, 0)


def dotted(a: jax.Array, v: Any) -> jax.Array:
    """[S] sums of `a * v` with 0 * inf = 0: an infinite bound without a coefficient does no harm.

    Where v is finite the derivative is v, also at a = 0: slopes and multipliers that are optimised start there.
    """
    finite = jnp.isfinite(v)
    some = jnp.where(a == 0, 1, a)  # 0 * inf has no derivative either
    product = jnp.where(finite, a * jnp.where(finite, v, 0), jnp.where(a == 0, 0, some * v))
    return jnp.sum(product, axis=tuple(range(1, a.ndim)))


def backward(
    graph: Graph,
    target: int,
    a: Form,
    at: jax.Array,
    ranges: Sequence[Range],
    lines: Mapping[int, Lines],
    splits: Mapping[int, Split] | None = None,
    charged: Charges | None = None,
    turn: Turn | None = None,
    stop: bool = False,
    heights: Mapping[int, tuple[jax.Array, jax.Array]] | None = None,
    ends: dict[int, jax.Array] | None = None,
) -> tuple[dict[int, Form], jax.Array]:
    """Lower bounds of forms on one node, as forms on the inputs.

    Args: a [S, *shape of the node], at [S]. ranges: of the nodes before it. lines: of every curve and kink before it.
      splits: multipliers of branch and bound. charged: takes the rounding of every step off the constants (`sound=True`).
      stop: at the first curve or product of every path use its range, not its lines.
      ends: with `stop`, takes the forms on these nodes instead: {node: [S, *shape]}.
      heights: what is added to the intercepts of a node's (lower, upper) line: zeros, to ask what a line costs.
      turn: the slopes' parameters of each form, where they are chosen for it alone.
    Returns: ({input's position: [S, *its shape]}, [S]).
    """
    waiting: dict[int, Form] = {target: a}
    found: dict[int, Form] = {}
    splits = splits or {}
    exact = charged is None and heights is None  # no line was moved outward

    def push(index: int, form: Form) -> None:
        nonlocal at
        if index in waiting:
            form = merged(waiting[index], form)
            if charged is not None:  # parts may cancel later on: each partial sum is charged by itself
                at = at - spent(form, charged.merging(ranges[index]))
        waiting[index] = form

    for index in graph.ancestors(target):
        if index in splits and index != target:
            s = splits[index]
            push(index, s.form)
            at = at + s.at
        form = waiting.pop(index, None)
        if form is None:
            continue
        node = graph.nodes[index]
        if charged is not None and index in charged.of:
            at = at - spent(form, charged.of[index]) - charged.lost[index]
        inputs = [ranges[i] for i in node.inputs]
        if charged is not None and inputs:
            at = jnp.where(unseen(form.a if isinstance(form, Patch) else form, inputs), -jnp.inf, at)
        line = None
        if stop and not isinstance(node, Input | Affine):
            lo, hi = ranges[index]
            whole = dense(form)
            if ends is not None:
                ends[index] = whole
                continue
            at = at + dotted(positive(whole), lo) + dotted(negative(whole), hi)
            if charged is not None:
                at = at - charged.sum_of(whole, ranges[index])
            continue
        if isinstance(node, Kink | Curve):
            line = lines[index] if turn is None else own_lines(index, node, form, inputs[0], lines, turn, charged is not None)
        if line is not None and heights is not None:
            low, up = (form.window(v) for v in heights[index]) if isinstance(form, Patch) and turn is not None else heights[index]
            line = line._replace(lower_at=line.lower_at + low, upper_at=line.upper_at + up)
        if line is not None and charged is not None:
            at = at - charged.intercepts(form.a if isinstance(form, Patch) else form, on_form(form, line, turn is not None))
        if isinstance(form, Patch):
            passed = on_patch(node, form, line, turn is not None, exact)
            if passed is not None:
                at = at + passed[1]
                if isinstance(node, Input):
                    found[node.position] = form
                for i, part in zip(node.inputs, passed[0], strict=True):
                    push(i, part if part.worth_it() else part.dense())
                continue
            form = form.dense()
        if isinstance(node, Input):
            found[node.position] = form
            continue
        parts, constant = on_dense(node, form, line, inputs, ranges[index], exact)
        at = at + constant
        for i, part in zip(node.inputs if parts else (), parts, strict=True):  # no parts: only the range was known
            push(i, part)
    return found, at


def on_form(form: Form, line: Lines, windowed: bool) -> Lines:
    """The lines in the layout of the form's numbers; windowed: they are already, if the form is a patch."""
    return Lines(*(form.window(v) for v in line)) if isinstance(form, Patch) and not windowed else line


def merged(p: Form, q: Form) -> Form:
    """The sum of two forms on one node."""
    if isinstance(p, Patch) and isinstance(q, Patch) and p.stride == q.stride:
        return p + q
    return dense(p) + dense(q)


def spent(form: Form, charge: jax.Array) -> jax.Array:
    """[S] what a node's charge takes off each form's constant."""
    if isinstance(form, Patch):
        return dotted(jnp.abs(form.a), form.window(charge))
    return dotted(jnp.abs(form), charge)


def dense(form: Form) -> jax.Array:
    return form.dense() if isinstance(form, Patch) else form


def on_dense(
    node: Node, form: jax.Array, line: Lines | None, inputs: Sequence[Range], own: Range, exact: bool
) -> tuple[list[jax.Array], jax.Array | float]:
    """(forms on the inputs, what goes to the constant) of whole-array forms on a node."""
    if isinstance(node, Affine):
        at = 0.0 if node.bias is None else dotted(form, jnp.broadcast_to(node.bias, node.shape))
        return node.transpose(form), at
    if isinstance(node, Kink | Curve):
        assert line is not None
        up, down = positive(form), negative(form)
        return [up * line.lower_slope + down * line.upper_slope], _raised(node, up, down, line, exact)
    if isinstance(node, Product):
        return planes(node, form, *inputs)
    assert isinstance(node, Opaque)
    lo, hi = own
    return [], dotted(positive(form), lo) + dotted(negative(form), hi)


def _raised(node: Kink | Curve, up: jax.Array, down: jax.Array, line: Lines, exact: bool) -> jax.Array:
    """[S] what the lines' heights add. One side of a kink passes through 0: its sum, half of a walk's work, is left out where `exact`."""
    if exact and isinstance(node, Kink) and isinstance(node.neg, float) and isinstance(node.pos, float):
        return dotted(down, line.upper_at) if node.pos >= node.neg else dotted(up, line.lower_at)
    return dotted(up, line.lower_at) + dotted(down, line.upper_at)


def own_lines(index: int, node: Kink | Curve, form: Form, r: Range, lines: Mapping[int, Lines], turn: Turn, sound: bool) -> Lines:
    """Every form's own lines, in its own layout."""
    lo, hi = r
    if isinstance(form, Patch):
        lo, hi = form.window(lo), form.window(hi)
        if isinstance(node, Kink):
            node = dataclasses.replace(node, neg=form.window(node.neg), pos=form.window(node.pos))
    a = form.a if isinstance(form, Patch) else form
    t = turn(index, (2, *a.shape) if isinstance(node, Curve) else a.shape, (lo, hi))
    if t is None:
        line = lines[index]
        return Lines(*(form.window(v) for v in line)) if isinstance(form, Patch) else line
    return turned_lines(node, lo, hi, t, sound)


def on_patch(node: Node, form: Patch, line: Lines | None, windowed: bool, exact: bool) -> tuple[list[Patch], jax.Array | float] | None:
    """The same for forms on windows, or None where a node moves elements in a way that windows do not follow."""
    if isinstance(node, Input):
        return [], 0.0
    if isinstance(node, Kink | Curve):
        assert line is not None
        line = on_form(form, line, windowed)
        up, down = positive(form.a), negative(form.a)
        at = _raised(node, up, down, line, exact)
        return [form.replaced(up * line.lower_slope + down * line.upper_slope)], at
    bias = node.bias if isinstance(node, Affine) else None
    at = 0.0 if bias is None else dotted(form.a, form.window(bias))
    if isinstance(node, Scale):
        return [form if node.scale is None else form.replaced(form.a * form.window(node.scale))], at
    if isinstance(node, Sum):
        return [form, form if node.sign > 0 else form.replaced(-form.a)], at
    if isinstance(node, Contract) and (passed := through(node, form)) is not None:
        return [passed], at
    return None


def planes(node: Product, form: jax.Array, x: Range, y: Range) -> tuple[list[jax.Array], jax.Array]:
    """McCormick's planes: for all x, y in the box `x y >= c x + a y - a c` and `x y <= d x + a y - a d`, (a, b) of x and (c, d) of y.

    The same for any bilinear operation, whose value is a sum of such products. The other plane of each side is as near at the box's
    centre, so nothing speaks for either.
    """
    (a, _), (c, d) = x, y
    up, down = positive(form), negative(form)

    def toward_x(f: jax.Array, v: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda p: node.run(p, v), jnp.zeros_like(a))
        return jax.vmap(lambda g: pull(g)[0])(f)

    def toward_y(f: jax.Array, v: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda q: node.run(v, q), jnp.zeros_like(c))
        return jax.vmap(lambda g: pull(g)[0])(f)

    to_x = toward_x(up, c) + toward_x(down, d)
    to_y = toward_y(form, a)
    constant = dotted(up, -node.run(a, c)) + dotted(down, -node.run(a, d))
    return [to_x, to_y], constant
