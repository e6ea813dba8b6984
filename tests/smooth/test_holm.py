"""Tests of many hypotheses: against enumeration and fractions, and wrong about any of them no more often than alpha by simulation."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from jaxsec.smooth._holm import binomial_p_values, rejected

RUNS = 20_000


def step_down(p: np.ndarray, alpha: float) -> list[bool]:
    """Holm 1979 as he wrote it, one hypothesis after the other."""
    found = [False] * len(p)
    for i, j in enumerate(sorted(range(len(p)), key=lambda j: p[j])):
        if p[j] > alpha / (len(p) - i):
            break
        found[j] = True
    return found


def test_p_values_are_the_exact_tails_rounded_up() -> None:
    for n, p0 in ((1, 0.5), (10, 0.75), (60, 0.9)):
        q = Fraction(p0)
        found = binomial_p_values(np.arange(n + 1), n, p0)
        for k in range(n + 1):
            true = sum(comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k, n + 1))
            assert true <= Fraction(float(found[k])) <= true * Fraction(1_000_001, 1_000_000) or found[k] == 1 == true
    assert np.all(np.diff(binomial_p_values(np.arange(100_001), 100_000, 0.75)) <= 0)


def test_holm_is_the_step_down_of_the_paper_ties_included() -> None:
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 9):
        p = rng.choice([0.001, 0.004, 0.01, 0.012, 0.02, 0.05, 0.5], (300, m))
        found = rejected(p, 0.05)
        assert found.tolist() == [step_down(row, 0.05) for row in p]
        few = rejected(p, 0.05, "bonferroni")
        np.testing.assert_array_equal(few, p <= 0.05 / m)
        assert np.all(few <= found) and (m == 1 or found.sum() > few.sum())


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    """A hypothesis is rejected where every intersection with it is, by the union bound: the closure principle, by all subsets."""
    rng = np.random.default_rng(1)
    for p in rng.uniform(0, 0.06, (200, 4)):
        sets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size)]
        true = [all(min(p[list(s)]) <= 0.05 / len(s) for s in sets if j in s) for j in range(4)]
        assert rejected(p[None], 0.05)[0].tolist() == true


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
@pytest.mark.parametrize(("pixels", "false"), [(40, 0), (40, 37), (3, 0)])
def test_any_pixel_of_an_image_is_wrong_no_more_often_than_alpha(correction: str, pixels: int, false: int) -> None:
    """Images whose pixels have p of exactly tau, beside `false` ones whose p is far above and which Holm steps over."""
    n, tau, alpha = 200, 0.75, 0.1
    p = np.full(pixels, tau)
    p[:false] = 0.999
    hits = np.random.default_rng(2).binomial(n, p, (RUNS, pixels))
    values = binomial_p_values(hits, n, tau)
    wrong = rejected(values, alpha, correction)[:, false:].any(1).mean()
    deviation = np.sqrt(alpha * (1 - alpha) / RUNS)
    assert wrong <= alpha + 3 * deviation
    assert (values <= alpha)[:, false:].any(1).mean() > alpha + 10 * deviation  # which tests without a correction are not
    if correction == "holm" or not false:
        assert wrong > 0.3 * alpha


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_pixels_that_depend_on_each_other_are_no_more_often_wrong(correction: str) -> None:
    n, tau, alpha, pixels = 100, 0.6, 0.05, 12
    rng = np.random.default_rng(3)
    noise = np.minimum(rng.uniform(size=(RUNS, n, 1)).astype(np.float32), 1)
    # half the pixels share one draw, the others use its mirror image
    hits = np.concatenate([(noise < tau).sum(1)] * 6 + [(1 - noise < tau).sum(1)] * 6, 1)
    assert hits.shape == (RUNS, pixels)
    assert rejected(binomial_p_values(hits, n, tau), alpha, correction).any(1).mean() <= alpha + 3 * np.sqrt(alpha / RUNS)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="correction is 'fdr'; allowed are holm and bonferroni"):
        rejected(np.ones((1, 2)), 0.05, "fdr")
    with pytest.raises(ValueError, match="from 0 to 11; they must be integers from 0 to n = 10"):
        binomial_p_values(np.array([0, 11]), 10, 0.5)
    assert rejected(np.ones((2, 0)), 0.05).shape == (2, 0)
