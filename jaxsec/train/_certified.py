"""Certified training: the loss at a proved bound on the worst case, by intervals (IBP) or by linear forms on top of them (CROWN-IBP)."""

import math
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..bound import UnsupportedPrimitive
from ..core import row_keys, static, struct
from ._losses import accuracy, cross_entropy
from ._net import Net
from ._recipe import Metrics, Recipe
from ._rows_apart import check_rows_apart
from ._schedule import ramp, share_of
from ._worst_case import certified, fused_loss, lower_margins, mixed_loss, worst_loss


@struct
class Bounded(Recipe):
    """Base of recipes that bound the net over `threat`, whose eps grows from 0 by itself: `warmup`, then `ramp`, shares of training."""

    threat: Any
    warmup: Any = 0.1
    ramp: Any = 0.5

    @property
    def grows(self) -> bool:
        return False

    @property
    def bounds(self) -> str:
        """Lines, except for nets that are trained to be proved by intervals: others' intervals say little of them."""
        return "crown-ibp"

    @property
    def settled(self) -> float:
        return float(np.asarray(self.warmup + self.ramp))

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_bounds(self, net, x)

    def share_at(self, progress: jax.Array) -> jax.Array:
        """[] in [0, 1]: how much of the ramp is behind."""
        return share_of(progress, self.warmup, self.ramp)

    def at(self, progress: jax.Array) -> Self:
        return self.replace(threat=self.threat.scaled(ramp(self.share_at(progress), "smooth")))


@struct
class IBPTraining(Bounded):
    """Cross-entropy at interval bounds of the logits, mixed with the clean one; eps and the mixture grow during training.

    Guarantee: the worst loss is at least the cross-entropy at every point of the set, for the net in evaluation mode (the one that will be
      certified) and up to float32 rounding, where the net passes `check`: it has to see rows one by one. Statistics of BatchNorm come from
      clean rows in training mode.
    Args:
      threat: any threat set; bounds are over its `interval` box. kappa: share of the clean loss in the end, in [0, 1].
      warmup, ramp: shares of training, at eps 0 and kappa 1, then until both have reached their end; their sum is at most 1.
    Cost: 3 forwards and gradients in the parameters.
    Edge cases: distributions as labels are bounded as they are; a row counts as certified for its largest class.
    Source: Gowal et al. 2018, eq. 6, 7 and section 3; the ramp of eps is a fourth power up to a quarter of its way, then linear.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import IBPTraining
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

    kappa: Any = 0.5

    @property
    def bounds(self) -> str:
        return "ibp"

    def at(self, progress: jax.Array) -> Self:
        return super().at(progress).replace(kappa=1 + self.share_at(progress) * (self.kappa - 1))

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        clean, new = net.training(x, keys)
        margins = lower_margins(new, self.threat, x, y)
        loss = self.kappa * jnp.mean(cross_entropy(clean, y)) + (1 - self.kappa) * jnp.mean(worst_loss(margins))
        return loss, {"clean_accuracy": accuracy(clean, y), "certified_accuracy": certified(margins, y)}, new


@struct
class CROWNIBPTraining(Bounded):
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

    kappa: Any = 0.5
    beta: Any = 0.0
    fused: bool = static(default=True)

    def at(self, progress: jax.Array) -> Self:
        share = self.share_at(progress)
        return super().at(progress).replace(kappa=1 + share * (self.kappa - 1), beta=1 + share * (self.beta - 1))

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


def check_bounds(recipe: Any, net: Net, x: jax.Array) -> None:
    """ValueError where the net cannot be bounded as training will do it, or the schedule is none."""
    if net.draws:
        raise ValueError(f"{recipe.name} bounds the net, which draws random numbers in evaluation mode; train it with another recipe.")
    schedule = {k: getattr(recipe, k) for k in ("warmup", "ramp", "kappa", "beta", "alpha", "share") if hasattr(recipe, k)}
    for key, value in schedule.items():
        if not isinstance(value, Tracer) and not bool(jnp.all((0 <= jnp.asarray(value)) & (jnp.asarray(value) <= 1))):
            raise ValueError(f"{recipe.name} got {key}={value}; it is a share, from 0 to 1.")
    whole = recipe.warmup + recipe.ramp
    if not isinstance(whole, Tracer) and not bool(jnp.all(jnp.asarray(whole) <= 1 + 1e-6)):
        raise ValueError(
            f"{recipe.name} got warmup={recipe.warmup} and ramp={recipe.ramp}: shares of training one after the other, so their sum is at "
            "most 1; eps would not reach its end."
        )
    # one step's gradient with everything traced, as under jit; the adversary's part, `prepare`, only asks the net itself

    def step(params: Any, net: Net, x: jax.Array) -> jax.Array:
        keys = row_keys(jax.random.key(0), jnp.arange(len(x), dtype=jnp.uint32))
        return recipe.objective(net.replace(params=params), x, x, jnp.zeros(len(x), jnp.int32), keys)[0]

    try:
        jax.eval_shape(jax.grad(step), net.params, net, x)
        check_rows_apart(net, x)
    except UnsupportedPrimitive as e:
        raise ValueError(f"{recipe.name} cannot bound this net: {e}") from e
    except jax.errors.JAXTypeError as e:
        raise ValueError(f"{recipe.name} cannot bound this net while it is traced: {str(e).splitlines()[0]}") from e
