"""Certified training: the loss at a proved bound on the worst case, by intervals (IBP) or by linear forms on top of them (CROWN-IBP).

For a label distribution p the worst cross-entropy over a set is `max log sum_k exp(z_k - p . z)`, which is increasing in each exponent; so
K linear forms `(p - e_k) . z` bounded from below bound it from above, without K x K pairs. The forms are merged with the affine end of the
net (elision of the last layer). Bounds are of the net in evaluation mode, which is the net that will be certified.

Rows stay together in one graph, where `jaxsec.bound` takes them one by one under `vmap`: there every row would have a weight gradient of
its own, summed afterwards, several times the work of training.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..bound import UnsupportedPrimitive
from ..bound._backward import negative, planes, positive
from ..bound._forward_pass import range_of
from ..bound._graph import Graph
from ..bound._lines import lines_of
from ..bound._nodes import Affine, Contract, Curve, Input, Kink, Lines, Move, Node, Product, Range, Scale
from ..bound._run import of_model, on_platform, output
from ..core import static, struct
from ..core._rewrite import tuned_call
from ..threat import Box, LInf, Threat
from ._losses import accuracy, cross_entropy, distribution
from ._net import Net
from ._recipe import Metrics, Recipe

_MIDDLE = 0.25  # of the ramp: where eps stops to grow as a power and grows linearly


@struct
class IBPTraining(Recipe):
    """Cross-entropy at interval bounds of the logits, mixed with the clean one; eps and the mixture grow during training.

    Guarantee: the worst loss is at least the cross-entropy at every point of the set, for the net in evaluation mode (the one that will be
      certified) and up to float32 rounding. Statistics of BatchNorm come from clean rows in training mode.
    Args:
      threat: any threat set; bounds are over its `interval` box. kappa: share of the clean loss in the end, in [0, 1].
      warmup, ramp: shares of training, at eps 0 and kappa 1, then until both have reached their end; their sum is at most 1.
    Cost: 3 forwards and gradients in the parameters.
    Edge cases: distributions as labels are bounded as they are; a row counts as certified for its largest class.
    Source: Gowal et al. 2018, eq. 6, 7 and section 3; the ramp of eps is a fourth power up to a quarter of its way, then linear.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train._certified import IBPTraining
      >>> def linear(params, x):
      ...     return x @ params
      >>> recipe = IBPTraining(threat=jaxsec.LInf(eps=0.5), kappa=0.0)
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> loss, metrics = recipe.loss(model, jnp.eye(2), jnp.array([0, 1]), jax.random.key(0))
      >>> round(float(loss), 4), float(metrics["clean_accuracy"])  # the margin 1 less 2 eps is 0
      (0.6931, 1.0)
    """

    name: ClassVar[str] = "ibp"
    summary: ClassVar[str] = "cross-entropy at interval bounds, mixed with the clean one"
    cost: ClassVar[str] = "3"
    source: ClassVar[str] = "Gowal et al. 2018, arXiv:1810.12715"

    threat: Any
    kappa: Any = 0.5
    warmup: Any = 0.1
    ramp: Any = 0.5

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_bounds(self, net, x)

    def at(self, progress: jax.Array) -> Self:
        share = ramped(progress, self.warmup, self.ramp)
        return self.replace(threat=self.threat.scaled(smoothed(share)), kappa=1 + share * (self.kappa - 1))

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, new = net.training(x, keys)
        margins = lower_margins(new, self.threat, x, y)
        loss = self.kappa * jnp.mean(cross_entropy(clean, y)) + (1 - self.kappa) * jnp.mean(worst_loss(margins))
        return loss, {"clean_accuracy": accuracy(clean, y), "certified_accuracy": certified(margins, y)}, new


@struct
class CROWNIBPTraining(Recipe):
    """As `IBPTraining`, with bounds that go from CROWN-IBP to IBP while eps grows.

    Guarantee: as `IBPTraining`; a mixture of two bounds is a bound.
    Args:
      beta: share of CROWN-IBP in the end; it starts at 1. The others as in `IBPTraining`.
      fused: bound the sum of exponentials in the loss by one linear form (loss fusion), else each of the K margins by its own (static).
    Cost: 3 forwards and gradients in the parameters, with `fused` about 2 more, else about 2 K more; at beta 0 too: in a branch
      of the program XLA's CPU backend runs gradients of convolutions ten times slower. Once beta is 0, `IBPTraining` is the same.
    Source: Zhang et al. 2020, section 3.2; loss fusion: Xu et al. 2020, section 3.3, here with each exponential's chord over the interval
      of its margin. Different: where lines say less than intervals do, the intervals count.
    """

    name: ClassVar[str] = "crown-ibp"
    summary: ClassVar[str] = "IBP training that starts from the tighter CROWN-IBP bounds"
    cost: ClassVar[str] = "about 5"
    source: ClassVar[str] = "Zhang et al. 2020, arXiv:1906.06316; Xu et al. 2020, arXiv:2002.12920"

    threat: Any
    kappa: Any = 0.5
    beta: Any = 0.0
    warmup: Any = 0.1
    ramp: Any = 0.5
    fused: bool = static(default=True)

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_bounds(self, net, x)

    def at(self, progress: jax.Array) -> Self:
        share = ramped(progress, self.warmup, self.ramp)
        eps = self.threat.scaled(smoothed(share))
        return self.replace(threat=eps, kappa=1 + share * (self.kappa - 1), beta=1 + share * (self.beta - 1))

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, new = net.training(x, keys)
        bounds = fused_loss if self.fused else mixed_loss
        worst, margins = bounds(new, self.threat, x, y, jnp.asarray(self.beta, jnp.float32))
        loss = self.kappa * jnp.mean(cross_entropy(clean, y)) + (1 - self.kappa) * jnp.mean(worst)
        return loss, {"clean_accuracy": accuracy(clean, y), "certified_accuracy": certified(margins, y)}, new


def ibp_init(net: Net, key: jax.Array, *, out_axis: int = -1) -> Net:
    """The net with new weights, for which intervals neither grow nor shrink from layer to layer on average.

    Args: key: consumed. out_axis: of the kernels' outputs: the last one, as Flax has it; 0 for kernels [O, I, ...].
    Guarantee: arrays of at least two axes become normal of deviation `sqrt(2 pi) / n`, n their inputs; all others stay.
    Edge cases: an array of two axes that is no kernel (an embedding, positions) is replaced as well.
    Source: Shi et al. 2021, section 3.2. Their regularisers of the warmup are left out.
    """
    leaves, tree = jax.tree.flatten(net.params)
    keys = jax.random.split(key, max(len(leaves), 1))

    def drawn(w: jax.Array, k: jax.Array) -> jax.Array:
        if jnp.ndim(w) < 2:
            return w
        return jax.random.normal(k, w.shape, w.dtype) * (math.sqrt(2 * math.pi) * w.shape[out_axis] / w.size)

    return net.replace(params=jax.tree.unflatten(tree, [drawn(w, k) for w, k in zip(leaves, keys, strict=True)]))


def ramped(progress: jax.Array, warmup: Any, ramp: Any) -> jax.Array:
    """[] in [0, 1]: 0 during the warmup, then linear, 1 after the ramp."""
    length = jnp.asarray(ramp, jnp.float32)
    gone = jnp.asarray(progress, jnp.float32) - warmup
    return jnp.where(length > 0, jnp.clip(gone / jnp.where(length > 0, length, 1), 0, 1), (gone >= 0).astype(jnp.float32))


def smoothed(share: jax.Array) -> jax.Array:
    """What eps is multiplied by: `a t^4` up to the middle, then the tangent there, which reaches 1 at t = 1."""
    m = _MIDDLE
    a = 1 / (m**3 * (4 - 3 * m))
    return jnp.where(share < m, a * share**4, 1 - 4 * a * m**3 * (1 - share))


def check_bounds(recipe: Any, net: Net, x: jax.Array) -> None:
    """ValueError where the net cannot be bounded, or the schedule is none."""
    if net.draws:
        raise ValueError(f"{recipe.name} bounds the net, which draws random numbers in evaluation mode; train it with another recipe.")
    schedule = {k: getattr(recipe, k) for k in ("warmup", "ramp", "kappa", "beta", "alpha", "share") if hasattr(recipe, k)}
    for key, value in schedule.items():
        if not isinstance(value, Tracer) and not bool(jnp.all((0 <= jnp.asarray(value)) & (jnp.asarray(value) <= 1))):
            raise ValueError(f"{recipe.name} got {key}={value}; it is a share, from 0 to 1.")
    try:
        jax.eval_shape(lambda net, x: jnp.zeros(graph_of(net, x, False)[1]), net, jax.ShapeDtypeStruct((1, *x.shape[1:]), _wide(x)))
    except UnsupportedPrimitive as e:
        raise ValueError(f"{recipe.name} cannot bound this net: {e}") from e


def worst_loss(margins: jax.Array) -> jax.Array:
    """[B] the largest cross-entropy that lower bounds [B, K] of `(p - e_k) . z` allow."""
    return jax.nn.logsumexp(-margins, axis=1)


def certified(margins: jax.Array, y: jax.Array) -> jax.Array:
    """[] share of rows whose class no point of the set changes; for a distribution its largest class."""
    own = distribution(jnp.argmax(y, axis=1) if y.ndim == 2 else y, margins.shape[1]) > 0
    return jnp.mean(jnp.all(own | (margins > 0), axis=1).astype(jnp.float32))


def lower_margins(net: Net, threat: Threat, x: jax.Array, y: jax.Array) -> jax.Array:
    """[B, K] lower bounds of `(p - e_k) . z` over each row's set by intervals, of the net in evaluation mode; 0 at a label's own class.

    Guarantee: sound up to float32 rounding, for any net whose operations have rules. Differentiable in the parameters, x and eps.
    Cost: 2 forwards; the gradient 2 more of each kind. On CPUs with the compiled convolutions.
    Source: Gowal et al. 2018, eq. 6, 7 and section 3 (elision).
    """

    def run(net: Net, threat: Threat, x: jax.Array, y: jax.Array) -> jax.Array:
        graph, out, region, ranges = bounded(net, threat, x, False)
        return jnp.moveaxis(least(graph, out, margin_forms(graph, out, y), region, ranges), 0, 1)

    return tuned_call(run, *_arguments(net, threat, x, y))


def mixed_loss(net: Net, threat: Threat, x: jax.Array, y: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([B] worst loss, [B, K] margins) at `beta` times the margins by CROWN-IBP plus the rest by IBP (Zhang et al. 2020)."""

    def run(net: Net, threat: Threat, x: jax.Array, y: jax.Array, beta: jax.Array, native: bool) -> jax.Array:
        graph, out, region, ranges = bounded(net, threat, x, native)
        forms = margin_forms(graph, out, y)
        by_intervals = least(graph, out, forms, region, ranges)
        by_lines = least(graph, out, forms, region, ranges, lines_of(graph, out, ranges))
        return jnp.moveaxis(by_intervals + beta * jnp.maximum(by_lines - by_intervals, 0), 0, 1)

    margins = on_platform(run, *_arguments(net, threat, x, y), beta)
    return worst_loss(margins), margins


def fused_loss(net: Net, threat: Threat, x: jax.Array, y: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([B] worst loss, [B, K] margins by IBP), the loss by one linear form.

    With `v_k = -(p - e_k) . z` in `[l_k, u_k]` by intervals, `exp v_k <= exp u_k + s_k (v_k - u_k)`, s_k the chord's slope. So the sum of
    exponentials is at most `sum exp u_k + sum s_k (v_k - u_k)`, and the second sum is linear in z: CROWN-IBP bounds it at once.
    """

    def run(net: Net, threat: Threat, x: jax.Array, y: jax.Array, beta: jax.Array, native: bool) -> tuple[jax.Array, jax.Array]:
        graph, out, region, ranges = bounded(net, threat, x, native)
        forms = margin_forms(graph, out, y)
        ends = least(graph, out, jnp.concatenate([forms, -forms]), region, ranges)
        lower, width = ends[: len(forms)], jnp.maximum(-ends[len(forms) :] - ends[: len(forms)], 0)
        top = jax.lax.stop_gradient(jnp.max(-lower, axis=0))
        highest = jnp.exp(-lower - top)
        some = jnp.where(width > 1e-3, width, 1.0)
        slopes = highest * jnp.where(width > 1e-3, -jnp.expm1(-some) / some, 1 - 0.5 * width)
        form = jnp.sum(slopes[..., None] * forms, axis=0, keepdims=True)
        by_lines = least(graph, out, form, region, ranges, lines_of(graph, out, ranges))[0]
        gained = jnp.maximum(by_lines, least(graph, out, form, region, ranges)[0]) - jnp.sum(slopes * lower, axis=0)
        return top + jnp.log(jnp.sum(highest, axis=0) - beta * gained), jnp.moveaxis(lower, 0, 1)

    return on_platform(run, *_arguments(net, threat, x, y), beta)


def _wide(x: Any) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _arguments(net: Net, threat: Threat, x: jax.Array, y: jax.Array) -> tuple[Net, Threat, jax.Array, jax.Array]:
    """What is bounded, in float32 whatever training computes in; statistics are constants there."""
    x = x.astype(_wide(x))
    return net.replace(state=jax.lax.stop_gradient(net.state)), threat.canonical(x), x, y


def graph_of(net: Net, x: jax.Array, native: bool) -> tuple[Graph, int]:
    """The net in evaluation mode as a graph of all rows, and the node of its logits."""
    graph = of_model(net.model(), x, native)
    return graph, output(graph)


Region = Callable[[jax.Array], jax.Array]  # forms [S, B, ...] on the input -> [S, B], their least values over each row's set


class _Ranges(Sequence[Range]):
    """Intervals of nodes, each as (lower, upper) or as (centre, radius); the other form is made when it is asked for.

    `tuned` folds a bias into a convolution that nothing else reads, so a form that nobody asked for must not be in the program.
    """

    def __init__(self) -> None:
        self._ends: list[Range | None] = []
        self.spreads: dict[int, Range] = {}

    def add(self, ends: Range) -> None:
        self._ends.append(ends)

    def add_spread(self, centre: jax.Array, radius: jax.Array) -> None:
        self.spreads[len(self._ends)] = centre, radius
        self._ends.append(None)

    def spread(self, index: int) -> Range:
        if index in self.spreads:
            return self.spreads[index]
        lo, hi = self[index]
        return 0.5 * (lo + hi), 0.5 * (hi - lo)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        found = self._ends[index]
        if found is None:
            centre, radius = self.spreads[index]
            found = self._ends[index] = centre - radius, centre + radius
        return found


def _spread(node: Node, ranges: _Ranges) -> Range | None:
    """(centre, radius) of products with weights and ReLUs, and of what only moves or shifts one of them; None for another node.

    `Contract.interval` has a third product, for what an unbounded input reaches; here such an interval becomes NaN.
    """
    if node.hint is not None or len(node.inputs) != 1:
        return None
    (i,) = node.inputs
    if isinstance(node, Kink) and (node.neg, node.pos) == (0.0, 1.0):
        lo, hi = (jax.nn.relu(v) for v in ranges[i])
        return 0.5 * (lo + hi), 0.5 * (hi - lo)
    if isinstance(node, Contract) or (isinstance(node, Scale | Move) and i in ranges.spreads):
        centre, radius = ranges.spread(i)
        centre = node.op(centre)
        return centre if node.bias is None else centre + node.bias, node.absolute(radius)
    return None


def bounded(net: Net, threat: Threat, x: jax.Array, native: bool) -> tuple[Graph, int, Region, _Ranges]:
    """The graph, its output, the region, and every node's interval."""
    lo, hi = threat.interval(x)

    def region(a: jax.Array) -> jax.Array:
        if isinstance(threat, LInf | Box):
            return summed(positive(a), lo) + summed(negative(a), hi)
        return -jnp.moveaxis(threat.support(x, -jnp.moveaxis(a, 0, 1)), 1, 0)

    with jax.numpy_rank_promotion("allow"):
        graph, out = graph_of(net, x, native)
        ranges = _Ranges()
        for index, node in enumerate(graph.nodes[: out + 1]):
            if isinstance(node, Input):
                ranges.add_spread(0.5 * (lo + hi), 0.5 * (hi - lo))
            elif (spread := _spread(node, ranges)) is not None:
                ranges.add_spread(*spread)
            else:
                ranges.add(range_of(graph, index, [(lo, hi)], ranges, False))
    return graph, out, region, ranges


def margin_forms(graph: Graph, out: int, y: jax.Array) -> jax.Array:
    """[K, B, K] the forms `p - e_k` on the logits."""
    k = graph.nodes[out].shape[1]
    p = distribution(y, k).astype(graph.nodes[out].dtype)
    return p[None] - jnp.eye(k, dtype=p.dtype)[:, None]


def summed(a: jax.Array, v: Any) -> jax.Array:
    """[S, B] of `a [S, B, ...]` times what broadcasts to `[B, ...]`."""
    return jnp.sum(a * v, axis=tuple(range(2, a.ndim)))


def least(graph: Graph, out: int, a: jax.Array, region: Region, ranges: _Ranges, lines: Mapping[int, Lines] | None = None) -> jax.Array:
    """[S, B] lower bounds of the forms `a [S, B, K]` on the output: with the lines of all curves and kinks by CROWN, else by IBP."""
    found = _walk(graph, out, a, region, ranges, lines, frozenset())
    if lines is not None:
        return found
    # a maximum is known better by its own interval than by the parts it is written with, and log-softmax the other way round
    hinted = frozenset(i for i in graph.ancestors(out) if graph.nodes[i].hint is not None)
    return jnp.maximum(found, _walk(graph, out, a, region, ranges, None, hinted)) if hinted else found


def _walk(
    graph: Graph, out: int, a: jax.Array, region: Region, ranges: _Ranges, lines: Mapping[int, Lines] | None, ends: frozenset[int]
) -> jax.Array:
    """One walk back, rows side by side (`bound._backward` has one row). It ends at the nodes `ends`, and at others than affine ones without
    `lines`, with their intervals."""
    waiting, at = {out: a}, jnp.zeros(a.shape[:2], a.dtype)
    with jax.numpy_rank_promotion("allow"):
        for index in graph.ancestors(out):
            form = waiting.pop(index, None)
            if form is None:
                continue
            node = graph.nodes[index]
            up, down = positive(form), negative(form)
            parts: Sequence[jax.Array] = ()
            if isinstance(node, Input):
                at = at + region(form)
            elif isinstance(node, Affine) and index not in ends:
                parts = transposed(node, form)
                at = at if node.bias is None else at + summed(form, node.bias)
            elif isinstance(node, Kink | Curve) and lines is not None:
                line = lines[index]
                parts = [up * line.lower_slope + down * line.upper_slope]
                at = at + summed(up, line.lower_at) + summed(down, line.upper_at)
            elif isinstance(node, Product) and lines is not None:
                (x0, _), (y0, y1) = (ranges[i] for i in node.inputs)
                parts, _ = planes(node, form, *(ranges[i] for i in node.inputs))
                at = at - summed(up, node.run(x0, y0)) - summed(down, node.run(x0, y1))
            else:
                centre, radius = ranges.spread(index)
                at = at + summed(form, centre) - summed(jnp.abs(form), radius)
            for i, part in zip(node.inputs if parts else (), parts, strict=True):
                waiting[i] = waiting[i] + part if i in waiting else part
    return at


def transposed(node: Affine, form: jax.Array) -> list[jax.Array]:
    """Forms on the value as forms on the inputs; those of a convolution join the batch, where its kernel is one for all of them."""
    if not isinstance(node, Contract) or node.conv is None:
        return node.transpose(form)
    (s, b), shape = form.shape[:2], node.input_shapes[0]
    _, pull = jax.vjp(node.op, jnp.zeros((s * b, *shape[1:]), form.dtype))
    return [pull(form.reshape(s * b, *form.shape[2:]))[0].reshape(s, b, *shape[1:])]
