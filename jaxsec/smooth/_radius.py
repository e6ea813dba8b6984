"""Which set around x a probability of the top class certifies, for each noise and norm."""

import math

import numpy as np

from ..threat import L1, L2, LInf, Threat

_ALLOWED = "gaussian noise certifies L2, L1 and LInf, laplace and uniform noise certify L1; Ablation certifies L0, PatchAblation Patch"


def radius_of(p: np.ndarray, distribution: str, norm: str, sigma: np.ndarray, d: int) -> np.ndarray:
    """The radius within which the class keeps its lead, when it has a probability of at least p; float64, 0 where p <= 1/2.

    Guarantee: no smoothed classifier in which some class has that probability changes to another within the radius.
    Args: p: [B], in [0, 1]. norm: "l2", "l1" or "linf". sigma: [B], the noise's scale. d: values of an input.
    Raises: ValueError: a pair of noise and norm that certifies nothing here.
    Source: gaussian, L2: Cohen et al. 2019, theorem 1; the L1 ball lies in the L2 ball, the Linf ball in that of sqrt(d) its radius.
      Laplace, L1: Teng et al. 2020, theorem 1 with p_B = 1 - p. Uniform, L1: Lee et al. 2019; Yang et al. 2020, theorem I.6.

    Example:
      >>> radius_of(np.array([0.99]), "uniform", "l1", np.array([0.5]), 784).round(3).tolist()
      [0.49]
    """
    from scipy import special

    p = np.clip(p, 0.5, 1.0)
    if distribution == "gaussian" and norm in ("l2", "l1"):
        return sigma * special.ndtri(p)
    if distribution == "gaussian" and norm == "linf":
        return sigma * special.ndtri(p) / math.sqrt(d)
    with np.errstate(divide="ignore"):
        if distribution == "laplace" and norm == "l1":
            return -sigma * np.log(2 * (1 - p))
    if distribution == "uniform" and norm == "l1":
        return 2 * sigma * (p - 0.5)
    raise ValueError(f"{distribution} noise and the norm {norm}: no certificate is known here; {_ALLOWED}.")


def probability_for(radius: np.ndarray, distribution: str, norm: str, sigma: np.ndarray, d: int) -> np.ndarray:
    """The inverse of `radius_of`: the least p that certifies the radius; above 1 where none does.

    Example:
      >>> probability_for(np.array([0.0]), "gaussian", "l2", np.array([0.25]), 784).tolist()
      [0.5]
    """
    from scipy import special

    radius_of(np.array([1.0]), distribution, norm, np.ones(1), d)  # its errors
    scaled = np.asarray(radius, np.float64) / sigma
    if distribution == "gaussian":
        return special.ndtr(scaled * (math.sqrt(d) if norm == "linf" else 1.0))
    return 1 - np.exp(-scaled) / 2 if distribution == "laplace" else 0.5 + scaled / 2


def norm_of(threat: Threat) -> str:
    """The norm's name; ValueError for sets that are no balls."""
    for kind, name in ((L2, "l2"), (L1, "l1"), (LInf, "linf")):
        if isinstance(threat, kind):
            return name
    raise ValueError(f"the threat is {type(threat).__name__}; added noise certifies the balls L2, L1 and LInf: {_ALLOWED}.")
