"""Small boxes around adversarial points: bounds over a part of the threat set, which cost less accuracy than bounds over all of it."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ..threat import Box, LInf, Threat
from ._adversarial import check_steps
from ._certified import Bounded
from ._inner import worst_of
from ._losses import accuracy, cross_entropy
from ._net import Net
from ._recipe import Metrics
from ._worst_case import certified, lower_margins, worst_loss
from ._wrapped import check_range


@struct
class SABR(Bounded):
    """Interval bounds over a small box around the worst point that an attack finds, instead of over the whole threat set.

    Guarantee: the box lies in the threat set; the loss is at least the cross-entropy of every point in it, for the net in evaluation mode.
      `share` 0 is adversarial training in evaluation mode, `share` 1 is IBP training without a clean loss.
    Args:
      threat: `LInf` or `Box`. share: half-width of the small box in half-widths of the set (the paper's lambda), in [0, 1].
      steps, step_size, start: of the attack, inside the set shrunk by `1 - share`; as `PGDAT`. warmup, ramp: as `IBPTraining`.
    Cost: `steps` forwards and input gradients, 2 forwards and gradients in the parameters; a net with statistics 1 forward more.
    Source: Mueller et al. 2023, section 3.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import SABR
      >>> def linear(params, x):
      ...     return x @ params
      >>> recipe = SABR(threat=jaxsec.LInf(eps=0.5), share=0.1, start="clean")
      >>> loss, _ = recipe.loss(jaxsec.bind(linear, jnp.eye(2)), jnp.eye(2), jnp.array([0, 1]), jax.random.key(0))
      >>> round(float(loss), 4)  # a linear net: the worst point is a corner, and the box around it ends there
      0.6931
    """

    name: ClassVar[str] = "sabr"
    summary: ClassVar[str] = "interval bounds over a small box around an adversarial point"
    cost: ClassVar[str] = "steps + 2"
    source: ClassVar[str] = "Mueller et al. 2023, arXiv:2210.04871"

    share: Any = 0.4
    steps: int = static(default=8)
    step_size: Any = None
    start: str = static(default="uniform")

    def check(self, net: Net, x: jax.Array) -> None:
        check_steps(self, net, x)
        if not isinstance(self.threat, LInf | Box):
            raise ValueError(
                f"{self.name} got the threat {type(self.threat).__name__}; its boxes are parts of LInf or Box. Others: ibp, mtl-ibp."
            )
        super().check(net, x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        centres = self.threat.scaled(1 - jnp.asarray(self.share, jnp.float32))
        return worst_of(self, lambda v: cross_entropy(net.evaluated(v, keys), y), x, keys, centres)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        if jax.tree.leaves(net.state):  # statistics come from clean rows
            net = net.training(x, keys)[1]
        box = small_box(self.threat, x, prepared, self.share)
        margins = lower_margins(net, box, prepared, y)
        return jnp.mean(worst_loss(margins)), {"box_accuracy": certified(margins, y)}, net


@struct
class MTLIBP(Bounded):
    """A mixture of the adversarial loss and the loss at interval bounds over the whole set.

    Guarantee: between the adversarial loss (a lower bound of the worst case) at `alpha` 0 and IBP's (an upper bound) at 1.
    Args:
      threat: any threat set. alpha: weight of the interval bounds, in [0, 1]. attack_scale: eps of the attack in multiples of the threat's,
        for a stronger attack at small alpha. steps, step_size, start: of the attack, as `PGDAT`. warmup, ramp: as `IBPTraining`.
    Cost: `steps` forwards and input gradients, 3 forwards and gradients in the parameters.
    Source: De Palma et al. 2024, section 4.2. Statistics of BatchNorm come from the adversarial rows.
    """

    name: ClassVar[str] = "mtl-ibp"
    summary: ClassVar[str] = "adversarial loss mixed with the loss at interval bounds"
    cost: ClassVar[str] = "steps + 3"
    source: ClassVar[str] = "De Palma et al. 2024, arXiv:2305.13991"

    alpha: Any = 0.1
    attack_scale: Any = 1.0
    steps: int = static(default=8)
    step_size: Any = None
    start: str = static(default="uniform")

    def check(self, net: Net, x: jax.Array) -> None:
        check_steps(self, net, x)
        check_range(self, "attack_scale", least=0.0)
        super().check(net, x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        larger = self.threat.scaled(jnp.asarray(self.attack_scale, jnp.float32))
        return worst_of(self, lambda v: cross_entropy(net.evaluated(v, keys), y), x, keys, larger)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        attacked, new = net.training(prepared, keys)
        margins = lower_margins(new, self.threat, x, y)
        loss = (1 - self.alpha) * jnp.mean(cross_entropy(attacked, y)) + self.alpha * jnp.mean(worst_loss(margins))
        return loss, {"adversarial_accuracy": accuracy(attacked, y), "certified_accuracy": certified(margins, y)}, new


def small_box(threat: Threat, x: jax.Array, at: jax.Array, share: Any) -> Box:
    """The box of half-width `share` times the set's around the points `at` [B, ...], cut off at the set's own box.

    Guarantee: inside `threat.interval(x)`, which for `LInf` and `Box` is the set; holds `at` wherever that is in the set. Around points of
      the set shrunk by `1 - share` nothing is cut off but what is outside of the valid inputs.
    Args: share: scalar or [B], in [0, 1]; half-widths are eps for a ball, each element's own for a `Box`.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> from jaxsec.train._small_box import small_box
      >>> box = small_box(jaxsec.LInf(eps=0.5, lo=0.0, hi=1.0), jnp.array([[0.25, 0.5]]), jnp.array([[0.125, 0.875]]), 0.25)
      >>> box.lower.tolist(), box.upper.tolist()
      ([[0.0, 0.75]], [[0.25, 1.0]])
    """
    lo, hi = threat.interval(x)
    share = jnp.asarray(share, lo.dtype)
    share = share.reshape(-1, *(1,) * (x.ndim - 1)) if share.ndim else share
    half = 0.5 * (hi - lo) if isinstance(threat, Box) else threat.radius(x).astype(lo.dtype).reshape(-1, *(1,) * (x.ndim - 1))
    return Box(lower=jnp.clip(at - share * half, lo, hi), upper=jnp.clip(at + share * half, lo, hi))
