"""Counts to radii: against SciPy, against exact binomial sums, and against the published logs of Cohen et al."""

import csv
import gzip

import numpy as np
import pytest
from scipy import stats

from jaxsec.smooth import certify_from_counts, lower_bound, predict_from_counts, radius_table, upper_bound

# alpha as found in the logs: the documented 0.001 for some, 0.01 for the matched ones (../shared/data/README.md)
LOGS = {
    "noise_0.12__test__sigma_0.12": (0.12, 0.001),
    "noise_0.12__test__sigma_0.50": (0.50, 0.001),
    "noise_0.25__test__sigma_0.25": (0.25, 0.01),
    "noise_0.25__test__sigma_0.50": (0.50, 0.001),
    "noise_0.50__test__sigma_0.50": (0.50, 0.01),
    "noise_1.00__test__sigma_0.50": (0.50, 0.001),
    "noise_1.00__test__sigma_1.00": (1.00, 0.01),
}
# certified accuracy in percent of the 500 images, by radius: recomputed from the logs, and the table of Cohen et al. (figure 6) rounds it
ACCURACY = {
    "noise_0.25__test__sigma_0.25": {0.0: 74.8, 0.25: 60.0, 0.5: 42.8, 0.75: 26.6},
    "noise_0.50__test__sigma_0.50": {0.0: 65.2, 0.25: 54.6, 0.5: 41.4, 0.75: 32.0, 1.0: 23.4, 1.5: 9.4},
    "noise_1.00__test__sigma_1.00": {0.0: 47.2, 0.25: 39.2, 0.5: 34.0, 0.75: 27.8, 1.0: 21.6, 1.5: 14.0, 2.0: 10.0, 3.0: 2.0},
}


def log(folder, name: str) -> list[dict[str, str]]:
    with gzip.open(folder / "smoothing" / f"cohen__cifar10__resnet110__{name}.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", LOGS)
def test_every_published_radius_is_that_of_a_count(shared_data, name: str) -> None:
    sigma, alpha = LOGS[name]
    rows = [r for r in log(shared_data, name) if r["predict"] != "-1"]
    assert len(rows) > 300
    k = np.arange(50_000, 100_001)
    predict, radius = certify_from_counts(np.zeros(len(k), int), k, n=100_000, alpha=alpha, sigma=sigma)
    grid = {f"{r:.3g}" for r in radius[predict >= 0]}
    assert [r["radius"] for r in rows if f"{float(r['radius']):.3g}" not in grid] == []


def test_the_other_alpha_does_not_give_them(shared_data) -> None:
    """So the test above can fail."""
    grid = {f"{r:.3g}" for r in radius_table(100_000, 0.001) * 0.25}
    missing = [
        r for r in log(shared_data, "noise_0.25__test__sigma_0.25") if r["predict"] != "-1" and f"{float(r['radius']):.3g}" not in grid
    ]
    assert len(missing) > 100


@pytest.mark.parametrize("name", ACCURACY)
def test_certified_accuracy_of_the_logs(shared_data, name: str) -> None:
    """Each radius is led back to its count and forward again."""
    sigma, alpha = LOGS[name]
    rows = log(shared_data, name)
    table = radius_table(100_000, alpha) * sigma
    counts = np.array([np.argmin(np.abs(table - float(r["radius"]))) if r["predict"] != "-1" else 0 for r in rows])
    predict, radius = certify_from_counts(np.array([int(r["predict"]) for r in rows]), counts, n=100_000, alpha=alpha, sigma=sigma)
    right = predict == np.array([int(r["label"]) for r in rows])
    for at, percent in ACCURACY[name].items():
        shown = np.array([float(f"{r:.3g}") for r in radius])  # 0.9998 is in the logs as 1
        assert 100 * np.mean(right & (shown >= at)) == pytest.approx(percent, abs=1e-9), at


def test_against_scipy_and_its_own_mirror() -> None:
    k = np.array([0, 1, 17, 50, 99, 100])
    want = np.where(k > 0, stats.beta.ppf(0.01, np.maximum(k, 1), 100 - k + 1), 0)
    np.testing.assert_allclose(lower_bound(k, 100, 0.01), want, rtol=1e-9)
    np.testing.assert_allclose(upper_bound(k, 100, 0.01), 1 - lower_bound(100 - k, 100, 0.01))
    assert float(lower_bound(1000, 1000, 1e-3)) == pytest.approx(1e-3 ** (1 / 1000), rel=1e-9)


@pytest.mark.parametrize("n", [1, 7, 40])
def test_the_bound_is_wrong_at_most_as_often_as_it_says(n: int) -> None:
    """By exact binomial sums, at every p of a grid and just above each bound."""
    for alpha in (0.3, 0.01):
        bounds = lower_bound(np.arange(n + 1), n, alpha)
        for p in np.concatenate([np.linspace(0.01, 0.99, 99), np.nextafter(bounds[1:], 0)]):
            assert stats.binom.pmf(np.arange(n + 1), n, p)[bounds > p].sum() <= alpha * (1 + 1e-9)


def test_abstention_and_ties() -> None:
    predict, radius = certify_from_counts(
        np.array([0, 1, 2]), np.array([[60, 40, 0], [0, 100, 0], [0, 0, 100]]), n=100, sigma=np.array([1.0, 1.0, 2.0])
    )
    assert predict.tolist() == [-1, 1, 2] and radius[0] == 0 and radius[2] == pytest.approx(2 * radius[1])
    assert predict_from_counts(np.array([[0, 0], [5, 5], [100, 0]])).tolist() == [-1, -1, 0]
    p = stats.binomtest(80, 110, 0.5).pvalue
    assert predict_from_counts(np.array([[80, 30, 5]]), alpha=p * 1.001).tolist() == [0]
    assert predict_from_counts(np.array([[80, 30, 5]]), alpha=p * 0.999).tolist() == [-1]


def test_bad_counts_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="from 0 to n"):
        lower_bound(5, 4, 0.1)
    with pytest.raises(ValueError, match="counts are integers"):
        lower_bound(0.5, 4, 0.1)
    with pytest.raises(ValueError, match="alpha is 0"):
        lower_bound(1, 4, 0)
    with pytest.raises(ValueError, match="with n = 10"):
        certify_from_counts(np.array([0]), np.array([11]), n=10, sigma=1.0)
    with pytest.raises(ValueError, match="top has shape"):
        certify_from_counts(np.array([0, 1]), np.array([1]), n=10, sigma=1.0)
