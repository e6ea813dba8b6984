"""From counts to probabilities and radii: Clopper-Pearson bounds, in float64 on the host."""

import functools

import numpy as np

# betaincinv is good to a few ulp; this much is taken off so that no bound is above the exact one.
_ROUNDED = 1e-13


def lower_bound(k: np.ndarray | int, n: np.ndarray | int, alpha: np.ndarray | float) -> np.ndarray:
    """The one-sided lower confidence bound of a probability of which k of n independent trials came out.

    Guarantee: whatever p is, it is above p with a probability of at most alpha (Clopper-Pearson: exact, never liberal).
    Args: k: how many of n, integers, 0 <= k <= n. n: at least 0. alpha: in (0, 1). All broadcast.
    Returns: float64 in [0, 1]. 0 where k = 0.
    Raises: ValueError: counts or alpha out of range.
    Source: Clopper and Pearson 1934; Cohen et al. 2019, section 3.2.2.

    Example:
      >>> round(float(lower_bound(100_000, 100_000, 1e-3)), 6)
      0.999931
    """
    from scipy import special

    k, n, alpha = _checked(k, n, alpha)
    p = special.betaincinv(np.maximum(k, 1), n - k + 1.0, alpha)
    return np.where(k == 0, 0.0, np.maximum(p * (1 - _ROUNDED), 0))


def upper_bound(k: np.ndarray | int, n: np.ndarray | int, alpha: np.ndarray | float) -> np.ndarray:
    """As `lower_bound`, from above.

    Example:
      >>> float(upper_bound(5, 5, 0.01))
      1.0
    """
    k, n, alpha = _checked(k, n, alpha)
    return 1 - lower_bound(n - k, n, alpha)


def _checked(k: object, n: object, alpha: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts, trials, level = np.asarray(k), np.asarray(n), np.asarray(alpha, np.float64)
    for name, value in (("k", counts), ("n", trials)):
        if not np.issubdtype(value.dtype, np.integer):
            raise ValueError(f"{name} has dtype {value.dtype}; counts are integers.")
    if np.any(counts < 0) or np.any(counts > trials):
        raise ValueError(
            f"k is from {counts.min()} to {counts.max()}, of n from {np.min(trials)} to {np.max(trials)}; k must be from 0 to n."
        )
    if not (np.all(level > 0) and np.all(level < 1)):
        raise ValueError(f"alpha is {alpha}; it must be above 0 and below 1.")
    return counts, trials, level


@functools.lru_cache(maxsize=16)
def radius_table(n: int, alpha: float) -> np.ndarray:
    """[n + 1] float64: the certified L2 radius in units of sigma for each count of the top class; -1 where the procedure abstains.

    Guarantee: `radius_table(n, alpha)[k] = Phi^-1(lower_bound(k, n, alpha))` where that bound is above 1/2 (and so at least 0).
    Cost: 0.1 s for n = 100,000, once; 8 (n + 1) bytes are kept.

    Example:
      >>> table = radius_table(100, 0.001)
      >>> float(table[50]), round(float(table[100]), 3)
      (-1.0, 1.5)
    """
    from scipy import special

    p = lower_bound(np.arange(n + 1), n, alpha)
    table = np.where(p > 0.5, special.ndtri(np.maximum(p, 0.5)), -1.0)
    table.flags.writeable = False
    return table


def certify_from_counts(
    top: np.ndarray, counts: np.ndarray, *, n: int, alpha: float = 1e-3, sigma: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cohen's CERTIFY, given the counts: which class is certified, and within which L2 radius.

    Guarantee: with probability at least 1 - alpha over the counts, a class that is returned is the smoothed classifier's at every input
      within the radius of the clean one, provided that `top` was chosen from samples other than those that `counts` counts.
    Args:
      top: [B] the classes that were chosen beforehand. counts: [B] how many of n samples had that class, or [B, K] of every class.
      n: samples of each row. alpha: the probability of a wrong certificate, per row. sigma: of the noise, scalar or [B].
    Returns: (predict [B] with -1 where it abstains, radius [B] float64, 0 there).
    Raises: ValueError: shapes that do not fit, or counts outside 0 .. n.
    Source: Cohen et al. 2019, CERTIFY and theorem 1: `R = sigma Phi^-1(p_lower)`.

    Example:
      >>> predict, radius = certify_from_counts(np.array([3, 1]), np.array([99_000, 40_000]), n=100_000, sigma=0.25)
      >>> predict.tolist(), radius.round(4).tolist()
      ([3, -1], [0.5725, 0.0])
    """
    top, counts = np.asarray(top), np.asarray(counts)
    if not np.issubdtype(counts.dtype, np.integer) or not np.issubdtype(top.dtype, np.integer):
        raise ValueError(f"top has dtype {top.dtype} and counts {counts.dtype}; both are integers.")
    if counts.ndim == 2 and top.size and not (top.min() >= 0 and top.max() < counts.shape[1]):
        raise ValueError(f"top is from {top.min()} to {top.max()}; counts has the classes 0 to {counts.shape[1] - 1}.")
    if not np.all(np.asarray(sigma) > 0):
        raise ValueError(f"sigma is {sigma!r}; it must be positive, in units of x.")
    if counts.ndim == 2:
        counts = np.take_along_axis(counts, top[:, None], 1)[:, 0]
    if top.shape != counts.shape:
        raise ValueError(
            f"top has shape {top.shape} and counts {counts.shape}; one count, or one row of counts, per class in top is needed."
        )
    if counts.size and (counts.min() < 0 or counts.max() > n):
        raise ValueError(f"counts are from {counts.min()} to {counts.max()}; with n = {n} they must be from 0 to {n}.")
    radius = radius_table(int(n), float(alpha))[counts]
    return np.where(radius >= 0, top, -1), np.maximum(radius, 0) * sigma


def predict_from_counts(counts: np.ndarray, *, alpha: float = 1e-3) -> np.ndarray:
    """Cohen's PREDICT, given the counts [B, K]: the class, or -1 where the two leading counts do not differ significantly.

    Guarantee: the class returned is not the smoothed classifier's with a probability of at most alpha.
    Source: Cohen et al. 2019, PREDICT and proposition 2: a two-sided binomial test of the two top counts against 1/2.

    Example:
      >>> predict_from_counts(np.array([[90, 10, 0], [51, 49, 0]])).tolist()
      [0, -1]
    """
    from scipy import special

    counts = np.asarray(counts)
    order = np.sort(counts, 1)
    a, b = order[:, -1], order[:, -2] if counts.shape[1] > 1 else np.zeros(len(counts), counts.dtype)
    p = np.minimum(2 * np.where(a > 0, special.bdtrc(a - 1.0, a + b, 0.5), 1.0), 1.0)  # P(at least a of a + b fair coins)
    return np.where(p <= alpha, counts.argmax(1), -1)
