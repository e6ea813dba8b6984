"""Tests that may stop at any time: exactly fair by enumeration, and wrong no more often than they say by simulation."""

import itertools

import numpy as np
import pytest
from scipy import special, stats

from jaxsec.smooth._betting import log_wealth, lower_sequence, upper_sequence
from jaxsec.smooth._confidence import lower_bound
from jaxsec.smooth._schedule import CERTIFIED, OPEN, REFUTED, Betting, Fixed, Rule, Staged, Within, geometric

RUNS = 20_000


@pytest.mark.parametrize("p0", [0.5, 0.8, 0.99])
def test_the_wealth_is_a_fair_game_at_the_boundary_and_a_losing_one_below(p0: float) -> None:
    n = np.arange(13)
    for p, fair in ((p0, True), (0.9 * p0, False), (0.3, False)):
        mean = [np.sum(stats.binom.pmf(np.arange(m + 1), m, p) * np.exp(log_wealth(np.arange(m + 1), m, p0))) for m in n]
        if fair:
            np.testing.assert_allclose(mean, 1, rtol=1e-9)
        else:
            assert np.all(np.diff(mean) < 0)


def test_the_wealth_is_the_integral_it_says() -> None:
    """Over the prior above p0, by quadrature."""
    for k, n, p0 in ((7, 9, 0.6), (40, 40, 0.9), (3, 20, 0.5)):
        q = p0 + (1 - p0) * (np.cos(np.linspace(np.pi, 0, 200_001)) + 1) / 2
        q = (q[1:] + q[:-1]) / 2
        edges = p0 + (1 - p0) * (np.cos(np.linspace(np.pi, 0, 200_001)) + 1) / 2
        prior = np.diff(special.betainc(0.5, 0.5, edges))
        ratio = np.exp(special.xlogy(k, q / p0) + special.xlog1py(n - k, -q) - special.xlog1py(n - k, -p0))
        assert float(log_wealth(k, n, p0)) == pytest.approx(np.log(np.sum(prior * ratio) / prior.sum()), rel=1e-4, abs=1e-4)


def simulate(rule: Rule, p: float, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(what was shown, after how many samples) of runs with independent samples of probability p."""
    rng = np.random.default_rng(seed)
    k, shown, at = np.zeros(runs, np.int64), np.full(runs, OPEN), np.zeros(runs, np.int64)
    for before, n in itertools.pairwise([0, *rule.stops().tolist()]):
        live = np.flatnonzero(shown == OPEN)
        k[live] += rng.binomial(n - before, p, len(live))
        at[live] = n
        counts, first, whose = np.unique(k[live], return_index=True, return_inverse=True)  # rows of one count are decided alike
        shown[live] = rule.decided(counts, np.full(len(counts), n), live[first])[whose]
    return shown, at


def at_most(wrong: int, runs: int, alpha: float) -> bool:
    """Whether so many errors are believable at the stated rate: the lower end of a 99.9 % interval is not above it."""
    return stats.beta.ppf(5e-4, wrong, runs - wrong + 1) <= alpha if wrong else True


@pytest.mark.parametrize("name", ["betting", "staged"])
@pytest.mark.parametrize("p0", [0.55, 0.84, 0.977])
def test_error_rates_over_20000_runs(name: str, p0: float) -> None:
    """Just outside of the hypothesis on both sides, where errors are likeliest; at an alpha that 20,000 runs can see."""
    alpha, every = 0.02, np.full(RUNS, p0)
    rule: Rule = Betting(2000, alpha, every) if name == "betting" else Staged(2000, alpha, every)
    for p, wrong in ((p0 - 1e-9, CERTIFIED), (p0, REFUTED)):
        shown, _ = simulate(rule, p, RUNS, 1)
        count = int(np.sum(shown == wrong))
        assert at_most(count, RUNS, alpha), count
        assert count > 0  # the test has power: alpha is spent


@pytest.mark.parametrize("n", [40, 300, 1000])
@pytest.mark.parametrize("name", ["betting", "staged"])
def test_the_bound_says_yes_exactly_where_the_test_does(name: str, n: int) -> None:
    """Of every count, before the last look and at it: so the bound spends no more of alpha than the test whose errors are counted above."""
    k = np.arange(n + 1)
    for p0 in (0.55, 0.84, 0.977):
        every = np.full(n + 1, p0)
        rule: Rule = Betting(1000, 0.02, every) if name == "betting" else Staged(1000, 0.02, every)
        yes = rule.decided(k, np.full(n + 1, n), k) == CERTIFIED
        np.testing.assert_array_equal(rule.lower(k, np.full(n + 1, n)) >= p0, yes)
        assert (yes.any() or n == 40) and not yes.all()


@pytest.mark.parametrize("name", ["betting", "staged"])
def test_far_from_the_boundary_few_samples_decide(name: str) -> None:
    every = np.full(500, 0.84)
    rule: Rule = Betting(100_000, 1e-3, every) if name == "betting" else Staged(100_000, 1e-3, every)
    for p, right, most in ((0.99, CERTIFIED, 300), (0.6, REFUTED, 300)):
        shown, at = simulate(rule, p, 500, 2)
        assert np.all(shown == right) and at.mean() < most


def test_little_is_lost_to_a_fixed_number_of_samples() -> None:
    """Of probabilities near p0 the last look finds nearly all that n = 100,000 would: half of alpha costs 0.2 standard errors."""
    p0, n = 0.84, 100_000
    fixed = stats.binom.sf(np.searchsorted(lower_bound(np.arange(n + 1), n, 1e-3), p0) - 1, n, p0 + 0.0045)
    shown, _ = simulate(Betting(n, 1e-3, np.full(2000, p0)), p0 + 0.0045, 2000, 3)
    assert 0.6 < fixed < 0.95 and np.mean(shown == CERTIFIED) > fixed - 0.12


def test_confidence_sequences_cover_at_all_times() -> None:
    rng, p, alpha, runs = np.random.default_rng(4), 0.9, 0.05, 1000
    k, n, missed = np.zeros(runs, np.int64), 0, np.zeros(runs, bool)
    for step in [5] * 12 + [50] * 12:
        k, n = k + rng.binomial(step, p, runs), n + step
        counts, whose = np.unique(k, return_inverse=True)
        low, high = lower_sequence(counts, n, alpha)[whose], upper_sequence(counts, n, alpha)[whose]
        assert np.all((low <= k / n) & (k / n <= high))
        missed |= low > p
    assert at_most(int(missed.sum()), runs, alpha) and missed.any()


def test_within_stops_at_the_width_asked_for() -> None:
    rule = Within(50_000, 1e-3, 0.1, lambda p, rows: special.ndtri(np.minimum(p, 1 - 1e-12)))
    shown, at = simulate(rule, 0.9, 50, 5)
    assert np.all(shown == CERTIFIED) and at.max() < 50_000
    shown, at = simulate(rule, 0.3, 50, 5)
    assert np.all(shown == REFUTED) and at.mean() < 200


def test_schedules_rise_to_n() -> None:
    for rule in (Fixed(500, 0.1), Betting(5000, 0.1, np.zeros(1)), Staged(5000, 0.1, np.zeros(1)), Staged(50, 0.1, np.zeros(1))):
        stops = rule.stops()
        assert stops[-1] == rule.n and np.all(np.diff(stops) > 0)
    assert geometric(16, 1.5, 10).tolist() == [10]
