"""AlphaCROWN: every form's own slopes, in every layer, turned by gradient ascent until its bound is as high as it gets."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from ..core._struct import static, struct
from ._backward import Turn
from ._crown import both_ends, tightened
from ._forward_pass import intersection
from ._lines import carried, only_sign_matters, targets
from ._method import BoundMethod, by_lines
from ._nodes import Curve, Kink, Range
from ._problem import Problem

Slopes = dict[tuple[int, int], jax.Array]  # (target, node) -> parameters in [0, 1] of every form on the target


@struct
class AlphaCROWN(BoundMethod):
    """CROWN with the slopes of its lines optimised: for every form on the output, and for every open element of every layer before it.

    Guarantee: at least as tight as `CROWN`: the best of its start, which is CROWN, and of all steps. A bound at any slopes is a bound.
    Args:
      steps: gradient steps.
      learning_rate: of Adam, at the first step; decays to a tenth over the steps. Slopes live in [0, 1].
      layers: optimise the intermediate layers too; without, only the walk from the output has slopes of its own.
      open: the most elements of a layer whose bounds are optimised, those of the largest interval first; the rest keep CROWN's.
    Cost: about three walks a step; memory for all forms of a layer at once.
    Source: Xu et al. 2021 (alpha-CROWN), section 3.1.
    """

    name: ClassVar[str] = "alpha-crown"
    steps: int = static(default=20)
    learning_rate: Any = 0.3
    layers: bool = static(default=True)
    open: int = static(default=64)

    def lower(self, problem: Problem) -> jax.Array:
        start = tightened(problem)
        walk = Walk(problem, start, self.open if self.layers else 0)
        return optimised(walk, by_lines(problem, start), self.steps, self.learning_rate)[0]


class Walk:
    """The bound as a function of all slopes: layers' ranges first, then the output's forms."""

    def __init__(self, problem: Problem, start: Sequence[Range], most: int):
        self.problem, self.start = problem, list(start)
        graph = problem.graph
        consumers = graph.consumers()
        self.rows: dict[int, jax.Array] = {}
        for target in carried(graph, problem.out) if most else ():
            if not problem.lines_before(target):  # no slopes to choose
                continue
            lo, hi = start[target]
            size = lo.size
            width = jnp.where((lo < 0) & (hi > 0), jnp.minimum(-lo, hi), 0) if only_sign_matters(graph, target, consumers) else hi - lo
            self.rows[target] = jax.lax.top_k(width.reshape(-1), min(most, size))[1]

    def start_slopes(self) -> Slopes:
        """CROWN's own slopes for every form, in its own layout: one walk that looks at every curve it meets."""
        found: Slopes = {}

        def note(target: int) -> Turn:
            def turn(node: int, shape: tuple[int, ...], r: Range) -> None:
                curve = self.problem.graph.nodes[node]
                assert isinstance(curve, Kink | Curve)
                form = shape[1:] if isinstance(curve, Curve) else shape
                found[target, node] = curve.start(*(jnp.broadcast_to(v, form) for v in r))

            return turn

        self.value(note)
        return found

    def value(self, slopes: Any) -> tuple[jax.Array, dict[int, Range]]:
        """([S] the bounds, the layers' ranges). `slopes` is a `Slopes`, or a function from a target to its `Turn`."""
        problem, graph = self.problem, self.problem.graph
        known: dict[int, Range] = {i: self.start[i] for i in targets(graph, problem.out)}

        def turn_of(target: int) -> Turn:
            if callable(slopes):
                return slopes(target)  # pyright: ignore[reportReturnType]
            return lambda node, shape, r: slopes.get((target, node))

        for target, rows in self.rows.items():
            ranges = problem.intervals(known, target)
            lines = problem.lines(target, ranges)
            charged = problem.charges(target, ranges, lines)
            down, up = both_ends(problem, target, rows, ranges, lines, charged=charged, turn=turn_of(target))
            lo, hi = known[target]
            low = lo.reshape(-1).at[rows].max(down)
            high = hi.reshape(-1).at[rows].min(up)
            known[target] = low.reshape(lo.shape), jnp.maximum(low, high).reshape(lo.shape)
        ranges = problem.intervals(known)
        return problem.lower(ranges, turn=turn_of(problem.out)), known


def optimised(walk: Walk, first: jax.Array, steps: int, learning_rate: Any) -> tuple[jax.Array, dict[int, Range]]:
    """(the best bound of each form over `steps` of projected Adam and the start, the tightest ranges met)."""
    slopes = walk.start_slopes()
    names = sorted(slopes)
    optimiser = optax.adam(lambda i: learning_rate * 0.1 ** (i / max(steps - 1, 1)))

    def objective(values: Mapping[str, jax.Array]) -> tuple[jax.Array, Any]:
        bounds, known = walk.value({key: values[str(key)] for key in names})
        return -jnp.sum(jnp.where(jnp.isfinite(bounds), bounds, 0)), (bounds, known)

    def kept(best: jax.Array, tightest: dict[int, Range], found: Any) -> tuple[jax.Array, dict[int, Range]]:
        bounds, known = found
        return jnp.fmax(best, bounds), {t: intersection(tightest[t], known[t]) for t in tightest}

    def step(state: Any, _: None) -> tuple[Any, None]:
        values, moments, best, tightest = state
        (_, found), gradient = jax.value_and_grad(objective, has_aux=True)(values)
        updates, moments = optimiser.update(gradient, moments)
        values = jax.tree.map(lambda v, u: jnp.clip(v + u, 0, 1), values, updates)
        return (values, moments, *kept(best, tightest, found)), None

    values = {str(key): slopes[key] for key in names}
    tightest = {t: walk.start[t] for t in targets(walk.problem.graph, walk.problem.out)}
    state = (values, optimiser.init(values), first, tightest)
    (values, _, best, tightest), _ = jax.lax.scan(step, state, None, length=steps)
    return kept(best, tightest, objective(values)[1])
