"""A bound on the net's Lipschitz constant in L2, and the radius that margins then certify.

The constant is the product of those of the operations, read off the traced program; products with weights get a rigorous bound of their
true operator norm, padding and stride included. What float32 rounds on the way is bounded in the same walk.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..bound._apart import check_apart
from ..bound._graph import UnsupportedPrimitive
from ..core import Model
from ..core._check import check_batch
from ..core._meshes import on_any_mesh
from ..threat import L2
from ._lipschitz_walk import Depends, Known, walked
from ._net import Net, net_of
from ._operator_norms import SLACK, conv_norm, dense_norm

# Of the logits' and the input's size: the rounding of a margin where it is not bounded.
_ROUNDING = 4e-6


@on_any_mesh
def lipschitz_certify(model: Model | Net, x: jax.Array, y: Any, *, constant: float | None = None, sound: bool = False) -> np.ndarray:
    """[B] float32: the L2 radius around each row within which its class is proved not to change; 0 for a wrong row.

    Guarantee: `margin / (sqrt(2) L)`, rounded down. Without `sound` of the net as a real function, short of rounding beyond 4e-6 of the
      sizes of input and logits (a net that adds 1e6 and takes it off again rounds more). With `sound` of the net as float32 evaluates it:
      what rounding may do to the margin, here and anywhere in the ball, is taken off. Of arithmetic it is supposed that sums of n products
      are off by at most `gamma(n)` of their terms' sizes, elementary functions by 16 roundings, and weights that the program computes by
      1e-6: not so with TF32 or Winograd's convolutions (on GPUs deploy with `jax.default_matmul_precision("highest")`, as the margin is
      computed here). Holds with or without a box of valid inputs.
    Args: x [B, ...]; y [B] classes. constant: an L of your own, above 0, where you know a smaller one.
    Raises: ValueError: as `lipschitz_constant`; labels or rows that the net does not have. TypeError: x not floating, y not integer; rows,
      weights or arithmetic of less than float32, whose rounding nothing here bounds.
    Cost: 1 forward, 13 of seven rows that ask whether rows stay apart, and the constant. `sound` bounds rounding by norms, layer by layer,
      for the worst order of sums: about `1e-7 n` of the input's size for n products, which takes 0.5 off the radii of a net of six layers
      on 32 x 32 x 3.
    Source: Tsuzuku et al. 2018, proposition 1 and section 4; Li et al. 2019; rounding: Higham 2002, lemma 3.1.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import lipschitz_certify
      >>> def linear(params, x):
      ...     return x @ params
      >>> lipschitz_certify(jaxsec.bind(linear, jnp.eye(2)), jnp.array([[2.0, 0.0]]), jnp.array([0])).round(3).tolist()
      [1.4140000343322754]
    """
    if constant is not None and not 0 < constant < math.inf:
        raise ValueError(f"constant is {constant}; a Lipschitz constant is above 0 and finite.")
    net = net_of(model)
    x, y, _ = check_batch(net.model(), x, y, L2(eps=0.0), 1)
    _refuse_half(net, x)
    out = _walked(net, x)  # also tells weights that no constant bounds
    most, slope, offset = out.growth if isinstance(out, Depends) else np.zeros(3)
    most = most if constant is None else constant
    z = np.asarray(_logits(net, x), np.float64)
    own = np.arange(z.shape[1])[None] == y[:, None]
    margin = z[own] - np.max(np.where(own, -np.inf, z), axis=1)
    size = np.linalg.norm(np.asarray(x, np.float64).reshape(len(y), -1), axis=1)
    if sound:
        # no point of any ball is larger; the difference of two logits is off both here and there
        reach = size + (np.maximum(margin, 0) / (math.sqrt(2) * most) if most else 0)
        proved = margin - 2 * math.sqrt(2) * (slope * reach + offset)
    else:
        proved = margin - _ROUNDING * (np.max(np.abs(z), axis=1) + most * size)
    exact = np.where(proved > 0, proved, 0) / (math.sqrt(2) * most * SLACK) if most else np.where(proved > 0, np.inf, 0.0)
    radius = exact.astype(np.float32)
    return np.where(radius > exact, np.nextafter(radius, np.float32(0)), radius)


def _refuse_half(net: Net, x: Any) -> None:
    weights = [("weights", w.dtype) for w in jax.tree.leaves((net.params, net.state))]
    for what, dtype in [("rows", x.dtype), ("arithmetic", net.dtype or jnp.float32), *weights]:
        if _narrow(dtype):
            raise TypeError(
                f"lipschitz_certify got {what} of {jnp.dtype(dtype).name}, whose rounding it does not bound; deploy and certify the net in "
                "float32 (a Net: net.replace(dtype=None), weights and rows: .astype('float32'))."
            )


def _narrow(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def _wide(net: Net) -> Net:
    """The net in float32, whatever its weights are stored in and it trains in."""
    params, state = jax.tree.map(_at_least_float32, (net.params, net.state))
    return net.replace(params=params, state=state, dtype=None)


def _at_least_float32(v: Any) -> Any:
    return jnp.asarray(v, jnp.promote_types(v.dtype, jnp.float32)) if jnp.issubdtype(v.dtype, jnp.floating) else v


@jax.jit
def _logits(net: Net, x: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):  # accelerators otherwise round products to 10 bits
        return net(x)


@on_any_mesh
def lipschitz_constant(model: Model | Net, x: Any) -> float:
    """An upper bound of the Lipschitz constant of the logits in L2, of the net in evaluation mode.

    Guarantee: rigorous for the weights as they are, in float32, with 1e-6 for their rounding. Of a dense layer, and of a convolution with
      at most 1,024 inputs or outputs, the exact norm; of a larger one the smaller of two bounds of its norm on an endless picture
      (`conv_norm`).
    Args: x [B, ...]: rows whose shape counts.
    Raises: ValueError: an operation whose constant is not known, by its name; NaN or infinite weights; rows that the net does not take; a
      net whose answer to a row depends on the others.
    Edge cases: residual sums add; a product of two values that both depend on the input has no constant.
    """
    out = _walked(_wide(net_of(model)), x)
    return out.constant if isinstance(out, Depends) else 0.0


def _walked(net: Net, x: Any) -> Any:
    """`walked` with rigorous norms and rounding; ValueError where a bound is no number."""

    def norm(eqn: Any, w: Known, position: int) -> float:
        value = np.asarray(w.value)
        return dense_norm(eqn, value, position) if eqn.primitive.name == "dot_general" else conv_norm(eqn, value)

    if any(isinstance(w, Tracer) for w in jax.tree.leaves((net.params, net.state))):
        raise TypeError("lipschitz_constant needs the weights' numbers, and was called under a trace; call it outside of jit.")
    out = walked(net, x, norm, rounding=True)
    if isinstance(out, Depends) and not (model := net.model()).stochastic:
        try:
            check_apart(model, x)
        except UnsupportedPrimitive as e:
            raise ValueError(f"the constant is that of one row, and this is {e}") from e
    if isinstance(out, Depends) and not np.isfinite(out.growth).all():
        raise ValueError(
            "the net's weights have no finite Lipschitz constant or rounding: some are NaN, infinite or too large for float32."
        )
    return out
