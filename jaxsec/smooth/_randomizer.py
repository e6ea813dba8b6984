"""What smoothing does to an input to make a sample of it, and which changes of the input a probability of the top class withstands."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._native import DISCRETE, DISTRIBUTIONS, deviation
from ..threat import L0, Ball, Patch, Threat
from ._noise import copies, table_of, vote
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
    sampled: ClassVar[bool] = True  # at random; else sample i is variation i of few, and all are counted
    smooth: ClassVar[bool] = True  # whether samples have a useful gradient in x

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As results and messages call it."""

    def held(self, x: np.ndarray) -> np.ndarray:
        """[N, ...] rows as `draw` takes them; ValueError or TypeError for rows that cannot be sampled."""
        check_dtype(x)
        return x if x.dtype == np.uint8 else x.astype(np.float32)

    def shared(self, sigma: np.ndarray) -> tuple[Any, ...]:
        """Arrays that all samples read."""
        return ()

    def settled(self, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
        """[N, ...] inputs that `held` takes, between x0 and x in every value: attacked inputs, which a search found among the reals."""
        return x

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
        return copies(words, x, sigma, first, n, dtype=dtype, distribution=self.distribution)

    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        norm, d = norm_of(threat), int(np.prod(shape))
        eps = eps_of(threat, len(sigma))

        def radius(p: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return radius_of(p, self.distribution, norm, sigma[rows], d)

        return Reach(norm, radius, probability_for(eps, self.distribution, norm, sigma, d))


@dataclasses.dataclass(frozen=True)
class DiscreteGaussian(Randomizer):
    """A Gaussian rounded to the grid of 1/255, added in whole numbers: certificates that no rounding of the sampling can break.

    Guarantee: a sample is a function of integers that are drawn exactly; the smoothed classifier at a real input is the one that rounds
      `x + sigma g` to the grid and then asks the model, and the certificate is about all real inputs within the radius.
    Edge cases: rows must lie on the grid (uint8, or float32 that is a multiple of 1/255).
    Source: Voracek and Hein 2023, section 4; `_native/_discrete.py` has the law.
    """

    @property
    def name(self) -> str:
        return DISCRETE

    def held(self, x: np.ndarray) -> np.ndarray:
        check_dtype(x)
        if x.dtype == np.uint8:
            return x
        steps = x.astype(np.float64) * 255
        whole = np.rint(steps)
        off = ~(np.abs(steps - whole) <= 1e-4) | (whole < 0) | (whole > 255)  # float32 of k / 255 is within 2e-5
        if off.any():
            raise ValueError(
                f"x has {int(off.sum())} values that are no k / 255 with k from 0 to 255, the first {x[off][0]:.7g}; {DISCRETE} noise is "
                "on that grid: give uint8 images, or round x to it."
            )
        return whole.astype(np.uint8)

    def settled(self, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
        start, change = np.rint(255 * x0.astype(np.float64)), 255 * (x.astype(np.float64) - x0)
        steps = np.trunc(change + 1e-4 * np.sign(change))  # a whole step that float32 made a little short is one
        return (np.clip(start + steps, 0, 255) / 255).astype(np.float32)

    def shared(self, sigma: np.ndarray) -> tuple[Any, ...]:
        return (table_of(sigma if len(sigma) else 1.0),)

    def draw(
        self, words: jax.Array, x: jax.Array, first: jax.Array, sigma: jax.Array, shared: tuple[Any, ...], *, n: int, dtype: Any
    ) -> jax.Array:
        return copies(words, x, 1.0, first, n, dtype=dtype, distribution=DISCRETE, table=shared[0])

    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        # the law that is drawn is not the exact one but this near, so the exact probability may be lower by as much
        less = deviation(255 * float(sigma[0])) * int(np.prod(shape)) if len(sigma) else 0.0
        exact = Additive("gaussian").reach(threat, sigma, shape)

        def radius(p: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return exact.radius(np.maximum(p - less, 0.0), rows)

        return Reach(exact.norm, radius, exact.p0 + less)


def check_dtype(x: np.ndarray) -> None:
    """TypeError for rows that are neither floating nor bytes, whose units nobody has said."""
    if x.dtype != np.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x has dtype {x.dtype}; floating rows are needed, or uint8 images, which are read as k / 255.")


def eps_of(threat: Threat, rows: int) -> np.ndarray:
    """[N] float64; of a `Patch` its longer side in pixels. ValueError for a set that has no radius."""
    if not isinstance(threat, Ball | L0 | Patch):
        raise ValueError(f"the threat is {type(threat).__name__}, which has no eps; smoothing certifies balls, L0 and Patch.")
    eps = max(threat.sides) if isinstance(threat, Patch) else threat.eps
    return np.broadcast_to(np.asarray(eps, np.float64).reshape(-1), (rows,))


def randomizer_of(distribution: str | Randomizer) -> Randomizer:
    """The randomizer that a method's field names; ValueError for other names."""
    if isinstance(distribution, Randomizer):
        return distribution
    if distribution == DISCRETE:
        return DiscreteGaussian()
    if distribution in DISTRIBUTIONS:
        return Additive(distribution)
    if distribution == "splitting":
        from ._splitting import Splitting  # it is a Randomizer

        return Splitting()
    raise ValueError(f"distribution is {distribution!r}; allowed are {', '.join(DISTRIBUTIONS)}, splitting, or a Randomizer.")
