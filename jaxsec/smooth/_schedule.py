"""When the samples of a row are enough. Rules look at counts at numbers of samples that are fixed beforehand, so that when a row stops
depends on the row, the key and the rule, and not on how many rows are sampled at once."""

import abc
import dataclasses
from collections.abc import Callable

import numpy as np

from ._betting import log_wealth, lower_sequence, upper_sequence
from ._confidence import lower_bound, upper_bound

OPEN, CERTIFIED, REFUTED = 0, 1, -1  # at the radius that was asked for


@dataclasses.dataclass(frozen=True)
class Rule(abc.ABC):
    """`n` samples of the top class at most, confidence 1 - alpha."""

    n: int
    alpha: float

    @abc.abstractmethod
    def stops(self) -> np.ndarray:
        """[J] int64, rising, the last one n: after how many samples counts are looked at."""

    @abc.abstractmethod
    def decided(self, k: np.ndarray, n: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """[B] int: what k of n samples of those rows show; OPEN goes on."""

    def lower(self, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        """[B] float64: what p is at least, with confidence 1 - alpha, when a row has stopped with k of n samples."""
        return lower_bound(k, n, self.alpha)


@dataclasses.dataclass(frozen=True)
class Fixed(Rule):
    """All n samples, then Clopper-Pearson (Cohen et al. 2019)."""

    def stops(self) -> np.ndarray:
        return np.array([self.n])

    def decided(self, k: np.ndarray, n: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.full(np.shape(k), OPEN)


@dataclasses.dataclass(frozen=True)
class Betting(Rule):
    """Is p at least p0? By betting, as often as one looks; what is left after n samples by Clopper-Pearson.

    Guarantee: CERTIFIED while p < p0 with a probability of at most alpha: `share` alpha for betting and the rest for the last look, by the
      union bound. REFUTED (which nothing depends on) while p >= p0 likewise.
    Source: see `log_wealth`; the stopping question is Voracek 2024's.
    """

    p0: np.ndarray  # [N], for each row
    share: float = 0.5
    growth: float = 1.05
    start: int = 16

    def stops(self) -> np.ndarray:
        return geometric(self.start, self.growth, self.n)

    def decided(self, k: np.ndarray, n: np.ndarray, rows: np.ndarray) -> np.ndarray:
        p0 = self.p0[rows]
        enough = -np.log(self.share * self.alpha)
        yes, no = log_wealth(k, n, p0) >= enough, log_wealth(k, n, p0, above=False) >= enough
        if (last := n >= self.n).any():
            left = (1 - self.share) * self.alpha
            yes = yes | (last & (lower_bound(k, n, left) >= p0))
            no = no | (last & (upper_bound(k, n, left) < p0))
        return np.where(yes, CERTIFIED, np.where(no | (p0 > 1), REFUTED, OPEN))  # of p0 above 1 nothing can be certified; 1 may be rounded

    def lower(self, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        bet = lower_sequence(k, n, self.share * self.alpha)
        return np.where(np.asarray(n) >= self.n, np.maximum(bet, lower_bound(k, n, (1 - self.share) * self.alpha)), bet)


@dataclasses.dataclass(frozen=True)
class Staged(Rule):
    """Is p at least p0? By Clopper-Pearson at a few stages, alpha divided among them (Bonferroni); the plain alternative to `Betting`."""

    p0: np.ndarray  # [N]
    stages: tuple[int, ...] = (100, 1_000, 10_000)

    def stops(self) -> np.ndarray:
        return np.array([*(s for s in self.stages if s < self.n), self.n])

    def decided(self, k: np.ndarray, n: np.ndarray, rows: np.ndarray) -> np.ndarray:
        each = self.alpha / len(self.stops())
        yes, no = lower_bound(k, n, each) >= self.p0[rows], upper_bound(k, n, each) < self.p0[rows]
        return np.where(yes, CERTIFIED, np.where(no | (self.p0[rows] > 1), REFUTED, OPEN))

    def lower(self, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        return lower_bound(k, n, self.alpha / len(self.stops()))


@dataclasses.dataclass(frozen=True)
class Within(Rule):
    """What is the radius, to within tau? Stops when its confidence interval is that short, or when it surely abstains."""

    tau: float
    radius: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of p in [1/2, 1] and rows
    growth: float = 1.05
    start: int = 16

    def stops(self) -> np.ndarray:
        return geometric(self.start, self.growth, self.n)

    def decided(self, k: np.ndarray, n: np.ndarray, rows: np.ndarray) -> np.ndarray:
        low, high = lower_sequence(k, n, self.alpha), upper_sequence(k, n, self.alpha)
        with np.errstate(invalid="ignore"):
            short = self.radius(np.maximum(high, 0.5), rows) - self.radius(np.maximum(low, 0.5), rows) <= self.tau
        return np.where(high < 0.5, REFUTED, np.where(short & (low > 0.5), CERTIFIED, OPEN))

    def lower(self, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        return lower_sequence(k, n, self.alpha)


def geometric(start: int, growth: float, n: int) -> np.ndarray:
    """start, then each `growth` times the last, up to and with n."""
    found = [min(start, n)]
    while found[-1] < n:
        found.append(min(n, max(found[-1] + start, int(found[-1] * growth))))
    return np.array(found)
