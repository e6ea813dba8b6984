"""Counts with their confidence intervals, as the report prints them."""

from typing import Any

import numpy as np

METHOD = "Clopper-Pearson (exact)"


def interval_of(count: int, n: int, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval of a proportion; (0, 1) where n is 0. Source: Clopper and Pearson 1934."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    found = binomtest(count, n).proportion_ci(confidence_level=confidence, method="exact")
    return float(found.low), float(found.high)


def share(hits: Any, confidence: float) -> dict[str, Any]:
    """[N] bool -> value, count, n, interval: the share of true rows. The interval covers the draw of rows, nothing else."""
    hits = np.asarray(hits, bool)
    count, n = int(hits.sum()), int(hits.size)
    return {
        "value": count / n if n else None,
        "count": count,
        "n": n,
        "interval": list(interval_of(count, n, confidence)),
        "confidence": confidence,
    }
