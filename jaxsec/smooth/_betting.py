"""Tests and confidence bounds that stay valid while samples keep coming, looked at as often as one likes; float64 on the host.

A bettor against `p <= p0` multiplies a wealth of 1 by the likelihood ratio of each trial, averaged over a prior of probabilities above p0.
While the hypothesis holds the wealth is a nonnegative supermartingale, so it ever reaches 1 / alpha with a probability of at most alpha
(Ville 1939). With a Beta prior cut at p0 the wealth after n trials is a function of the count alone.
"""

import numpy as np

_PRIOR = 0.5  # Beta(1/2, 1/2), the prior of Jeffreys; its mass near 1 is where the top class usually is


def log_wealth(k: np.ndarray | int, n: np.ndarray | int, p0: np.ndarray | float, *, above: bool = True) -> np.ndarray:
    """The log of the wealth won against `p <= p0` (above) or `p >= p0` (not above) by k of n trials; broadcasts, float64.

    Guarantee: under the hypothesis `P(some n has log_wealth >= log(1 / alpha)) <= alpha`, whatever the times it is looked at. 0 at n = 0.
    Args: p0: in (0, 1); outside of it -inf, nothing can be won.
    Source: Robbins 1970 (mixtures); Waudby-Smith and Ramdas 2024 (betting); Voracek 2024 for smoothing.

    Example:
      >>> bool(log_wealth(0, 0, 0.9) == 0), bool(log_wealth(100, 100, 0.9) > np.log(1000))
      (True, True)
    """
    from scipy import special

    k, n, p0 = np.asarray(k), np.asarray(n), np.asarray(p0, np.float64)
    if not above:
        return log_wealth(n - k, n, 1 - p0)
    inside = (p0 > 0) & (p0 < 1)
    p = np.where(inside, p0, 0.5)
    won, lost = k + _PRIOR, n - k + _PRIOR
    with np.errstate(divide="ignore"):  # no mass above p0: nothing is won
        posterior = special.betaln(won, lost) + np.log(special.betaincc(won, lost, p))
        prior = special.betaln(_PRIOR, _PRIOR) + np.log(special.betaincc(_PRIOR, _PRIOR, p))
    return np.where(inside, posterior - prior - (special.xlogy(k, p) + special.xlog1py(n - k, -p)), -np.inf)


def lower_sequence(k: np.ndarray | int, n: np.ndarray | int, alpha: float) -> np.ndarray:
    """The lower end of a confidence sequence: with probability at least 1 - alpha it is below p at all n at once.

    Guarantee: every p0 below it is rejected by `log_wealth` at alpha; never above k / n.
    Cost: 60 halvings of an interval, vectorised.

    Example:
      >>> 0.98 < float(lower_sequence(1000, 1000, 1e-3)) < 1
      True
    """
    k, n = np.broadcast_arrays(np.asarray(k), np.asarray(n))
    low, high = np.zeros(k.shape), k / np.maximum(n, 1)
    for _ in range(60):
        middle = (low + high) / 2
        rejected = log_wealth(k, n, middle) >= -np.log(alpha)
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return low


def upper_sequence(k: np.ndarray | int, n: np.ndarray | int, alpha: float) -> np.ndarray:
    """As `lower_sequence`, from above."""
    k, n = np.asarray(k), np.asarray(n)
    return 1 - lower_sequence(n - k, n, alpha)
