"""The worst cross-entropy over a threat set, bounded from above: by intervals, by CROWN-IBP's margins, or by one fused form.

For a label distribution p the worst cross-entropy over a set is `max log sum_k exp(z_k - p . z)`, which is increasing in each exponent; so
K linear forms `(p - e_k) . z` bounded from below bound it from above, without K x K pairs. The forms are merged with the affine end of the
net (elision of the last layer). Bounds are of the net in evaluation mode, which is the net that will be certified.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..bound._lines import lines_of
from ..bound._run import of_model, on_platform, output
from ..core._rewrite import tuned_call
from ..threat import Threat
from ._batch_bounds import bounded, least, margin_forms
from ._losses import distribution
from ._net import Net


def worst_loss(margins: jax.Array) -> jax.Array:
    """[B] the largest cross-entropy that lower bounds [B, K] of `(p - e_k) . z` allow."""
    return jax.nn.logsumexp(-margins, axis=1)


def certified(margins: jax.Array, y: jax.Array) -> jax.Array:
    """[] share of rows whose class no point of the set changes; for a distribution its largest class."""
    own = distribution(jnp.argmax(y, axis=1) if y.ndim == 2 else y, margins.shape[1]) > 0
    return jnp.mean(jnp.all(own | (margins > 0), axis=1).astype(jnp.float32))


def lower_margins(net: Net, threat: Threat, x: jax.Array, y: jax.Array) -> jax.Array:
    """[B, K] lower bounds of `(p - e_k) . z` over each row's set by intervals, of the net in evaluation mode; 0 at a label's own class.

    Guarantee: sound up to float32 rounding, for any net whose operations have rules and that `check_rows_apart` passes. Differentiable
      in the parameters, x and eps.
    Cost: 2 forwards; the gradient 2 more of each kind. On CPUs with the compiled convolutions.
    Source: Gowal et al. 2018, eq. 6, 7 and section 3 (elision).
    """

    def run(net: Net, threat: Threat, x: jax.Array, y: jax.Array) -> jax.Array:
        graph, out, region, ranges = bounded(net, threat, x, False)
        return jnp.moveaxis(least(graph, out, margin_forms(graph, out, y), region, ranges), 0, 1)

    return tuned_call(run, *_arguments(net, threat, x, y))


def tighter_margins(net: Net, threat: Threat, x: jax.Array, y: jax.Array) -> jax.Array:
    """[B, K] as `lower_margins`, or by CROWN-IBP where that says more. Cost: K forms walked back through the whole net, kept at once."""

    def run(net: Net, threat: Threat, x: jax.Array, y: jax.Array, native: bool) -> jax.Array:
        return jnp.moveaxis(jnp.fmax(*_both(net, threat, x, y, native)), 0, 1)

    return on_platform(run, *_arguments(net, threat, x, y))


@jax.jit
def numbers_kept(net: Net, x: jax.Array) -> jax.Array:
    """[] how many numbers the K forms of one row of x [B, ...] are at the net's largest value. Traced only: once for a net and a shape."""
    with jax.numpy_rank_promotion("allow"):
        graph = of_model(net.model(), jax.ShapeDtypeStruct((1, *x.shape[1:]), wide(x)), False)  # pyright: ignore[reportArgumentType]
    out = output(graph)
    return jnp.float32(graph.nodes[out].shape[1] * max(math.prod(graph.nodes[i].shape) for i in graph.ancestors(out)))


def mixed_loss(net: Net, threat: Threat, x: jax.Array, y: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([B] worst loss, [B, K] margins) at `beta` times the margins by CROWN-IBP plus the rest by IBP (Zhang et al. 2020)."""

    def run(net: Net, threat: Threat, x: jax.Array, y: jax.Array, beta: jax.Array, native: bool) -> jax.Array:
        by_intervals, by_lines = _both(net, threat, x, y, native)
        return jnp.moveaxis(by_intervals + beta * jnp.maximum(by_lines - by_intervals, 0), 0, 1)

    margins = on_platform(run, *_arguments(net, threat, x, y), beta)
    return worst_loss(margins), margins


def _both(net: Net, threat: Threat, x: jax.Array, y: jax.Array, native: bool) -> tuple[jax.Array, jax.Array]:
    """[K, B] margins by intervals, and by lines over them."""
    graph, out, region, ranges = bounded(net, threat, x, native)
    forms = margin_forms(graph, out, y)
    return least(graph, out, forms, region, ranges), least(graph, out, forms, region, ranges, lines_of(graph, out, ranges))


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


def wide(x: Any) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _arguments(net: Net, threat: Threat, x: jax.Array, y: jax.Array) -> tuple[Net, Threat, jax.Array, jax.Array]:
    """What is bounded, in float32 whatever training computes in; statistics are constants there."""
    x = x.astype(wide(x))
    return net.replace(state=jax.lax.stop_gradient(net.state)), threat.canonical(x), x, y
