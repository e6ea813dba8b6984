"""Smoothing without chance: a randomizer that has few variations of an input, all of which are counted."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from ..core._struct import static, struct
from ..threat import Threat
from ._certificate import SmoothedCertificate, SmoothedVerdict
from ._method import SmoothingMethod
from ._randomizer import Randomizer, Reach
from ._sampling import Tally
from ._schedule import Fixed, Rule


class Enumeration(Randomizer):
    """A randomizer of finitely many equally likely variations: sample i is variation i of the row.

    Guarantee of `reach`: as in other randomizers, with leads (see `leads`) in the place of probabilities. If a change of the input within
      the threat changes at most k of the variations, a lead of 2 k is enough: the class loses at most k votes and another gains at most k.
    """

    sampled: ClassVar[bool] = False

    @abc.abstractmethod
    def variations(self, sigma: float, shape: tuple[int, ...]) -> int:
        """How many variations rows of this shape have; ValueError for rows or settings that do not go together."""

    @abc.abstractmethod
    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        """radius: of leads in votes, [B] int64, and rows. p0: the least lead that certifies the threat."""


@struct
class ExhaustiveSmoothing(SmoothingMethod):
    """Smoothing by counting every variation of an input: the counts are exact, and so are the certificates.

    Guarantee: no probability of error; `confidence` is 1. The smoothed classifier is the argmax of the counts, of tied classes the lower
      index, and it gives `predict` at every input within `radius`. The classifier is the model as it was executed, in `dtype`.
    """

    n0: int = static(default=0)
    n: int = static(default=0)
    alpha: float = static(default=0.0)
    dtype: str = static(default="float32")
    seed: ClassVar[int] = 0

    @property
    @abc.abstractmethod
    def randomizer(self) -> Enumeration:
        """What enumerates."""

    def rule(self, p0: np.ndarray, radius: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
        return Fixed(self.n, 0.0)

    def fitted(self, shape: tuple[int, ...]) -> Self:
        sigma = np.asarray(1.0 if self.sigma is None else self.sigma, np.float64)
        return self.replace(n=self.randomizer.variations(float(sigma), shape))

    def words(self, key: Any, row_ids: np.ndarray) -> np.ndarray:
        """Those of the seed, the same for all rows: all that is random is chosen once."""
        if key is not None:
            raise ValueError(f"key is given, and {type(self).__name__} counts all its variations without drawing any; leave key out.")
        return np.broadcast_to(np.array([self.seed & 0xFFFFFFFF, self.seed >> 32], np.uint32), (len(row_ids), 2))

    def answer(self, counts: np.ndarray, looks: int = 1) -> np.ndarray:
        return counts.argmax(1)

    def check(self) -> None:
        for name in ("n0", "n", "alpha"):
            if (value := getattr(self, name)) != 0:
                raise ValueError(f"{name} is {value!r}; {type(self).__name__} counts all variations of a row, without error; leave it out.")
        self.check_scale()

    def conclude(self, tally: Tally, y: np.ndarray, eps: np.ndarray, rule: Rule, reach: Reach) -> SmoothedCertificate:
        top, every = tally.counts.argmax(1), np.arange(len(y))
        lead = leads(tally.counts)
        robust = (top == y) & (lead >= reach.p0)
        status = np.where(robust, SmoothedVerdict.CERTIFIED, np.where(top == y, SmoothedVerdict.REFUTED, SmoothedVerdict.WRONG))
        votes = np.take_along_axis(tally.counts, top[:, None], 1)[:, 0]
        return SmoothedCertificate(
            robust=robust, radius=reach.radius(lead, every), predict=top, p_lower=share_of(votes, self.n), counts=tally.counts,
            samples=tally.n, status=status.astype(np.int32), confidence=1.0, method=self.name, distribution=self.randomizer.name,
            norm=reach.norm, dtype=self.dtype,
        )  # fmt: skip


def leads(counts: np.ndarray) -> np.ndarray:
    """[B] int64: by how many votes the argmax of counts [B, K] leads; one less over classes of a lower index, which win ties.

    Guarantee: while the lead is at least 0 the argmax is the same class.

    Example:
      >>> leads(np.array([[5, 3, 5], [3, 5, 2], [1, 4, 5]])).tolist()
      [0, 1, 0]
    """
    counts = counts.astype(np.int64)
    top, classes = counts.argmax(1)[:, None], np.arange(counts.shape[1])[None]
    others = np.where(classes == top, np.iinfo(np.int64).min, counts + (classes < top))
    return np.take_along_axis(counts, top, 1)[:, 0] - others.max(1)


def share_of(votes: np.ndarray, n: int) -> np.ndarray:
    """[B] float64: votes / n, rounded down."""
    share = votes / n
    return np.where(votes % n == 0, share, np.nextafter(share, 0.0))  # the quotient is the nearest float, which may be above
