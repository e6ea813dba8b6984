"""AlphaCROWN: every form's own slopes, turned by gradient ascent until its bound is as high as it gets, layer by layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ..core._struct import static, struct
from ._backward import Turn
from ._crown import both_ends, each_chunk, tightened, work_list
from ._method import BoundMethod, by_lines
from ._nodes import Curve, Kink, Lines, Range
from ._problem import Problem

# Elements of a row that climb side by side: few, so that work follows the number of open ones.
_AT_ONCE = 64

Slopes = dict[int, jax.Array]  # curve node -> parameters in [0, 1] of every form's own lines, in the forms' layout


@struct
class AlphaCROWN(BoundMethod):
    """CROWN with the slopes of its lines optimised: for every form on the output, and for every open element of every layer before it.

    Guarantee: at least as tight as `CROWN`: the best of its start, which is CROWN, and of all steps. A bound at any slopes is a bound.
      Not differentiable in reverse mode where a layer has more open elements than one step takes, as `CROWN`.
    Args:
      steps: gradient steps of every layer.
      learning_rate: of Adam, at the first step; decays to a tenth over the steps. Slopes live in [0, 1].
      open: the most elements of a layer whose bounds are optimised, those of the largest interval first; the rest keep CROWN's. None: all.
    Cost: about three walks a step for every open element.
    Source: Xu et al. 2021 (alpha-CROWN), section 3.1. There all slopes climb the final bound together; here every element's slopes climb
      its own two bounds, first layer first: tighter intervals only help the forms after them, no gradient passes through more than one
      walk, and the same number of steps comes further (bench/test_certify.py).
    """

    name: ClassVar[str] = "alpha-crown"
    steps: int = static(default=20)
    learning_rate: Any = 0.3
    open: int | None = static(default=None)

    def lower(self, problem: Problem) -> jax.Array:
        return optimised(problem, self.steps, self.learning_rate, self.open)[0]


def optimised(
    problem: Problem, steps: int, rate: Any, most: int | None, known: Mapping[int, Range] | None = None
) -> tuple[jax.Array, list[Range], Slopes]:
    """([S] bounds of the problem's forms, the ranges of all nodes, the slopes of the forms' last step), from what is `known` of nodes."""

    def sharpened(target: int, ranges: Sequence[Range], lines: dict[int, Lines]) -> Range:
        return _layer(problem, target, ranges, lines, steps, rate, most)

    ranges = tightened(problem, known, then=sharpened)
    bounds, slopes = climbed(problem, lambda turn: problem.lower(ranges, turn=turn), by_lines(problem, ranges), steps, rate)
    return bounds, ranges, slopes


def _layer(
    problem: Problem, target: int, ranges: Sequence[Range], lines: dict[int, Lines], steps: int, rate: Any, most: int | None
) -> Range:
    """One node's range, with the slopes of its open elements optimised."""
    if not problem.lines_before(target):  # no slopes to choose
        return ranges[target]
    charged = problem.charges(target, ranges, lines)
    shape = ranges[target][0].shape
    order, rounds, chunk = work_list(problem, target, ranges[target], most, _AT_ONCE)

    def step(i: Any, state: Range) -> Range:
        low, high = state
        rows = lax.dynamic_slice(order, (i * chunk,), (chunk,))

        def ends(turn: Turn | None) -> jax.Array:
            down, up = both_ends(problem, target, rows, ranges, lines, charged=charged, turn=turn)
            return jnp.concatenate([down, -up])

        first = jnp.concatenate([low[rows], -high[rows]])
        best, _ = climbed(problem, ends, first, steps, rate)
        return low.at[rows].max(best[:chunk], mode="drop"), high.at[rows].min(-best[chunk:], mode="drop")

    low, high = each_chunk(step, rounds, ranges[target])
    return low.reshape(shape), jnp.maximum(low, high).reshape(shape)


def climbed(problem: Problem, bound: Callable[[Turn], jax.Array], first: jax.Array, steps: int, rate: Any) -> tuple[jax.Array, Slopes]:
    """([S] the best of `first` and of all steps of projected Adam on each form's own slopes, the slopes of the last step)."""
    slopes: Slopes = {}

    def note(node: int, shape: tuple[int, ...], r: Range) -> None:
        curve = problem.graph.nodes[node]
        assert isinstance(curve, Kink | Curve)
        form = shape[1:] if isinstance(curve, Curve) else shape
        slopes[node] = curve.start(*(jnp.broadcast_to(v, form) for v in r))

    bound(note)  # a walk that looks at every curve it meets, in the layout of its forms
    if not slopes:
        return first, slopes
    names = sorted(slopes)
    adam = optax.adam(lambda i: rate * 0.1 ** (i / max(steps - 1, 1)))

    def objective(values: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        bounds = bound(lambda node, shape, r: values[names.index(node)])
        return -jnp.sum(jnp.where(jnp.isfinite(bounds), bounds, 0)), bounds

    def step(state: Any, _: None) -> tuple[Any, None]:
        values, moments, best = state
        (_, bounds), gradient = jax.value_and_grad(objective, has_aux=True)(values)
        updates, moments = adam.update(gradient, moments)
        values = [jnp.clip(v + u, 0, 1) for v, u in zip(values, updates, strict=True)]  # pyright: ignore[reportArgumentType]
        return (values, moments, jnp.fmax(best, bounds)), None

    start = [slopes[n] for n in names]
    (last, _, best), _ = lax.scan(step, (start, adam.init(start), first), None, length=steps)
    return jnp.fmax(best, objective(last)[1]), dict(zip(names, last, strict=True))
