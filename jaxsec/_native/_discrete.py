"""The discrete Gaussian's table: exact integers on the host, from which every backend draws the same whole numbers.

The law is that of a Gaussian rounded to the nearest whole number: P(k) = Phi((k + 1/2) / s) - Phi((k - 1/2) / s). Rounding `x + s g` to the
grid moves a grid point x by exactly such a k, so a classifier of grid points, smoothed by k, is one of real points, smoothed by s g, that
rounds first: what holds for the exact Gaussian holds for it, at every real input (Voracek and Hein 2023).
"""

import decimal
import functools
import itertools

import numpy as np

_BITS = 64  # of a draw: probabilities are multiples of 2^-64
MOST_CELL_BITS = 16


@functools.lru_cache(maxsize=16)
def masses(s: float) -> tuple[int, ...]:
    """The probabilities of 0, 1, 2, ... as integers, in units of 2^-64, up to the last that is not 0; those of -1, -2, ... are the same.

    Guarantee: P(0) + 2 sum P(k) is exactly 2^64, and each is within 1 of the exact probability (P(0) within 2).

    Example:
      >>> p = masses(1.0)
      >>> p[0] + 2 * sum(p[1:]) == 2**64, round(p[0] / 2**64, 6)
      (True, 0.382925)
    """
    tails = [0]  # of k = 1, 2, ...: P(Z >= k), rounded down; the first entry is not used
    with decimal.localcontext() as context:
        context.prec = 60
        context.Emin, context.Emax = -(10**6), 10**6
        scale = decimal.Decimal(s)
        while len(tails) == 1 or tails[-1]:
            tails.append(int(_tail((len(tails) - decimal.Decimal("0.5")) / scale) * 2**_BITS))
    p = [a - b for a, b in itertools.pairwise(tails[1:])]
    return (2**_BITS - 2 * tails[1], *p)


_ROOT_2PI = decimal.Decimal("2.506628274631000502415765284811045253006986740609938316629923")


def _tail(z: decimal.Decimal) -> decimal.Decimal:
    """P(g >= z) for z > 0 to some 50 digits: 1/2 - phi(z) (z + z^3/3 + z^5/15 + ...)."""
    square, term, total, n = z * z, z, z, 1
    while term > total * decimal.Decimal("1e-58"):
        n += 2
        term = term * square / n
        total += term
    return decimal.Decimal("0.5") - (-square / 2).exp() / _ROOT_2PI * total


@functools.lru_cache(maxsize=16)
def alias_table(s: float) -> np.ndarray:
    """[2, cells] uint32: the table of csrc/include/jaxsec/noise.h for the standard deviation s of the Gaussian that is rounded.

    Guarantee: the number of 64-bit draws that give k is exactly `masses(s)[abs(k)]`.
    Raises: ValueError: s is no finite number above 0, or so large that the table had more than 2^16 cells (s above 3,480).
    Cost: 0.1 s for s = 64, 0.5 s for s = 255, once.
    Source: Walker 1977; Vose 1991.

    Example:
      >>> alias_table(63.75).shape
      (2, 2048)
    """
    if not (np.isfinite(s) and s > 0):
        raise ValueError(f"the discrete Gaussian has the standard deviation {s} in steps of 1/255; a finite number above 0 is needed.")
    most = (1 << MOST_CELL_BITS - 1) / 9.2  # P(Z > 9.2) is below 2^-64
    if s > most:
        raise ValueError(f"the discrete Gaussian has the standard deviation {s} in steps of 1/255; at most {most:.0f} fits a table.")
    half = masses(s)
    bits = max(1, (2 * len(half)).bit_length())
    cells = 1 << bits
    capacity, centre = 1 << (_BITS - bits), cells >> 1
    mass = [0] * cells
    for k, p in enumerate(half):
        mass[centre + k] = mass[centre - k] = p
    alias, cut = list(range(cells)), [0] * cells
    small = [i for i, p in enumerate(mass) if p < capacity]
    large = [i for i, p in enumerate(mass) if p >= capacity]
    while small:
        i = small.pop()
        j = large[-1]  # exact sums: where one cell lacks, another has more than it needs
        alias[i], cut[i] = j, mass[i]
        mass[j] -= capacity - mass[i]
        if mass[j] < capacity:
            small.append(large.pop())
    shift = 32 - bits
    high = [a << shift | c >> 32 for a, c in zip(alias, cut, strict=True)]
    table = np.array([high, [c & 0xFFFFFFFF for c in cut]], np.uint32)
    table.flags.writeable = False
    return table


def deviation(s: float) -> float:
    """At most how far the drawn law is from the exact one, in total variation, for one value.

    Example:
      >>> deviation(63.75) < 1e-15
      True
    """
    outcomes = 2 * len(masses(s)) + 1
    return (outcomes + 4) * 2.0**-_BITS
