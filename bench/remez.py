"""Prints the polynomials of csrc/include/jaxsec/normal.h and of its twin: `python -m bench.remez`. Minimax in relative error, by Remez."""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.polynomial import polynomial

Function = Callable[[np.ndarray], np.ndarray]


def remez(f: Function, weight: Function, a: float, b: float, degree: int) -> tuple[np.ndarray, float]:
    """(coefficients, greatest weighted error) of the polynomial whose weighted error has the least greatest size on [a, b]."""
    count = degree + 2
    x = (a + b) / 2 - (b - a) / 2 * np.cos(np.pi * np.arange(count) / (count - 1))
    grid = np.linspace(a, b, 20_001)
    values, weights = f(grid), weight(grid)
    for _ in range(30):
        levelled = ((-1.0) ** np.arange(count) / weight(x))[:, None]
        coefficients = np.linalg.solve(np.concatenate([np.vander(x, degree + 1, increasing=True), levelled], 1), f(x))[:-1]
        error = weights * (values - polynomial.polyval(grid, coefficients))
        edges = [0, *(np.flatnonzero(np.diff(np.sign(error))) + 1), len(grid)]
        peaks = [i + int(np.argmax(np.abs(error[i:j]))) for i, j in itertools.pairwise(edges)]
        if len(peaks) < count:
            break
        while len(peaks) > count:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        x = grid[peaks]
    return coefficients, float(np.max(np.abs(error)))


def _log(f: np.ndarray) -> np.ndarray:
    """(ln(1 + f) - f) / f^2, by its series near 0."""
    safe = np.where(np.abs(f) < 1e-3, 1.0, f)
    return np.where(np.abs(f) < 1e-3, -0.5 + f / 3 - f**2 / 4 + f**3 / 5, (np.log1p(safe) - safe) / safe**2)


def _log_weight(f: np.ndarray) -> np.ndarray:
    return np.abs(f * f / np.where(np.abs(f) < 1e-9, 1, np.log1p(f))) + 1e-6


def _sine(s: np.ndarray) -> np.ndarray:
    """sin(pi t / 2) / t of s = t^2."""
    return np.where(s < 1e-8, np.pi / 2, np.sin(np.pi / 2 * np.sqrt(s)) / np.sqrt(np.maximum(s, 1e-30)))


def _cosine(s: np.ndarray) -> np.ndarray:
    """(cos(pi t / 2) - 1) / t^2 of s = t^2."""
    return np.where(s < 1e-5, -(np.pi**2) / 8 + s * (np.pi / 2) ** 4 / 24, (np.cos(np.pi / 2 * np.sqrt(s)) - 1) / np.maximum(s, 1e-30))


if __name__ == "__main__":
    for name, (found, error) in {
        "L": remez(_log, _log_weight, np.sqrt(0.5) - 1, np.sqrt(2) - 1, 7),
        "S": remez(_sine, lambda s: 1 / _sine(s), 0, 0.25, 3),
        "C": remez(_cosine, lambda s: s / np.cos(np.pi / 2 * np.sqrt(s)) + 1e-4, 0, 0.25, 3),
    }.items():
        print(name, f"2^{np.log2(error):.1f}", *(f"{c:.9e}" for c in found))
