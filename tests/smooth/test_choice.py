"""Choices without replacement: their law by chi-square tests and by exact enumeration, their words, and what they do not depend on."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsec._native import key_words, random_bits
from jaxsec.smooth._choice import _below, _draws, bias, chosen

WORDS = jnp.stack([key_words(jax.random.key(s)) for s in (3, 4)])
ZERO = jnp.zeros((2, 2), jnp.uint32)
choose = jax.jit(chosen, static_argnums=(2, 3, 4))


def unlikely(counts: np.ndarray, expected: float, *, rank: int) -> bool:
    """Whether a chi-square statistic of this many free cells comes once in 10^5."""
    return bool(np.sum((counts - expected) ** 2) / expected > stats.chi2.isf(1e-5, rank))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_every_set_of_positions_is_as_likely(k: int) -> None:
    """All C(6, k) sets, 20,000 samples of each of two rows."""
    masks = np.asarray(choose(WORDS, ZERO, 20_000, 6, k))
    assert np.all(masks.sum(2) == k)
    for row in masks:
        codes = row @ (1 << np.arange(6))
        counts = np.unique(codes, return_counts=True)[1]
        assert len(counts) == math.comb(6, k)
        assert not unlikely(counts, 20_000 / len(counts), rank=len(counts) - 1)


@pytest.mark.parametrize(("d", "k"), [(31, 7), (31, 20), (784, 45)])
def test_positions_and_pairs_of_them_are_kept_evenly(d: int, k: int) -> None:
    """Kept indicators sum to k and are equicorrelated, so that the statistic over their variance is chi-square with d - 1 cells."""
    n = 6_000
    masks = np.asarray(choose(WORDS[:1], ZERO[:1], n, d, k))[0]
    assert np.all(masks.sum(1) == k)
    share = k / d
    spread = n * share * (1 - share) * d / (d - 1)
    assert np.sum((masks.sum(0) - n * share) ** 2) / spread < stats.chi2.isf(1e-5, d - 1)
    pair = k * (k - 1) / (d * (d - 1))
    both = masks[:, : d // 2] & masks[:, d // 2 : 2 * (d // 2)]
    assert np.all(np.abs(both.sum(0) - n * pair) < 5.5 * np.sqrt(n * pair * (1 - pair)))
    neighbours = (masks[1:] & masks[:-1]).sum(1).mean()  # of two samples: hypergeometric with mean k^2 / d
    assert abs(neighbours - k * share) < 5 * np.sqrt(k * share * (1 - share) * (d - k) / (d - 1) / n)


def test_a_choice_depends_on_the_key_and_its_number_only() -> None:
    whole = np.asarray(choose(WORDS, ZERO, 12, 50, 9))
    np.testing.assert_array_equal(choose(WORDS[1:], jnp.array([[5, 0]], jnp.uint32), 4, 50, 9)[0], whole[1, 5:9])
    np.testing.assert_array_equal(choose(WORDS[::-1], ZERO, 12, 50, 9), whole[::-1])
    assert not np.array_equal(whole[0], whole[1])
    carry = np.asarray(choose(WORDS, jnp.array([[2**32 - 3, 7]] * 2, jnp.uint32), 6, 50, 9))
    np.testing.assert_array_equal(choose(WORDS, jnp.array([[0, 8]] * 2, jnp.uint32), 3, 50, 9), carry[:, 3:])
    assert not np.array_equal(carry[:, 3:], whole[:, :3])  # the high word counts


def test_the_ends() -> None:
    assert choose(WORDS, ZERO, 3, 5, 5).all() and not choose(WORDS, ZERO, 3, 5, 0).any()
    assert choose(WORDS, ZERO, 3, 1, 1).shape == (2, 3, 1)


def test_draws_are_the_integer_part_of_64_random_bits_and_other_bits_than_those_of_noise() -> None:
    r = np.random.default_rng(0)
    high, low, m = (r.integers(0, 2**32, 500, np.uint64) for _ in range(3))
    high[:3], low[:3] = 2**32 - 1, 2**32 - 1
    got = _below(*(jnp.asarray(v, jnp.uint32) for v in (m & 0x7FFFFFFF, high, low)))
    expected = [((int(h) << 32) + int(l)) * int(v & np.uint64(0x7FFFFFFF)) >> 64 for h, l, v in zip(high, low, m, strict=True)]
    assert np.asarray(got).tolist() == expected
    draws = np.asarray(_draws(WORDS, ZERO, 4, 1000, 6)) / (995 + np.arange(6))[:, None]
    plain = np.asarray(random_bits(WORDS[0], (24,))).astype(np.float64) / 2**32
    assert np.min(np.abs(draws[:, :1] - plain[None])) > 1e-4


@pytest.mark.parametrize(("d", "k", "size"), [(5, 2, 16), (5, 3, 16), (6, 1, 64), (4, 2, 7), (7, 2, 32)])
def test_the_bias_is_below_its_bound(d: int, k: int, size: int) -> None:
    """The same scheme with M = `size` words in place of 2^64, its law summed exactly over all words."""
    steps = min(k, d - k)
    law: dict[frozenset[int], Fraction] = {}
    for words in itertools.product(range(size), repeat=steps):
        taken: set[int] = set()
        for j, u in zip(range(d - steps, d), words, strict=True):
            t = u * (j + 1) // size
            taken.add(j if t in taken else t)
        key = frozenset(taken)
        law[key] = law.get(key, Fraction(0)) + Fraction(1, size**steps)
    sets = [frozenset(s) for s in itertools.combinations(range(d), steps)]
    distance = sum(abs(law.get(s, Fraction(0)) - Fraction(1, len(sets))) for s in sets) / 2
    a, b = bias(d, k)
    assert b == 4 * 2**64 and 0 < distance <= Fraction(a, 4 * size)
