"""The eight kinds of node a traced function is made of: four affine ones, two curves, the product, and what only intervals know.

Every node knows two things: the interval of its value from the intervals of its inputs, and how linear forms on its value become linear
forms on its inputs that are no larger anywhere (`backward`). Affine nodes are exact; the rest go through a pair of lines or planes.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._unary import Unary

Range = tuple[jax.Array, jax.Array]  # (lower, upper), each of the node's shape


class Lines(NamedTuple):
    """`lower_slope x + lower_at <= f(x) <= upper_slope x + upper_at` on an interval, elementwise."""

    lower_slope: jax.Array
    lower_at: jax.Array
    upper_slope: jax.Array
    upper_at: jax.Array


@dataclasses.dataclass(eq=False)
class Node(abc.ABC):
    """One value that depends on the input: `inputs` are the indices of the nodes it is made of.

    `hint` gives a second interval from other nodes, which is intersected with the node's own: a maximum written as y + relu(x - y)
    is exact for lines and loose for intervals. `tight`: the hint's lies within the node's own, which need not be computed. `slack` gives
    what rounding may move the program's own value off this node's, where the program computes the same function by other operations:
    `slack(own range, *ranges)` is added to the node's own rounding.
    """

    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any
    source: str = ""
    hint: tuple[tuple[int, ...], Callable[..., Range]] | None = None
    tight: bool = False
    slack: tuple[tuple[int, ...], Callable[..., jax.Array]] | None = None

    @abc.abstractmethod
    def interval(self, *ranges: Range) -> Range:
        """The interval of the value, from those of the inputs."""


@dataclasses.dataclass(eq=False)
class Input(Node):
    """What is perturbed; `position` says which leaf of the argument."""

    position: int = 0

    def interval(self, *ranges: Range) -> Range:
        raise AssertionError("an input's interval is given")


class Affine(Node):
    """`op(inputs) + bias`, with `op` linear."""

    bias: Any

    @abc.abstractmethod
    def op(self, *xs: jax.Array) -> jax.Array:
        """The linear part."""

    @abc.abstractmethod
    def absolute(self, *xs: jax.Array) -> jax.Array:
        """The linear part with its coefficients' absolute values: how large a sum of the terms can be."""

    @abc.abstractmethod
    def terms(self) -> int:
        """How many products one element of the value sums at most."""

    def ones(self, *xs: jax.Array) -> jax.Array:
        """The linear part with all its coefficients 1."""
        return self.op(*xs)

    @functools.cached_property
    def fan_out(self) -> int:
        """How many terms one element of a form on the node's inputs sums at most: the length of the transposed sums."""
        try:
            with jax.ensure_compile_time_eval():
                dtype = self.of_forms(jnp.float32)
                _, pull = jax.vjp(self.ones, *(jnp.zeros(s, dtype) for s in self.input_shapes))
                return int(max(np.max(v, initial=1) for v in map(np.asarray, pull(jnp.ones(self.shape, dtype)))))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            return math.prod(self.shape)  # what moves where is known when the program runs only

    def transpose(self, a: jax.Array) -> list[jax.Array]:
        """Forms [S, *shape] on the value as forms on the inputs: JAX's own transpose of the operation."""
        _, pull = jax.vjp(self.op, *(jnp.zeros(s, self.of_forms(a.dtype)) for s in self.input_shapes))
        return list(jax.vmap(pull)(a))

    def of_forms(self, dtype: Any) -> Any:
        """The value's dtype, or `dtype` of truth values: what moves them moves the numbers that forms on them are."""
        return self.dtype if jnp.issubdtype(self.dtype, jnp.inexact) else dtype

    input_shapes: list[tuple[int, ...]]
    exact: ClassVar[bool] = False  # computing it rounds nothing


@dataclasses.dataclass(eq=False)
class Scale(Affine):
    """`scale * x + bias`, elementwise; None is 1 or 0."""

    fan_out = 1  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    scale: Any = None
    bias: Any = None

    def op(self, *xs: jax.Array) -> jax.Array:
        return xs[0] if self.scale is None else xs[0] * self.scale

    def absolute(self, *xs: jax.Array) -> jax.Array:
        return xs[0] if self.scale is None else xs[0] * jnp.abs(self.scale)

    def terms(self) -> int:
        return 1

    def transpose(self, a: jax.Array) -> list[jax.Array]:
        return [a if self.scale is None else a * self.scale]

    def interval(self, *ranges: Range) -> Range:
        lo, hi = ranges[0]
        if self.scale is not None:
            p, q = lo * self.scale, hi * self.scale
            if jnp.issubdtype(self.dtype, jnp.floating):
                p, q = (jnp.where(jnp.asarray(self.scale) == 0, 0, v) for v in (p, q))  # 0 * inf
            lo, hi = jnp.minimum(p, q), jnp.maximum(p, q)
        return certain(lo, hi) if self.bias is None else certain(lo + self.bias, hi + self.bias)


@dataclasses.dataclass(eq=False)
class Move(Affine):
    """A linear operation without negative coefficients: layout, selection, sums, plus `bias` where known parts stand."""

    run: Callable[..., jax.Array] = lambda *xs: xs[0]
    bias: Any = None
    summed: int = 1
    over: tuple[int, ...] = ()  # the axes that a plain sum is over
    input_shapes: list[tuple[int, ...]] = dataclasses.field(default_factory=list)

    def op(self, *xs: jax.Array) -> jax.Array:
        return self.run(*xs)

    def absolute(self, *xs: jax.Array) -> jax.Array:
        return self.run(*xs)

    def terms(self) -> int:
        return self.summed

    @property
    def exact(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.summed == 1

    def interval(self, *ranges: Range) -> Range:
        lo, hi = self.run(*(r[0] for r in ranges)), self.run(*(r[1] for r in ranges))
        return (lo, hi) if self.bias is None else (lo + self.bias, hi + self.bias)


@dataclasses.dataclass(eq=False)
class Sum(Affine):
    """`x + y` or `x - y` of two values that both depend on the input."""

    fan_out = 1  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    sign: int = 1
    bias: Any = None

    def op(self, *xs: jax.Array) -> jax.Array:
        return xs[0] + xs[1] if self.sign > 0 else xs[0] - xs[1]

    def absolute(self, *xs: jax.Array) -> jax.Array:
        return xs[0] + xs[1]

    def terms(self) -> int:
        return 2

    def transpose(self, a: jax.Array) -> list[jax.Array]:
        return [a, a if self.sign > 0 else -a]

    def interval(self, *ranges: Range) -> Range:
        (a, b), (c, d) = ranges
        return certain(a + c, b + d) if self.sign > 0 else certain(a - d, b - c)


@dataclasses.dataclass(eq=False)
class Contract(Affine):
    """A product with known weights: matrix product, convolution, or any sum with coefficients of both signs."""

    run: Callable[[Any, jax.Array], jax.Array] = lambda w, x: x
    weights: Any = None
    summed: int = 1
    conv: Any = None  # how the convolution is laid out, for forms that live on patches
    bias: Any = None
    input_shapes: list[tuple[int, ...]] = dataclasses.field(default_factory=list)

    def op(self, *xs: jax.Array) -> jax.Array:
        return self.run(self.weights, xs[0])

    def absolute(self, *xs: jax.Array) -> jax.Array:
        return self.run(jnp.abs(self.weights), xs[0])

    def ones(self, *xs: jax.Array) -> jax.Array:
        return self.run(jnp.ones(self.weights.shape, self.dtype), xs[0])

    def terms(self) -> int:
        return self.summed

    def interval(self, *ranges: Range) -> Range:
        lo, hi = ranges[0]
        finite = jnp.isfinite(lo) & jnp.isfinite(hi)
        middle = jnp.where(finite, 0.5 * lo + 0.5 * hi, 0)
        radius = jnp.where(finite, 0.5 * hi - 0.5 * lo, jnp.inf)
        centre, spread = self.op(middle), self.absolute(jnp.where(finite, radius, 0))
        # an unbounded input makes unbounded what it has a coefficient in (0 * inf would be NaN); of a sum that overflows nothing is known
        reached = self.absolute(jnp.where(finite, 0.0, 1.0).astype(lo.dtype))
        spread = jnp.where((reached > 0) | ~jnp.isfinite(centre), jnp.inf, spread)
        return certain(centre - spread, centre + spread)


@dataclasses.dataclass(eq=False)
class Kink(Node):
    """`neg * x` below 0 and `pos * x` above: ReLU is (0, 1), |x| is (-1, 1). Exact once the sign of x is known."""

    neg: Any = 0.0
    pos: Any = 1.0

    def interval(self, *ranges: Range) -> Range:
        lo, hi = ranges[0]
        at_lo, at_hi = self.value(lo), self.value(hi)
        inside = (lo < 0) & (hi > 0)
        zero = jnp.zeros_like(lo)
        least = jnp.minimum(at_lo, at_hi)
        most = jnp.maximum(at_lo, at_hi)
        return jnp.where(inside, jnp.minimum(least, zero), least), jnp.where(inside, jnp.maximum(most, zero), most)

    def value(self, x: jax.Array) -> jax.Array:
        neg = jnp.where(jnp.asarray(self.neg) == 0, 0, self.neg * jnp.minimum(x, 0))
        pos = jnp.where(jnp.asarray(self.pos) == 0, 0, self.pos * jnp.maximum(x, 0))
        return (neg + pos).astype(x.dtype)

    def start(self, lo: jax.Array, hi: jax.Array) -> jax.Array:
        """The parameter of the line through the kink that leaves the smaller area: CROWN's adaptive slope."""
        return jnp.where(hi > -lo, 1.0, 0.0).astype(lo.dtype)

    def lines(self, lo: jax.Array, hi: jax.Array, t: jax.Array | None) -> Lines:
        """The chord on one side, a line through the kink on the other; `t` in [0, 1] turns it, None takes the smaller area.

        Source: CROWN (Zhang et al. 2018), equation 6 and its adaptive slope.
        """
        neg, pos = jnp.asarray(self.neg, lo.dtype), jnp.asarray(self.pos, lo.dtype)
        below, above = hi <= 0, lo >= 0
        inside = ~(below | above)
        low, high = jnp.where(inside, lo, -1.0), jnp.where(inside, hi, 1.0)
        bounded = jnp.isfinite(high - low)  # the width, too: a chord over more than the largest number has slope 0
        width = jnp.where(bounded, high - low, 1.0)
        chord = jnp.where(bounded, (pos * high - neg * low) / width, 0.0)
        at = jnp.where(bounded, (neg - pos) * low * jnp.where(bounded, high / width, 0.0), 0.0)
        stable = jnp.where(below, neg, pos)
        chord, at = jnp.where(inside, chord, stable), jnp.where(inside, at, 0.0)
        t = self.start(low, high) if t is None else t
        turned = jnp.where(inside, neg + t * (pos - neg), stable)
        zero = jnp.zeros_like(turned)
        unbounded = inside & ~bounded
        convex = pos >= neg
        top = jnp.where(unbounded, jnp.inf, at)
        bottom = jnp.where(unbounded, -jnp.inf, at)
        return Lines(
            lower_slope=jnp.where(convex, turned, chord),
            lower_at=jnp.where(convex, zero, bottom),
            upper_slope=jnp.where(convex, chord, turned),
            upper_at=jnp.where(convex, top, zero),
        )


@dataclasses.dataclass(eq=False)
class Curve(Node):
    """A smooth function of each element; `_unary` has its range and its lines."""

    unary: Unary = None  # pyright: ignore[reportAssignmentType]

    def interval(self, *ranges: Range) -> Range:
        return self.unary.interval(*ranges[0])

    def start(self, lo: jax.Array, hi: jax.Array) -> jax.Array:
        """[2, ...] parameters to optimise from: the middle of the useful slopes."""
        return jnp.full((2, *lo.shape), 0.5, lo.dtype)

    def lines(self, lo: jax.Array, hi: jax.Array, t: jax.Array | None, sound: bool = False) -> Lines:
        """t [2, ...] turns the lower and the upper line between their useful slopes; None takes the function's own choice."""
        # any slope is sound, so where it came from needs no derivative: half of the program to compile, in optimisers most of it
        ends = jax.lax.stop_gradient((lo, hi))
        if t is None:
            lower, upper = self.unary.slopes(*ends)
        else:
            (a, b), (c, d) = self.unary.slope_range(*ends, "lower"), self.unary.slope_range(*ends, "upper")
            lower, upper = a + t[0] * (b - a), c + t[1] * (d - c)
        # a coefficient times a slope below may be flushed to 0 and then misses values beyond 1e30, such as sums of exponentials
        lower, upper = held(tuple(jnp.where(jnp.abs(v) < _FAINT, 0, v) for v in (lower, upper)))
        at_lower, at_upper = self.unary.intercepts(lo, hi, lower, upper, sound)
        return Lines(lower, at_lower, upper, at_upper)


@dataclasses.dataclass(eq=False)
class Product(Node):
    """A product of two values that both depend on the input: elementwise, or any bilinear `run(x, y)` such as a matrix product."""

    run: Callable[[jax.Array, jax.Array], jax.Array] = jnp.multiply
    elementwise: bool = True
    summed: int = 1
    input_shapes: list[tuple[int, ...]] = dataclasses.field(default_factory=list)

    def interval(self, *ranges: Range) -> Range:
        (a, b), (c, d) = ranges
        if self.elementwise:
            corners = [_times(p, q) for p in (a, b) for q in (c, d)]
            least, most = corners[0], corners[0]
            for v in corners[1:]:
                least, most = jnp.minimum(least, v), jnp.maximum(most, v)
            return least, most
        # the four corners' largest product, split by sign so that it stays a bilinear operation
        wild_x, wild_y = (~(jnp.isfinite(p) & jnp.isfinite(q)) for p, q in ranges)
        a, b, c, d = jnp.where(wild_x, 0, a), jnp.where(wild_x, 0, b), jnp.where(wild_y, 0, c), jnp.where(wild_y, 0, d)
        x, r, y, s = 0.5 * a + 0.5 * b, 0.5 * b - 0.5 * a, 0.5 * c + 0.5 * d, 0.5 * d - 0.5 * c
        centre = self.run(x, y)
        spread = self.run(jnp.abs(x), s) + self.run(r, jnp.abs(y)) + self.run(r, s)
        # what an unbounded factor has a part in is unbounded
        reached = self.run(wild_x.astype(x.dtype), jnp.ones_like(y)) + self.run(jnp.ones_like(x), wild_y.astype(y.dtype))
        spread = jnp.where(reached > 0, jnp.inf, spread)
        return certain(centre - spread, centre + spread)


_FAINT = 1e-25  # of slopes; the line is then level


def held(values: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The same numbers for whoever reads them: a line is sound if its height goes with the very slope that the walk multiplies by.

    A compiler that fuses the slope's formula into both readers may round it twice in two ways, which for a chord over a narrow interval
    differ by far more than a rounding. What a loop returns is computed once, into memory; an optimization barrier is gone by then.
    """
    return jax.lax.fori_loop(
        0, 2, lambda i, kept: jax.tree.map(lambda v, k: jnp.where(i == 1, v, k), values, kept), jax.tree.map(jnp.zeros_like, values)
    )


def certain(lo: jax.Array, hi: jax.Array) -> Range:
    """Nothing is known where infinities have cancelled."""
    return jnp.where(jnp.isnan(lo), -jnp.inf, lo), jnp.where(jnp.isnan(hi), jnp.inf, hi)


def _times(p: jax.Array, q: jax.Array) -> jax.Array:
    """0 * inf is 0 here: the factor 0 is attained, the infinite one is a bound that is not."""
    return jnp.where((p == 0) | (q == 0), 0, p * q)


@dataclasses.dataclass(eq=False)
class Opaque(Node):
    """What has an interval and no lines: floor, sort, a choice on an undecided condition."""

    run: Callable[..., Range] = lambda *ranges: ranges[0]

    def interval(self, *ranges: Range) -> Range:
        return self.run(*ranges)
