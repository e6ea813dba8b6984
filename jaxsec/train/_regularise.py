"""Regularisation around any recipe: prices on its weights."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ._net import Net
from ._power import power_iteration
from ._recipe import Metrics
from ._wrapped import Wrapped, check_range

_POWER = 111  # fold of a row's key


@struct
class Penalised(Wrapped):
    """Base of recipes that add `weight` times a penalty to the inner recipe's loss; the metrics hold the penalty under their name."""

    weight: Any

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "weight", least=0.0)

    @abc.abstractmethod
    def penalty(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        """[] what `weight` multiplies, differentiated in `net.params`."""

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        loss, metrics, after = self.recipe.objective(net, prepared, x, y, keys)
        penalty = self.penalty(net, x, y, keys)
        return loss + self.weight * penalty, {**metrics, self.name.replace("-", "_"): penalty}, after


def kernels(params: Any) -> list[jax.Array]:
    """The floating parameters that weight penalties count: those with two axes or more. Biases, scales and shifts have fewer."""
    return [w for w in jax.tree.leaves(params) if jnp.ndim(w) >= 2 and jnp.issubdtype(jnp.result_type(w), jnp.floating)]


@struct
class L1Penalty(Penalised):
    """`weight` times the sum of absolute kernel entries (parameters with two axes or more).

    Cost: one pass over the parameters. Edge cases: at entries that are 0 the slope is 0.
    Source: Tibshirani 1996, the lasso in its penalised form.
    """

    name: ClassVar[str] = "l1"
    summary: ClassVar[str] = "any recipe + the sum of absolute weights"
    cost: ClassVar[str] = "+ 0"
    source: ClassVar[str] = "Tibshirani 1996, JRSS B 58"

    def penalty(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        return sum((jnp.sum(jnp.abs(w)) for w in kernels(net.params)), jnp.zeros(()))


@struct
class L2Penalty(Penalised):
    """`weight / 2` times the sum of squared kernel entries (parameters with two axes or more), whose gradient is `weight` times the kernel.

    Inside an adaptive optimiser this is not weight decay: for the decoupled form give `fit` `optax.adamw(rate, weight_decay=...)`.
    Cost: one pass over the parameters.
    Source: Krogh and Hertz 1991; decoupled: Loshchilov and Hutter 2019.
    """

    name: ClassVar[str] = "l2"
    summary: ClassVar[str] = "any recipe + half the sum of squared weights"
    cost: ClassVar[str] = "+ 0"
    source: ClassVar[str] = "Krogh and Hertz 1991, NeurIPS"

    def penalty(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        return sum((jnp.sum(w * w) for w in kernels(net.params)), jnp.zeros(())) / 2


@struct
class SpectralPenalty(Penalised):
    """`weight / 2` times the sum of squared spectral norms of the kernels, each reshaped to a matrix with one column per output.

    Guarantee: none about the network. A convolution's matrix is its kernel reshaped, as in the paper, whose norm is not that of the
      convolution, so no Lipschitz bound follows; each norm is met from below, and its slope is exact where the power method has settled.
    Args:
      iterations: of the power method, from a vector drawn anew in every step (static). output_axis: -1 in Flax and in `x @ w`, 0 for
        kernels in the layout of Equinox and PyTorch (static).
    Cost: `2 iterations + 3` products of each kernel with a vector.
    Edge cases: kernels that are 0 add 0. Kernels are the parameters with two axes or more, embeddings included.
    Source: Yoshida and Miyato 2017, section 3 and algorithm 1. Theirs keeps the vector from step to step and iterates once.
    """

    name: ClassVar[str] = "spectral"
    summary: ClassVar[str] = "any recipe + half the sum of squared spectral norms"
    cost: ClassVar[str] = "+ 0"
    source: ClassVar[str] = "Yoshida and Miyato 2017, arXiv:1705.10941"

    iterations: int = static(default=20)
    output_axis: int = static(default=-1)

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        if self.iterations < 1 or self.output_axis not in (-1, 0):
            raise ValueError(
                f"{self.name} got iterations={self.iterations}, output_axis={self.output_axis}; allowed: iterations at least 1, "
                "output_axis -1 (Flax) or 0 (Equinox, PyTorch)."
            )

    def penalty(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        found = kernels(net.params)
        draws = jax.random.split(jax.random.fold_in(keys[0], _POWER), max(len(found), 1))  # the batch's draw is its first row's
        matrices = [_matrix(w, self.output_axis) for w in found]
        norms = [
            power_iteration(lambda v, m=m: m @ v, m.shape[1:], m.dtype, self.iterations, k) for m, k in zip(matrices, draws, strict=False)
        ]
        return sum((norm * norm for norm in norms), jnp.zeros(())) / 2


def _matrix(w: jax.Array, output_axis: int) -> jax.Array:
    """[inputs, outputs]."""
    return w.reshape(-1, w.shape[-1]) if output_axis == -1 else w.reshape(w.shape[0], -1).T
