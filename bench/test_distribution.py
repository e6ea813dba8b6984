"""The law of the noise on a thousand million draws: tails to 5 sigma, moments, and what shards have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsec import _native
from jaxsec.smooth import noise

D, SAMPLES, SIGMAS = 4096, 1024, (1.0, 2.0, 3.0, 4.0, 5.0)


@jax.jit
def _counted(key: jax.Array, first: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many values of a batch are beyond each sigma on each side, and their first four moments, summed by rows in float32."""
    z = noise(key, (SAMPLES, D), first=first)
    beyond = [jnp.sum(side * z >= s, dtype=jnp.int32) for s in SIGMAS for side in (1, -1)]
    return jnp.stack(beyond), jnp.stack([jnp.sum(z**k, 1) for k in (1, 2, 3, 4)])


def test_tails_and_moments(store, smoke):
    """Each count is believable as a binomial one, each moment as a mean: at 99.99 % of 14 looks."""
    draws = D * SAMPLES * (1 if smoke else 239)  # 1,002,438,656
    beyond, sums = np.zeros(2 * len(SIGMAS), np.int64), np.zeros(4)
    for batch in range(draws // (D * SAMPLES)):
        counts, moments = _counted(jax.random.key(7), _native.as_offset(batch * SAMPLES))
        beyond += np.asarray(counts)
        sums += np.asarray(moments, np.float64).sum(1)
    p = np.repeat(stats.norm.sf(SIGMAS), 2)
    tails = np.array([stats.binomtest(int(k), draws, q).pvalue for k, q in zip(beyond, p, strict=True)])
    spread = np.sqrt(np.array([1, 2, 15, 96]) / draws)  # of the means of z, z^2, z^3, z^4
    scores = (sums / draws - np.array([0, 1, 0, 3])) / spread
    store(
        draws=draws, sigmas=SIGMAS, expected=(draws * p[::2]).tolist(), above=beyond[::2].tolist(), below=beyond[1::2].tolist(),
        p_values=tails.tolist(), moments=(sums / draws).tolist(), standard_errors_off=scores.tolist(),
    )  # fmt: skip
    assert tails.min() > 1e-4 / 14 and np.abs(scores).max() < stats.norm.isf(1e-4 / 28)


@pytest.mark.parametrize("distribution", _native.DISTRIBUTIONS)
def test_shards_have_nothing_in_common(store, smoke, distribution):
    """Samples dealt out to eight shards, and rows of eight keys: no correlation of values, squares or neighbours between any two."""
    n, d = (64, 256) if smoke else (8192, 1024)
    make = jax.jit(lambda key, first: noise(key, (n, d), first=first, distribution=distribution))
    by_sample = [make(jax.random.key(3), _native.as_offset(shard * n)) for shard in range(4)]
    by_key = [make(jax.random.fold_in(jax.random.key(3), row), _native.as_offset(0)) for row in range(4)]
    worst, looks = 0.0, 0
    shards = [np.asarray(z, np.float32) for z in (*by_sample, *by_key)]
    for i in range(8):
        for j in range(i + 1, 8):
            for a, b in ((shards[i], shards[j]), (shards[i] ** 2, shards[j] ** 2), (shards[i][:, 1:], shards[j][:, :-1])):
                worst, looks = max(worst, abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1])) * np.sqrt(a.size)), looks + 1
    store(distribution=distribution, values=n * d, looks=looks, largest_correlation_in_standard_errors=worst)
    assert worst < stats.norm.isf(1e-4 / (2 * looks))
