"""Many tests at once: which hypotheses may be rejected together; float64 on the host."""

import numpy as np

CORRECTIONS = ("holm", "bonferroni")
# bdtrc is good to about 1e-13; this much is added so that no p-value is below the exact one, nor a threshold above it.
_ROUNDED = 1e-10


def binomial_p_values(k: np.ndarray | int, n: int, p0: float) -> np.ndarray:
    """The p-values of `p <= p0` when k of n independent trials came out: the probability of k or more at p0; broadcasts, float64.

    Guarantee: under the hypothesis, at or below any t with a probability of at most t (exact binomial, rounded up).
    Args: k: integers, 0 <= k <= n. p0: in (0, 1).
    Raises: ValueError: counts out of range.
    Cost: a table of n + 1 values.

    Example:
      >>> binomial_p_values(np.array([0, 1, 2]), 2, 0.5).round(4).tolist()
      [1.0, 0.75, 0.25]
    """
    from scipy import special

    k = np.asarray(k)
    if not np.issubdtype(k.dtype, np.integer) or (k.size and (k.min() < 0 or k.max() > n)):
        raise ValueError(f"counts of dtype {k.dtype} are from {k.min()} to {k.max()}; they must be integers from 0 to n = {n}.")
    tail = special.bdtrc(np.arange(n, dtype=np.float64), n, p0)  # P(more than i), for 0 .. n - 1
    return np.minimum(np.concatenate([[1.0], tail]) * (1 + _ROUNDED), 1.0)[k]


def rejected(p_values: np.ndarray, alpha: float, correction: str = "holm") -> np.ndarray:
    """[B, m] bool: which hypotheses of each row are rejected.

    Guarantee: in each row, any true hypothesis among the rejected with a probability of at most alpha, whatever the dependence of the
      p-values and whichever hypotheses are true.
    Args: p_values: [B, m]. alpha: in (0, 1). correction: "bonferroni" (all at alpha / m), or "holm": the i-th smallest at
      alpha / (m - i + 1), until the first that is not rejected; never rejects fewer.
    Raises: ValueError: another correction.
    Cost: "holm" sorts each row.
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Example:
      >>> rejected(np.array([[0.01, 0.02, 0.9]]), 0.05).tolist(), rejected(np.array([[0.01, 0.02, 0.9]]), 0.05, "bonferroni").tolist()
      ([[True, True, False]], [[True, False, False]])
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"correction is {correction!r}; allowed are {' and '.join(CORRECTIONS)}.")
    p_values = np.asarray(p_values, np.float64)
    m = p_values.shape[1]
    if correction == "bonferroni" or m == 0:
        return p_values <= alpha / max(m, 1)
    ordered = np.sort(p_values, 1)
    fails = np.concatenate([ordered > alpha / (m - np.arange(m)), np.ones((len(ordered), 1), bool)], 1)
    # equal p-values are rejected together: among them thresholds rise, and the first decides
    stop = np.concatenate([ordered, np.full((len(ordered), 1), np.inf)], 1)
    return p_values < np.take_along_axis(stop, fails.argmax(1)[:, None], 1)
