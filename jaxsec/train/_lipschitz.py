"""Lipschitz nets: a bound on the net's Lipschitz constant in L2, the radius that margins then certify, and a loss that asks for margins.

The constant is the product of those of the operations, read off the traced program; products with weights get a rigorous bound of their
true operator norm, padding and stride included. `_lipschitz_layers` has layers whose constant is at most 1 whatever their weights.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ..core import Model, static, struct
from ..core._walk import rebound
from ..threat import L2
from ._lipschitz_walk import Depends, Known, walked
from ._losses import accuracy, cross_entropy, distribution
from ._net import Net, net_of
from ._operator_norms import SLACK, conv_norm, dense_norm
from ._recipe import Metrics, Recipe

# Of the logits' and the input's size: float32 rounding of a margin.
_ROUNDING = 4e-6


@struct
class LipschitzMargin(Recipe):
    """Cross-entropy with an offset on the label's logit, or a hinge on the margin: a net of constant 1 is certified by its margins.

    Guarantee: refuses a net whose constant may exceed 1 for some weights, because margins of such a net can be had by scaling it up.
    Args:
      offset: how much the label's logit must lead by before it counts; `sqrt(2)` times the radius that matters.
      temperature: of the cross-entropy, above 0; small means that margins beyond the offset add nothing.
      normalise: after every update, divide each layer's weights by their norm where that is above 1 (`spectral_normalised`, 2% off at
        most), so that any net of known operations may be trained; without, a net of layers whose constant is 1 anyway (static).
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
            return
        # a constant that holds for these weights only would not survive the first update
        larger = lipschitz_constant(net.replace(params=jax.tree.map(lambda w: 3 * w, net.params)), x)
        if max(constant, larger) > 1.001:
            raise ValueError(
                f"{self.name} needs a net whose Lipschitz constant is at most 1 whatever its weights, and of this one it is only known to "
                f"be at most {constant:.4g} now; build it from AOLDense, AOLConv and MaxMin, or take normalise=true."
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


def lipschitz_certify(model: Model | Net, x: jax.Array, y: Any, *, constant: float | None = None) -> np.ndarray:
    """[B] float32: the L2 radius around each row within which its class is proved not to change; 0 for a wrong row.

    Guarantee: `margin / (sqrt(2) L)`, in exact arithmetic at least that, since 4e-6 of the sizes of logits and input are taken off the
      margin for float32 rounding, and the result is rounded down. Holds with or without a box of valid inputs.
    Args: x [B, ...]; y [B] classes. constant: L, if it has been computed before by `lipschitz_constant`.
    Raises: ValueError: as `lipschitz_constant`. Cost: 1 forward, and the constant.
    Source: Tsuzuku et al. 2018, proposition 1 and section 4; Li et al. 2019.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import lipschitz_certify
      >>> def linear(params, x):
      ...     return x @ params
      >>> lipschitz_certify(jaxsec.bind(linear, jnp.eye(2)), jnp.array([[2.0, 0.0]]), jnp.array([0])).round(3).tolist()
      [1.4140000343322754]
    """
    net = net_of(model)
    constant = lipschitz_constant(net, x) if constant is None else constant
    z = np.asarray(_logits(net.replace(dtype=None), jnp.asarray(x)), np.float64)
    y = np.asarray(y)
    own = np.arange(z.shape[1])[None] == y[:, None]
    margin = z[own] - np.max(np.where(own, -np.inf, z), axis=1)
    size = np.max(np.abs(z), axis=1) + constant * np.linalg.norm(np.asarray(x, np.float64).reshape(len(y), -1), axis=1)
    exact = np.maximum(margin - _ROUNDING * size, 0) / (math.sqrt(2) * constant * SLACK) if constant else np.where(margin > 0, np.inf, 0.0)
    radius = exact.astype(np.float32)
    return np.where(radius > exact, np.nextafter(radius, np.float32(0)), radius)


@jax.jit
def _logits(net: Net, x: jax.Array) -> jax.Array:
    return net(x)


def lipschitz_constant(model: Model | Net, x: Any) -> float:
    """An upper bound of the Lipschitz constant of the logits in L2, of the net in evaluation mode.

    Guarantee: rigorous for the weights as they are, with 1e-6 for their rounding. Of a dense layer, and of a convolution with at most 1,024
      inputs or outputs, the exact norm; of a larger one the smaller of two bounds of its norm on an endless picture (`conv_norm`).
    Args: x [B, ...]: rows whose shape counts.
    Raises: ValueError: an operation whose constant is not known, by its name; it can be added to the net's constant by hand.
    Edge cases: residual sums add; a product of two values that both depend on the input has no constant.
    """
    net = net_of(model)

    def norm(eqn: Any, w: Known, position: int) -> float:
        if isinstance(w.value, Tracer):
            raise TypeError("lipschitz_constant needs the weights' numbers, and was called under a trace; call it outside of jit.")
        value = np.asarray(w.value)
        return dense_norm(eqn, value, position) if eqn.primitive.name == "dot_general" else conv_norm(eqn, value)

    out = walked(net, x, norm)
    return out.constant if isinstance(out, Depends) else 0.0


def spectral_normalised(net: Net, x: Any, *, most: Any = 1.0, steps: int = 20) -> Net:
    """The net with every weight array divided by so much that no product with it has a norm above `most`, as power iteration finds it.

    Guarantee: the norm is that of the operator, with its padding and stride, at these inputs' shape. Power iteration comes from below, so
      the bound is approximate (2% after 20 steps): what certifies is `lipschitz_constant` of the result, which is rigorous.
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
            found = power_iteration(lambda v: rebound(eqn, [v, w.value] if position else [w.value, v])[0], aval.shape, aval.dtype, steps)
            sizes[w.leaf] = jnp.maximum(sizes[w.leaf], found) if w.leaf in sizes else found
        return 1.0

    walked(net, x, norm)
    scaled = [w / jnp.maximum(sizes[i] / most, 1).astype(w.dtype) if i in sizes else w for i, w in enumerate(leaves)]
    return net.replace(params=jax.tree.unflatten(tree, scaled))


def power_iteration(op: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any, steps: int) -> jax.Array:
    """[] the largest singular value of a linear operator, from below; its derivative is that at the singular vectors found."""
    transpose = jax.linear_transpose(op, jax.ShapeDtypeStruct(shape, dtype))
    start = jax.random.normal(jax.random.key(0), shape, dtype)

    def step(_: Any, v: jax.Array) -> jax.Array:
        (v,) = transpose(op(v))
        return v / jnp.maximum(jnp.linalg.norm(v.reshape(-1)), jnp.finfo(dtype).tiny)

    v = lax.stop_gradient(step(0, start))
    v = lax.stop_gradient(lax.fori_loop(0, steps, step, v))
    return jnp.linalg.norm(op(v).reshape(-1))
