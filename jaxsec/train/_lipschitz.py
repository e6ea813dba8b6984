"""Training of Lipschitz nets: a loss that asks for margins, and weights brought back to norm 1.

`_lipschitz_radius` has the constant and the radius that margins then certify; `_lipschitz_layers` layers whose constant is at most 1
whatever their weights.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core import static, struct
from ..core._walk import rebound
from ..threat import L2
from ._lipschitz_radius import lipschitz_certify as lipschitz_certify
from ._lipschitz_radius import lipschitz_constant as lipschitz_constant
from ._lipschitz_walk import Known, walked
from ._losses import accuracy, cross_entropy, distribution
from ._net import Net
from ._power import power_iteration
from ._recipe import Metrics, Recipe

# Sizes of the weights for which a net's constant must hold, tiny ones for nets that divide by them.
_SIZES = (1e-3, 1e3)


@struct
class LipschitzMargin(Recipe):
    """Cross-entropy with an offset on the label's logit, or a hinge on the margin: a net of constant 1 is certified by its margins.

    Guarantee: `check` refuses a net whose constant exceeds 1 with its own weights or with random ones of size 1e-3 or 1e3, because
      margins of such a net can be had by scaling it up. With `normalise`: one whose constant still grows with weights, as by elementwise
      scales.
    Args:
      offset: how much the label's logit must lead by before it counts; `sqrt(2)` times the radius that matters.
      temperature: of the cross-entropy, above 0; small means that margins beyond the offset add nothing.
      normalise: after every update, divide each layer's weights by their norm where that is above 1 (`spectral_normalised`, which misses
        by a few percent), so that nets of dense layers and convolutions may be trained; without, a net whose constant is 1 anyway (static).
      kind: "cross-entropy" or "hinge", `max(0, offset - margin)` (static).
      threat: what validation attacks, an `L2`; the loss does not use it.
    Cost: 1 forward and gradient in the parameters; to normalise, 20 forwards and transposes of one row.
    Source: Prach and Lampert 2022, section 5 (loss), with their offset and temperature; hinge: Anil et al. 2019, section 6.

    Example:
      >>> import jax.numpy as jnp, jax, jaxsec
      >>> from jaxsec.train import LipschitzMargin
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> loss, _ = LipschitzMargin(kind="hinge", offset=1.5).loss(model, jnp.eye(2), jnp.array([0, 1]), jax.random.key(0))
      >>> float(loss)
      0.5
    """

    name: ClassVar[str] = "lipschitz"
    summary: ClassVar[str] = "margins of a net of Lipschitz constant 1, which certify an L2 radius"
    cost: ClassVar[str] = "1"
    source: ClassVar[str] = "Prach and Lampert 2022, arXiv:2208.03160; Tsuzuku et al. 2018, arXiv:1802.04034"

    offset: Any = math.sqrt(2)
    temperature: Any = 0.25
    kind: str = static(default="cross-entropy")
    normalise: bool = static(default=False)
    threat: Any = None

    @property
    def grows(self) -> bool:
        return False

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        if self.kind not in ("cross-entropy", "hinge"):
            raise ValueError(f"{self.name} got kind={self.kind!r}; allowed: cross-entropy, hinge.")
        if not isinstance(self.temperature, Tracer) and not float(self.temperature) > 0:
            raise ValueError(f"{self.name} got temperature={self.temperature}; it must be above 0.")
        if self.threat is not None and not isinstance(self.threat, L2):
            raise ValueError(f"{self.name} got the threat {type(self.threat).__name__}; margins of such nets certify L2 radii: take L2.")
        constant = lipschitz_constant(net, x)
        if self.normalise:
            normal = jax.jit(lambda net: spectral_normalised(net, x))
            once = lipschitz_constant(normal(_random(net, 1e3)), x)
            if max(lipschitz_constant(normal(_random(net, size)), x) for size in (1e-3, 1e6)) > 1.01 * once:
                raise ValueError(
                    f"{self.name} with normalise=true divides weights of products, and this net's constant grows with other weights as "
                    "well (scales by elements, BatchNorm, divisions); leave these out."
                )
            return
        # a constant that holds for these weights only would not survive the first update
        largest = max(constant, *(lipschitz_constant(_random(net, size), x) for size in _SIZES))
        if largest > 1.001:
            raise ValueError(
                f"{self.name} needs a net whose Lipschitz constant is at most 1 whatever its weights; of this one it is only known to "
                f"be at most {constant:.4g} now, and {largest:.4g} with weights of another size; build it from AOLDense, AOLConv and "
                "MaxMin, or take normalise=true (on the command line --set normalise=true)."
            )

    def constrained(self, net: Net, x: jax.Array) -> Net:
        return spectral_normalised(net, x) if self.normalise else net

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = net.training(x, keys)
        own = distribution(y, logits.shape[1])
        if self.kind == "hinge":
            label = jnp.argmax(own, axis=1)[:, None] == jnp.arange(logits.shape[1])[None]
            margin = jnp.sum(jnp.where(label, logits, 0), axis=1) - jnp.max(jnp.where(label, -jnp.inf, logits), axis=1)
            loss = jnp.mean(jnp.maximum(self.offset - margin, 0))
        else:
            loss = self.temperature * jnp.mean(cross_entropy((logits - self.offset * own) / self.temperature, y))
        return loss, {"clean_accuracy": accuracy(logits, y)}, net


def _random(net: Net, size: float) -> Net:
    """The net with normal weights of that deviation (its own may be small, or zero before training) and statistics times as much."""
    leaves, tree = jax.tree.flatten(net.params)
    r = np.random.default_rng(0)
    drawn = [jnp.asarray(r.normal(size=w.shape) * size, w.dtype) if jnp.issubdtype(w.dtype, jnp.floating) else w for w in leaves]
    state = jax.tree.map(lambda v: v * jnp.asarray(size, v.dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v, net.state)
    return net.replace(params=jax.tree.unflatten(tree, drawn), state=state)


def spectral_normalised(net: Net, x: Any, *, most: Any = 1.0, steps: int = 20) -> Net:
    """The net with every weight array divided by so much that no product with it has a norm above `most`, as power iteration finds it.

    Guarantee: the norm is that of the operator, with its padding and stride, at these inputs' shape. Power iteration comes from below, so
      norms end a few percent above `most` (after 20 steps 2 % of a random matrix, 4 % where singular values crowd): what certifies is
      `lipschitz_constant` of the result, which is rigorous.
    Args: x [B, ...]: rows whose shape counts. most: traced. steps: static. Pure, differentiable in the parameters; works under `jit`.
    Edge cases: weights that are computed from several parameters (normalised ones) stay as they are; biases always do.
    Cost: `steps` forwards and transposes of every layer, for one row.
    Source: Miyato et al. 2018, algorithm 1; of the true operator of a convolution as in Tsuzuku et al. 2018, section 4.
    """
    leaves, tree = jax.tree.flatten(net.params)
    sizes: dict[int, jax.Array] = {}

    def norm(eqn: Any, w: Known, position: int) -> float:
        if w.leaf is not None:
            aval = eqn.invars[1 - position].aval
            found = power_iteration(
                lambda v: rebound(eqn, [v, w.value] if position else [w.value, v])[0], aval.shape, aval.dtype, steps, jax.random.key(0)
            )
            sizes[w.leaf] = jnp.maximum(sizes[w.leaf], found) if w.leaf in sizes else found
        return 1.0

    walked(net, x, norm)
    scaled = [w / jnp.maximum(sizes[i] / most, 1).astype(w.dtype) if i in sizes else w for i, w in enumerate(leaves)]
    return net.replace(params=jax.tree.unflatten(tree, scaled))
