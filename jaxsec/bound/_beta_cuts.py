"""Where a subproblem is cut: candidates by what their curves cost the bound, the best of them by what its halves are bounded to.

Source: the score of Bunel et al. 2020, section 5, filtered by bounds of the children as in De Palma et al. 2021 (FSB).
"""

import jax
import jax.numpy as jnp

from ._backward import Form
from ._beta import Subproblem, lane_ranges, multipliers, turned, value
from ._gaps import weighed
from ._lines import carried
from ._nodes import Kink
from ._problem import Problem

# Candidates that are judged. Scores of kinks are good: of the nets measured the trees of 3 were as small as those of 12, and judging costs
# as much as bounding. Curves may be cut again and again, and with 3 a net of 6 tanh that 12 close in 11 rounds stays open.
_KINKS_TRIED, _CURVES_TRIED = 3, 12


def tried(problem: Problem) -> int:
    return _KINKS_TRIED if signs_decide(problem) else _CURVES_TRIED


def signs_decide(problem: Problem) -> bool:
    """Whether every cut is one of a kink."""
    return set(carried(problem.graph, problem.out)) <= kinked(problem)


def candidates(problem: Problem, lane: Subproblem, best: jax.Array, k: int) -> tuple[jax.Array, dict[int, Form]]:
    """([k] the elements whose curves cost the open bounds most, as positions in the concatenation of all carried nodes, -1 where there is
    none; the linear bounds on the inputs)."""
    graph = problem.graph
    ranges = lane_ranges(problem, lane)
    _, costs, forms = weighed(problem, ranges, turned(problem, lane), multipliers(problem, lane))
    names = carried(graph, problem.out)
    if not names:  # an affine network, or kinks on the input itself
        return jnp.full(k, -1), forms
    per_layer = {t: jnp.zeros(graph.nodes[t].shape, best.dtype) for t in names}
    kinks = kinked(problem)
    open_ = (best <= 0).astype(best.dtype)
    for i, cost in costs.items():
        t = graph.nodes[i].inputs[0]
        if t in per_layer:
            per_layer[t] = per_layer[t] + jnp.tensordot(open_, jnp.broadcast_to(cost, (len(best), *graph.nodes[i].shape)), 1)
    flat = jnp.concatenate([v.reshape(-1) for v in per_layer.values()])
    flat = jnp.where(jnp.isfinite(flat), flat, 0)
    # where no line costs anything and the bound is open all the same, slopes are to blame: the widest open element is next
    widths = []
    for t, (lo, hi) in zip(names, lane.known, strict=True):
        open_end = jnp.minimum(-lo, hi) if t in kinks else hi - lo
        widths.append(jnp.where(jnp.isfinite(open_end), jnp.maximum(open_end, 0), 1).reshape(-1))
    width = jnp.concatenate(widths)
    flat = flat + 1e-6 * width * (jnp.max(flat) / (jnp.max(width) + 1e-30) + 1e-20)
    score, element = jax.lax.top_k(flat, min(k, flat.size))
    return jnp.where(score > 0, element, -1), forms


def kinked(problem: Problem) -> set[int]:
    """Nodes that kinks read: cut at 0, and only once."""
    graph = problem.graph
    return {graph.nodes[i].inputs[0] for i in problem.lines_before(problem.out) if isinstance(graph.nodes[i], Kink)}


def point_of(problem: Problem, lane: Subproblem, element: jax.Array) -> jax.Array:
    """Where an element is cut: a kink at 0, another curve in the middle of its range."""
    graph = problem.graph
    kinks = kinked(problem)
    points = []
    for t, (lo, hi) in zip(carried(graph, problem.out), lane.known, strict=True):
        middle = jnp.where(jnp.isfinite(lo) & jnp.isfinite(hi), 0.5 * (lo + hi), 0)
        points.append((jnp.where((lo < 0) & (hi > 0), 0, middle) if t in kinks else middle).reshape(-1))
    return jnp.concatenate(points)[element] if points else jnp.zeros(element.shape, problem.at.dtype)


def child(lane: Subproblem, element: jax.Array, point: jax.Array, upper: bool) -> Subproblem:
    """The half of a lane where the element is above (`upper`) or below the point. element -1: the lane itself."""
    known, cut, at = [], [], 0
    for (lo, hi), c in zip(lane.known, lane.cut, strict=True):
        hit = (jnp.arange(lo.size) + at == element).reshape(lo.shape)
        at += lo.size
        known.append((jnp.where(hit, jnp.maximum(lo, point), lo), hi) if upper else (lo, jnp.where(hit, jnp.minimum(hi, point), hi)))
        cut.append(c | hit)
    return lane._replace(known=tuple(known), cut=tuple(cut))


def best_cut(problem: Problem, lane: Subproblem, elements: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the candidate whose worse child is bounded best, by one walk each without optimisation; where it is cut).

    Where every cut is one of a kink, a child is judged by the lane's ranges with the cut node's own: to find what the cut does to later
    nodes by intervals costs as much as the walk, and gains little, since signs decide. Later curves are judged by their ranges.
    """
    ranges, names = lane_ranges(problem, lane), carried(problem.graph, problem.out)

    def judged(half: Subproblem) -> jax.Array:
        if not signs_decide(problem):
            return jnp.max(value(problem, half))
        own = list(ranges)
        for t, (lo, hi) in zip(names, half.known, strict=True):
            own[t] = (jnp.maximum(own[t][0], lo), jnp.minimum(own[t][1], hi))
        return jnp.max(value(problem, half, own))

    def halves(element: jax.Array) -> tuple[jax.Array, jax.Array]:
        point = point_of(problem, lane, element)
        low, high = (judged(child(lane, element, point, side)) for side in (False, True))
        return jnp.minimum(low, high), jnp.maximum(low, high)

    worse, better = jax.lax.map(halves, elements)  # one at a time: all lanes at once fill the machine, and more leave its caches
    gain = jnp.where(elements >= 0, worse + 0.1 * better, -jnp.inf)
    gain = jnp.where(jnp.isnan(gain), -jnp.inf, gain)
    chosen = elements[jnp.argmax(gain)]
    return chosen, point_of(problem, lane, chosen)
