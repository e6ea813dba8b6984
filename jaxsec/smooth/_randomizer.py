"""What smoothing does to an input to make a sample of it, and which changes of the input a probability of the top class withstands."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..threat import Patch, Threat
from ._noise import DISTRIBUTIONS, copies, vote
from ._radius import norm_of, probability_for, radius_of


@dataclasses.dataclass(frozen=True)
class Reach:
    """What probabilities certify under one threat. radius: of probabilities and the rows' indices, float64, 0 where nothing is certified.
    p0: [N] the least probability that certifies each row's eps, above 1 where none does."""

    norm: str
    radius: Callable[[np.ndarray, np.ndarray], np.ndarray]
    p0: np.ndarray


class Randomizer(abc.ABC):
    """Makes samples: `draw` under `jit`, `reach` on the host. Subclasses are frozen dataclasses of static values, part of programs' names.

    Guarantee: sample i of a row is a function of the row's key words, i and the row; samples are independent and of one law.
    """

    scaled: ClassVar[bool] = True  # by a sigma, which the method must then give

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As results and messages call it."""

    def held(self, x: np.ndarray) -> np.ndarray:
        """[N, ...] rows as `draw` takes them; ValueError or TypeError for rows that cannot be sampled."""
        return x if x.dtype == np.uint8 else x.astype(np.float32)

    def shared(self, sigma: np.ndarray) -> tuple[Any, ...]:
        """Arrays that all samples read."""
        return ()

    @abc.abstractmethod
    def draw(
        self, words: jax.Array, x: jax.Array, first: jax.Array, sigma: jax.Array, shared: tuple[Any, ...], *, n: int, dtype: Any
    ) -> jax.Array:
        """[S * n, ...] what the model is shown: samples first .. first + n - 1 of each row.

        Args: words: [S, 2] uint32 key words. x: [S, ...] as `held` gives it. first: [S, 2] uint32, low word first. sigma: [S].
        """

    def votes(self, logits: jax.Array, valid: jax.Array, shared: tuple[Any, ...]) -> jax.Array:
        """[S, K] int32 which classes the logits [S * n, K] vote for; valid: [S] how many of the n samples count."""
        return vote(logits, jnp.zeros((len(valid), logits.shape[-1]), jnp.int32), valid)

    @abc.abstractmethod
    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        """What is certified of rows of this shape; ValueError for a threat of which nothing is. sigma: [N] float64."""


@dataclasses.dataclass(frozen=True)
class Additive(Randomizer):
    """Noise that is added: "gaussian", "laplace" or "uniform", as `smooth.noise` makes it."""

    distribution: str

    @property
    def name(self) -> str:
        return self.distribution

    def draw(
        self, words: jax.Array, x: jax.Array, first: jax.Array, sigma: jax.Array, shared: tuple[Any, ...], *, n: int, dtype: Any
    ) -> jax.Array:
        return copies(words, x, sigma, first, n, mean=0.0, std=1.0, channel_axis=-1, dtype=dtype, distribution=self.distribution)

    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        norm, d = norm_of(threat), int(np.prod(shape))
        eps = eps_of(threat, len(sigma))

        def radius(p: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return radius_of(p, self.distribution, norm, sigma[rows], d)

        return Reach(norm, radius, probability_for(eps, self.distribution, norm, sigma, d))


def eps_of(threat: Threat, rows: int) -> np.ndarray:
    """[N] float64; of a `Patch` its longer side in pixels."""
    eps = max(threat.sides) if isinstance(threat, Patch) else getattr(threat, "eps")  # noqa: B009  # of sets that have one
    return np.broadcast_to(np.asarray(eps, np.float64).reshape(-1), (rows,))


def randomizer_of(distribution: str | Randomizer) -> Randomizer:
    """The randomizer that a method's field names; ValueError for other names."""
    if isinstance(distribution, Randomizer):
        return distribution
    if distribution in DISTRIBUTIONS:
        return Additive(distribution)
    if distribution == "splitting":
        from ._splitting import Splitting  # it is a Randomizer

        return Splitting()
    raise ValueError(f"distribution is {distribution!r}; allowed are {', '.join(DISTRIBUTIONS)}, splitting, or a Randomizer.")
