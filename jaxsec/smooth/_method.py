"""The smoothing methods: what is sampled, and when it is enough."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from ..core._struct import Struct, static, struct
from ._certificate import SmoothedCertificate
from ._conclude import sampled
from ._confidence import predict_from_counts
from ._inputs import row_words
from ._randomizer import Randomizer, Reach, randomizer_of
from ._sampling import Tally
from ._schedule import Betting, Fixed, Rule, Staged, Within


class SmoothingMethod(Struct, abc.ABC):
    """A way to certify the smoothed classifier: the class that the model gives most of the noised copies of an input.

    Guarantee: each certificate is wrong with a probability of at most alpha over the samples, whatever the model is. It is about the
      smoothed classifier, which is another function than the model, evaluated as it was sampled (`dtype`).
    """

    name: ClassVar[str]
    sigma: Any
    n0: int
    n: int
    alpha: float
    distribution: str | Randomizer
    dtype: str

    @abc.abstractmethod
    def rule(self, p0: np.ndarray, radius: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
        """When samples are enough. p0: [N], the probability that certifies each row's eps; radius: of probabilities and rows."""

    def conclude(self, tally: Tally, y: np.ndarray, eps: np.ndarray, rule: Rule, reach: Reach) -> SmoothedCertificate:
        """The certificates of rows that have been sampled."""
        return sampled(tally, y, eps, rule, reach, self)

    def answer(self, counts: np.ndarray, looks: int = 1) -> np.ndarray:
        """[B] int: the smoothed classifier's class by the votes [B, K] of n samples, or -1; wrong at one of so many looks with alpha."""
        return predict_from_counts(counts, alpha=self.alpha / looks)

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """The method with what depends on the shape of a row filled in."""
        return self

    def words(self, key: Any, row_ids: np.ndarray) -> np.ndarray:
        """[B, 2] uint32: the key words from which each row's samples are drawn."""
        return row_words(key, row_ids)

    @property
    def randomizer(self) -> Randomizer:
        """What `distribution` names."""
        return randomizer_of(self.distribution)

    def check(self) -> None:
        """Raises ValueError for settings that make no sense."""
        if not self.randomizer.sampled:
            raise ValueError(f"the distribution is {self.randomizer.name}, of which all variations are counted: use its own method.")
        for name, least in (("n0", 1), ("n", 1)):
            # narrower integers of NumPy overflow among sample numbers
            if type(value := getattr(self, name)) not in (int, np.int64) or value < least:
                raise ValueError(f"{name} is {value!r}; it must be an int of at least {least}.")
        if not 0 < self.alpha < 1:
            raise ValueError(
                f"alpha is {self.alpha!r}; it must be above 0 and below 1: the probability of a wrong certificate, e.g. 0.001."
            )
        self.check_scale()

    def check_scale(self) -> None:
        """Raises ValueError for a sigma that the randomizer cannot have, and for an unknown dtype."""
        if not (scaled := self.randomizer.scaled) and self.sigma is not None:
            raise ValueError(f"sigma is {self.sigma!r}, which {self.distribution!r} does not read; leave it out.")
        if scaled and self.sigma is None:
            raise ValueError("sigma is missing; give the scale of the noise, in units of x, e.g. 0.25 for images in [0, 1].")
        sigma = np.asarray(self.sigma if scaled else 1.0)
        if not (jnp.issubdtype(sigma.dtype, jnp.floating) or jnp.issubdtype(sigma.dtype, jnp.integer)):
            raise TypeError(f"sigma is {self.sigma!r}; a number, or one for each row, is needed, in units of x.")
        with np.errstate(over="ignore", under="ignore"):
            drawn = sigma.astype(np.float32)  # what samples are scaled by
        if not np.all(np.isfinite(drawn) & (drawn > 0)):
            raise ValueError(f"sigma is {self.sigma!r}; it must be positive and finite, in units of x, e.g. 0.25 for images in [0, 1].")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}; allowed are float32 and bfloat16.")


@struct
class Smoothing(SmoothingMethod):
    """Randomized smoothing with a fixed number of samples: n0 choose the class, n count it, Clopper-Pearson bounds its probability.

    Guarantee: as `SmoothingMethod`; the radius is as large as n samples show, whatever the threat's eps.
    Args:
      sigma: the noise's scale in units of x (of [0, 1] for uint8 images), scalar or [B]; None where the distribution has no scale.
      n0, n: samples. alpha: probability of a wrong certificate, per row.
      distribution: "gaussian" (L2, L1, LInf), "laplace", "uniform" or "splitting" (L1), "discrete-gaussian" (as Gaussian, for images on the
        grid of 1/255, exact in floating point), or a `Randomizer`: `smooth.Ablation` (L0).
      dtype: "float32", or "bfloat16" for the noised inputs, the weights and the forward pass; recorded in the certificate.
    Cost: n0 + n forward passes a row.
    Source: Cohen, Rosenfeld and Kolter 2019, CERTIFY and theorem 1.
    """

    name: ClassVar[str] = "smoothing"
    sigma: Any = None
    n0: int = static(default=100)
    n: int = static(default=100_000)
    alpha: float = static(default=1e-3)
    distribution: str | Randomizer = static(default="gaussian")
    dtype: str = static(default="float32")

    def rule(self, p0: np.ndarray, radius: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
        return Fixed(self.n, self.alpha)


@struct
class SequentialSmoothing(SmoothingMethod):
    """Randomized smoothing that stops as soon as the question is decided: "certified at eps?", or with tau "the radius to within tau".

    Guarantee: as `SmoothingMethod`, at whatever sample it stops. A row that is not decided after n samples is open.
    Args:
      sigma, n0, alpha, distribution, dtype: as in `Smoothing`. n: samples at most.
      tau: None asks about the threat's eps; else a length in the units of the radius, and eps stops nothing. A class that gets nearly all
        samples has no finite upper end, and takes all n.
      by: "betting" (a test by betting, then Clopper-Pearson on the last sample, half of alpha each), or "staged" (Clopper-Pearson after
        100, 1000, 10,000 and n samples, a quarter of alpha each).
    Cost: n0 and few hundred forward passes for rows far from the boundary, n for those at it.
    Source: Voracek 2024 (betting for smoothing); Waudby-Smith and Ramdas 2024; Robbins 1970.
    """

    name: ClassVar[str] = "sequential-smoothing"
    sigma: Any = None
    n0: int = static(default=100)
    n: int = static(default=100_000)
    alpha: float = static(default=1e-3)
    tau: float | None = static(default=None)
    by: str = static(default="betting")
    distribution: str | Randomizer = static(default="gaussian")
    dtype: str = static(default="float32")

    def rule(self, p0: np.ndarray, radius: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
        if self.tau is not None:
            return Within(self.n, self.alpha, self.tau, radius)
        return Betting(self.n, self.alpha, p0) if self.by == "betting" else Staged(self.n, self.alpha, p0)

    def check(self) -> None:
        SmoothingMethod.check(self)
        if self.tau is not None and not self.tau > 0:
            raise ValueError(f"tau is {self.tau!r}; it must be a positive length in the units of the radius, or None.")
        if self.by not in ("betting", "staged"):
            raise ValueError(f"by is {self.by!r}; allowed are betting and staged.")
