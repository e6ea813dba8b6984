"""Training for randomized smoothing: what the net learns from are rows under the Gaussian noise that a certificate will sample."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._native import key_words
from ..core import static, struct
from ..core._keys import fold
from ..smooth._noise import copies
from ._adversarial import check_steps
from ._inner import worst_of
from ._losses import accuracy, cross_entropy, distribution
from ._net import Net
from ._recipe import Metrics, Recipe
from ._wrapped import check_range

_NOISE, _DROPOUT = 10, 120  # folds of a row's key


def noisy_copies(x: jax.Array, sigma: Any, keys: jax.Array, n: int) -> jax.Array:
    """[B * n, ...] copies of rows x [B, ...] with Gaussian noise of deviation sigma, a row's together; not clipped, as certificates sample.

    Guarantee: the noise is a function of the row's key alone, so asking again, at another x, meets the same noise.
    Cost: one native pass over the copies; on a CPU a fifth of the time of `jax.random.normal` (128 rows of 28 x 28, two copies each:
      1.5 ms against 7.6 on one core). Its gradient in x is the sum over copies.
    """
    words = jax.vmap(key_words)(fold(keys, _NOISE))
    return copies(words, x.astype(jnp.float32), sigma, 0, n, dtype=jnp.float32, distribution="gaussian").astype(x.dtype)


def copy_keys(keys: jax.Array, n: int) -> jax.Array:
    """[B * n] keys, one for each copy of a row: what dropout and randomised models draw from."""
    return jax.vmap(lambda key: jax.random.split(key, n))(fold(keys, _DROPOUT)).reshape(-1)


def log_mean_softmax(logits: jax.Array, n: int) -> jax.Array:
    """[B, K] logarithm of the softmax averaged over the n copies of each row; logits [B * n, K]."""
    log_p = jax.nn.log_softmax(logits).reshape(-1, n, logits.shape[1])
    return jax.nn.logsumexp(log_p, axis=1) - math.log(n)


@struct
class Noised(Recipe):
    """Base of recipes that learn from `noises` (static) copies of each row under noise of deviation `sigma`, in units of x."""

    fewest: ClassVar[int] = 1  # copies that the loss is defined for

    sigma: Any
    noises: int = static(default=1)

    @property
    def noise(self) -> Any:
        return self.sigma

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "sigma", least=0.0)
        if self.noises < self.fewest:
            raise ValueError(f"{self.name} got noises={self.noises}; it must be at least {self.fewest}.")

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        return noisy_copies(x, self.sigma, keys, self.noises)

    def answers(self, net: Net, prepared: jax.Array, keys: jax.Array) -> tuple[jax.Array, Net]:
        """(logits [B * noises, K] in training mode, the net with its new statistics): one pass over all copies."""
        return net.training(prepared, copy_keys(keys, self.noises))

    def each(self, net: Net, prepared: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        """The mean cross-entropy over all copies."""
        logits, net = self.answers(net, prepared, keys)
        labels = jnp.repeat(y, self.noises, axis=0)
        return jnp.mean(cross_entropy(logits, labels)), {"noisy_accuracy": accuracy(logits, labels)}, net


@struct
class GaussianAugmentation(Noised):
    """Cross-entropy at `x + sigma z`, z standard normal: what makes a net worth smoothing.

    Guarantee: the noise is the certificate's, Gaussian in every element and not clipped.
    Args: sigma: deviation in units of x. noises: copies of each row in a step (static), 1 in the paper.
    Cost: `noises` forwards and gradients in the parameters.
    Edge cases: sigma 0 is `Standard` on `noises` equal copies.
    Source: Cohen et al. 2019, section 3.3.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import GaussianAugmentation
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, 2 * jnp.eye(2))
      >>> recipe = GaussianAugmentation(sigma=0.0, noises=2)
      >>> value, metrics = recipe.loss(model, jnp.eye(2), jnp.array([0, 1]), jax.random.key(0))
      >>> round(float(value), 4), float(metrics["noisy_accuracy"])
      (0.1269, 1.0)
    """

    name: ClassVar[str] = "gaussian"
    summary: ClassVar[str] = "cross-entropy under Gaussian noise, for randomized smoothing"
    cost: ClassVar[str] = "noises"
    source: ClassVar[str] = "Cohen et al. 2019, arXiv:1902.02918"

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        return self.each(net, prepared, y, keys)


@struct
class SmoothAdvTraining(Noised):
    """Cross-entropy under noise around the point that is worst for the smoothed classifier itself.

    Guarantee: the point is inside the threat set, whose box bounds it before the noise is added.
    Args:
      sigma, noises: as in `GaussianAugmentation`; the same draws serve all steps of the adversary and the loss.
      threat: any set with gradient steps, `L2` in the paper. steps, step_size, start: as in `PGDAT`.
    Cost: `steps * noises` forwards and input gradients, `noises` forwards and gradients in the parameters.
    Edge cases: eps 0 is `GaussianAugmentation` with the same draws; labels as distributions are met on the averaged softmax.
    Source: Salman et al. 2019, eq. 5 and 6 (the adversary ascends `-log mean_i softmax(f(x' + noise_i))_y`) and pseudocode 1 (the loss is
      the mean over all noised copies of the worst point). Their step is 2 eps / steps, ours by default 2.5 as everywhere in this room.
    """

    name: ClassVar[str] = "smoothadv"
    summary: ClassVar[str] = "cross-entropy under noise at the smoothed classifier's worst point"
    cost: ClassVar[str] = "(steps + 1) * noises"
    source: ClassVar[str] = "Salman et al. 2019, arXiv:1906.04584"

    threat: Any
    noises: int = static(default=2)
    steps: int = static(default=10)
    step_size: Any = None
    start: str = static(default="clean")

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_steps(self, net, x)

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
        def smoothed_loss(v: jax.Array) -> jax.Array:
            copies_of_v = noisy_copies(v, self.sigma, keys, self.noises)
            log_p = log_mean_softmax(net.evaluated(copies_of_v, copy_keys(keys, self.noises)), self.noises)
            return -jnp.sum(distribution(y, log_p.shape[1]) * log_p, axis=1)

        worst = worst_of(self, smoothed_loss, x, keys)
        return noisy_copies(worst, self.sigma, keys, self.noises)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        return self.each(net, prepared, y, keys)


@struct
class Consistency(Noised):
    """Cross-entropy under noise, plus a price on answers that differ between draws and on an undecided average.

    Args:
      sigma: as in `GaussianAugmentation`. noises: at least 2 (static).
      weight: of the divergence, the paper's lambda. entropy: weight of the average's entropy, the paper's eta.
    Cost: `noises` forwards and gradients in the parameters.
    Edge cases: both weights 0 give `GaussianAugmentation` with the same draws.
    Source: Jeong and Shin 2020, section 3: mean_i CE(p_i, y) + lambda mean_i KL(p || p_i) + eta H(p), where p is the mean of the p_i.
    """

    name: ClassVar[str] = "consistency"
    summary: ClassVar[str] = "cross-entropy under noise + divergence of the draws from their mean"
    cost: ClassVar[str] = "noises"
    source: ClassVar[str] = "Jeong and Shin 2020, arXiv:2006.04062"
    fewest: ClassVar[int] = 2

    noises: int = static(default=2)
    weight: Any = 10.0
    entropy: Any = 0.5

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "weight", least=0.0)
        check_range(self, "entropy", least=0.0)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = self.answers(net, prepared, keys)
        labels = jnp.repeat(y, self.noises, axis=0)
        log_mean = log_mean_softmax(logits, self.noises)
        mean = jnp.exp(log_mean)
        entropy = -jnp.sum(mean * log_mean, axis=1)
        # KL(p || p_i) averaged over i: only the average of log p_i is needed
        log_each = jnp.mean(jax.nn.log_softmax(logits).reshape(len(mean), self.noises, -1), axis=1)
        apart = jnp.sum(mean * (log_mean - log_each), axis=1)
        loss = jnp.mean(cross_entropy(logits, labels)) + jnp.mean(self.weight * apart + self.entropy * entropy)
        found = {"noisy_accuracy": accuracy(logits, labels), "smoothed_accuracy": accuracy(log_mean, y), "divergence": jnp.mean(apart)}
        return loss, found, net
