"""MACER: training that widens the radius which a smoothed classifier certifies, without any attack."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from ..core import static, struct
from ._losses import accuracy, distribution
from ._net import Net
from ._recipe import Metrics
from ._smoothed import Noised, log_mean_softmax
from ._wrapped import check_range

_LEAST = -69.0  # log 1e-30: below, float32 has no quantile


@struct
class MACER(Noised):
    """Cross-entropy of the averaged softmax, plus a hinge on the certified radius of the rows it gets right.

    Args:
      sigma: deviation of the noise in units of x, which is also the certificate's. noises: copies of each row in a step (static).
      weight: of the radius, the paper's lambda. margin: the hinge's gamma, in units of sigma / 2: rows certified beyond are left alone.
      temperature: the inverse temperature beta that sharpens the softmax of the radius towards votes.
    Cost: `noises` forwards and gradients in the parameters.
    Edge cases: weight 0 leaves the cross-entropy of the averaged softmax. Probabilities below 1e-30 have no gradient. Labels as
      distributions have the radius of their largest class.
    Source: Zhai et al. 2020, algorithm 1: CE(p, y) + lambda sigma / 2 max(0, gamma - xi) where p is right, with
      xi = Phi^-1(p_y) - Phi^-1(max_{k != y} p_k). As in the authors' code, beta enters the radius and the choice of the rows only, and
      the cross-entropy is at temperature 1. Phi^-1(p_y) is computed as -Phi^-1(1 - p_y) from the other classes, so that p_y near 1
      keeps its digits; theirs drops such rows.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import MACER
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> value, metrics = MACER(sigma=0.25, noises=4).loss(model, jnp.eye(2), jnp.array([0, 1]), jax.random.key(0))
      >>> float(metrics["smoothed_accuracy"])
      1.0
    """

    name: ClassVar[str] = "macer"
    summary: ClassVar[str] = "cross-entropy under noise + hinge on the certified radius"
    cost: ClassVar[str] = "noises"
    source: ClassVar[str] = "Zhai et al. 2020, arXiv:2001.02378"

    noises: int = static(default=16)
    weight: Any = 12.0
    margin: Any = 8.0
    temperature: Any = 16.0

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        for field in ("weight", "margin", "temperature"):
            check_range(self, field, least=0.0)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = self.answers(net, prepared, keys)
        log_mean = log_mean_softmax(logits, self.noises)
        plain = -jnp.sum(distribution(y, log_mean.shape[1]) * log_mean, axis=1)
        sharp = log_mean_softmax(self.temperature * logits, self.noises)
        label = jnp.argmax(y, axis=1) if y.ndim == 2 else y
        right = jnp.argmax(sharp, axis=1) == label
        # a wrong row's quantiles may have infinite slopes, and infinity times 0 is no number; a right one has p_y at least 1 / K
        xi = margin_of(jnp.where(right[:, None], sharp, -math.log(sharp.shape[1])), label)
        hinge = jnp.where(right, jnp.maximum(self.margin - xi, 0.0), 0.0)
        loss = jnp.mean(plain + self.weight * self.sigma / 2 * hinge)
        radius = self.sigma / 2 * jnp.mean(jnp.where(right, jnp.maximum(xi, 0.0), 0.0))
        return loss, {"smoothed_accuracy": accuracy(log_mean, y), "soft_radius": radius}, net


def margin_of(log_p: jax.Array, label: jax.Array) -> jax.Array:
    """[B] `Phi^-1(p_y) - Phi^-1(max_{k != y} p_k)` of log probabilities [B, K]: the certified radius in units of sigma / 2."""
    others = jnp.where(jax.nn.one_hot(label, log_p.shape[1], dtype=bool), -jnp.inf, log_p)
    rest = jnp.clip(jax.nn.logsumexp(others, axis=1), _LEAST, 0.0)  # log(1 - p_y)
    second = jnp.clip(jnp.max(others, axis=1), _LEAST, 0.0)
    return -ndtri(jnp.exp(rest)) - ndtri(jnp.exp(second))
