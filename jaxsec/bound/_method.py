"""The bound methods, cheapest first. Each knows neither the model nor the threat: it is given a `Problem`."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp

from ..core._struct import Struct, struct
from ._backward import backward, dotted, negative, positive
from ._crown import tightened
from ._nodes import Affine, Range
from ._problem import Problem
from ._rounding import gamma


class BoundMethod(Struct, abc.ABC):
    """A way to bound linear forms of a function's output from below.

    Guarantee: `lower` is at most the least value over the region, in exact arithmetic; with `sound` in floating point as well.
      All are differentiable in weights, inputs and budgets unless they say otherwise.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def lower(self, problem: Problem) -> jax.Array:
        """[S] lower bounds of the problem's forms."""


@struct
class IBP(BoundMethod):
    """Interval bound propagation: the box around every value, and linear forms through the affine end of the network.

    Cost: two forward passes. The loosest; exact where every value depends on a single input.
    Source: Gowal et al. 2018, equations 6 and 7 (the last layer merged with the margins, section 3).
    """

    name: ClassVar[str] = "ibp"

    def lower(self, problem: Problem) -> jax.Array:
        return by_intervals(problem, problem.intervals())


@struct
class CROWNIBP(BoundMethod):
    """Linear forms walked back from the output once; every curve's interval comes from IBP.

    Cost: IBP and about S forward passes.
    Source: Zhang et al. 2020 (CROWN-IBP), section 3.2; adaptive lower slopes.
    """

    name: ClassVar[str] = "crown-ibp"

    def lower(self, problem: Problem) -> jax.Array:
        return by_lines(problem, problem.intervals())


@struct
class CROWN(BoundMethod):
    """Linear forms walked back from the output, and from every layer before it for the intervals of the curves.

    Guarantee: at least as tight as `CROWNIBP` and `IBP`: ranges are intersected with theirs. Not differentiable in reverse mode where
      a layer has more elements than one step takes: the number of steps follows the data. Use `CROWNIBP` in training.
    Cost: about one forward pass for every element of open sign, of every layer. On patches where convolutions make them.
    Source: Zhang et al. 2018, theorem 3.2 and section 3.3 (adaptive slopes); Xu et al. 2020 on general graphs.
    """

    name: ClassVar[str] = "crown"

    def lower(self, problem: Problem) -> jax.Array:
        return by_lines(problem, tightened(problem))


def by_lines(problem: Problem, ranges: list[Range]) -> jax.Array:
    """[S] by one walk back from the output, and by intervals where those say more."""
    return jnp.maximum(problem.lower(ranges), by_intervals(problem, ranges))


def by_intervals(problem: Problem, ranges: list[Range]) -> jax.Array:
    """[S] by the affine end of the graph and intervals before it; and by the output's own range, where it says more than its parts do."""
    charged = problem.charges(problem.out, ranges, problem.lines(problem.out, ranges)) if problem.sound else None
    found, at = backward(problem.graph, problem.out, problem.spec, problem.at, ranges, {}, stop=True, charged=charged)
    least = problem.least(found, at)
    if not _hinted_end(problem):
        return least
    (lo, hi), spec = ranges[problem.out], problem.spec
    own = problem.at + dotted(positive(spec), lo) + dotted(negative(spec), hi)
    if charged is not None:
        own = own - charged.sum_of(spec, ranges[problem.out]) - gamma(2, own.dtype) * jnp.abs(problem.at)
    return jnp.maximum(least, own)


def _hinted_end(problem: Problem) -> bool:
    """Whether a range in the affine end, such as that of log-softmax, is known by more than the affine nodes."""
    waiting = [problem.out]
    while waiting:
        node = problem.graph.nodes[waiting.pop()]
        if isinstance(node, Affine):
            if node.hint is not None:
                return True
            waiting.extend(node.inputs)
    return False
