"""Which order statistics bound a percentile with confidence: exact binomial tails, in float64 on the host."""

import numpy as np

# bdtr and ndtr are good to about 1e-13; probabilities are moved this much, relative to them, to the side that widens the bounds.
_ROUNDED = 1e-10


def lower_rank(n: int, q: np.ndarray | float, alpha: float) -> np.ndarray:
    """The largest k such that the k-th smallest of n samples is above the q-quantile with a probability of at most alpha; 0: there is none.

    Guarantee: for any law and any t with `P(X <= t) >= q`, ties included: `P(X_(k) > t) <= alpha`, because X_(k) > t means that fewer than
      k samples are at most t, and their number is binomial with a probability of at least q. Rounded towards smaller k.
    Args: q: in [0, 1]; broadcasts. alpha: in (0, 1).
    Returns: int64. `n + 1 - lower_rank(n, 1 - q, alpha)` is the rank from above; n + 1: there is none.
    Cost: log2(n) binomial tails.
    Source: the distribution-free interval of a quantile, e.g. David and Nagaraja 2003, section 7.1.

    Example:
      >>> lower_rank(100, np.array([0.5, 0.01]), 0.025).tolist()
      [40, 0]
    """
    from scipy import special

    q = np.asarray(q, np.float64) * (1 - _ROUNDED)
    low, high = np.zeros(q.shape, np.int64), np.full(q.shape, n + 1, np.int64)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        fits = special.bdtr(np.maximum(middle - 1, 0).astype(np.float64), n, q) * (1 + _ROUNDED) <= alpha
        fits = fits | (middle == 0)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return low


def shifted(q: float, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(q_lo, 1 - q_hi), `Phi(Phi^-1(q) -+ shift)`: how far Gaussian noise moved by `shift` standard deviations can move a probability.

    Source: Chiang et al. 2020, lemma 1; the Neyman-Pearson lemma for two Gaussians.

    Example:
      >>> low, left = shifted(0.5, np.array([0.0, 1.0]))
      >>> low.round(4).tolist(), left.round(4).tolist()
      ([0.5, 0.1587], [0.5, 0.1587])
    """
    from scipy import special

    return special.ndtr(special.ndtri(q) - shift), special.ndtr(-special.ndtri(q) - shift)


def bounds_of(values: np.ndarray, below: int, middle: int, above: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(lower, percentile, upper, NaNs) [M]: the order statistics of [n, M] samples of ranks 1 .. n; rank 0 is -inf, n + 1 is inf.

    A NaN counts as -inf below, as inf above, and as inf in the middle: whatever number it stands for, the bounds hold.
    """
    n, nans = len(values), np.isnan(values).sum(0)
    ordered = np.sort(values, 0)  # NaN last
    ordered[np.isnan(ordered)] = np.inf
    rank = below - nans
    at = np.take_along_axis(ordered, np.maximum(rank - 1, 0)[None], 0)[0]
    lower = np.where(rank > 0, at, -np.inf).astype(values.dtype)
    upper = ordered[above - 1] if above <= n else np.full(values.shape[1:], np.inf, values.dtype)
    return lower, ordered[middle - 1], upper, nans
