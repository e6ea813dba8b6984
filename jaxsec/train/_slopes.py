"""Regularisation of slopes around any recipe: input gradients and Jacobians, differentiated once more in the parameters."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ..core._keys import fold
from ._losses import cross_entropy
from ._net import Net
from ._regularise import Penalised

_PROJECTION = 110  # fold of a row's key


@struct
class InputGradientPenalty(Penalised):
    """`weight` times the mean over rows of the squared Euclidean length of the cross-entropy's gradient in the input.

    The net is asked at the clean rows in evaluation mode, so that a row's gradient is its own and BatchNorm's statistics are as deployed.
    Cost: 1 forward and input gradient, and the gradient of both in the parameters: 3 backward passes.
    Edge cases: a row whose softmax has saturated has no gradient left and pays nothing: gradient masking. Judge such a net by an attack on
      margins (`PGD(loss="margin")`, AutoAttack), not by cross-entropy alone.
    Source: Drucker and LeCun 1992 (double backpropagation); Ross and Doshi-Velez 2018.
    """

    name: ClassVar[str] = "input-gradient"
    summary: ClassVar[str] = "any recipe + squared input gradient of the cross-entropy"
    cost: ClassVar[str] = "+ 3"
    source: ClassVar[str] = "Ross and Doshi-Velez 2018, arXiv:1711.09404"

    def penalty(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        slope = jax.grad(lambda v: jnp.sum(cross_entropy(net.evaluated(v, keys), y)))(x)
        return jnp.sum(slope * slope) / x.shape[0]


@struct
class JacobianPenalty(Penalised):
    """`weight / 2` times the mean over rows of the squared Frobenius norm of the logits' Jacobian in the input.

    Guarantee: an unbiased estimate from `projections` random unit vectors per row (static); exact where None.
    The net is asked at the clean rows in evaluation mode, as by `InputGradientPenalty`.
    Cost: 1 forward and `projections` (None: K) input gradients, and their gradient in the parameters.
    Source: Hoffman et al. 2019, section 2 and algorithm 1; v uniform on the sphere in R^K has K E ||v^T J||^2 = ||J||_F^2.
    """

    name: ClassVar[str] = "jacobian"
    summary: ClassVar[str] = "any recipe + squared Frobenius norm of the input-output Jacobian"
    cost: ClassVar[str] = "+ 3 projections"
    source: ClassVar[str] = "Hoffman et al. 2019, arXiv:1908.02729"

    projections: int | None = static(default=1)

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        if self.projections is not None and self.projections < 1:
            raise ValueError(f"{self.name} got projections={self.projections}; it must be at least 1, or None for the exact norm.")

    def penalty(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        logits, pull = jax.vjp(lambda v: net.evaluated(v, keys), x)
        b, k = logits.shape
        if self.projections is None:
            directions, scale = jnp.broadcast_to(jnp.eye(k, dtype=logits.dtype)[:, None], (k, b, k)), 1.0
        else:
            draw = functools.partial(jax.random.normal, shape=(self.projections, k), dtype=logits.dtype)
            z = jnp.swapaxes(jax.vmap(draw)(fold(keys, _PROJECTION)), 0, 1)
            directions, scale = z / jnp.linalg.norm(z, axis=-1, keepdims=True), k / self.projections
        squares = jax.lax.map(lambda v: jnp.sum(pull(v)[0] ** 2), directions)
        return scale * jnp.sum(squares) / (2 * b)
