"""The public noise functions: what they promise of samples, rows, channels and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.smooth import noise, noisy_batch, vote

KEY = jax.random.key(3)


def test_a_sample_is_its_number() -> None:
    z = noise(KEY, (6, 3, 5), sigma=2.0)
    np.testing.assert_allclose(noise(KEY, (2, 3, 5), sigma=2.0, first=4), z[4:], rtol=1e-6)
    assert noise(KEY, ()).shape == () and noise(KEY, (3,)).shape == (3,) and noise(KEY, (0, 4)).shape == (0, 4)
    assert not np.allclose(noise(jax.random.key(4), (6, 3, 5)), z)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.uint8])
def test_batches_are_x_plus_noise_normalised(dtype) -> None:
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3)), jnp.uint8)
    value = x.astype(jnp.float32) / 255
    mean, std = jnp.asarray([0.4, 0.5, 0.6]), jnp.asarray([0.2, 0.3, 0.4])
    given = x if dtype == jnp.uint8 else value
    plain = noisy_batch(KEY, value, 0.25, 7, 5)
    got = noisy_batch(KEY, given, 0.25, 7, 5, mean=mean, std=std)
    np.testing.assert_allclose(got, (plain - mean[None, None, None]) / std[None, None, None], rtol=1e-5, atol=1e-5)
    first = noisy_batch(KEY, given.transpose(0, 3, 1, 2), 0.25, 7, 5, mean=mean, std=std, channel_axis=1)
    assert first.shape == (10, 3, 3, 4)
    z = (
        first
        - ((given.transpose(0, 3, 1, 2).astype(jnp.float32) / (255 if dtype == jnp.uint8 else 1)).repeat(5, 0) - mean[None, :, None, None])
        / std[None, :, None, None]
    )
    assert 0.1 < float(jnp.std(z * std[None, :, None, None])) < 0.4
    half = noisy_batch(KEY, given, 0.25, 7, 5, mean=mean, std=std, dtype=jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), got, rtol=8e-3, atol=1e-5)


def test_rows_keep_their_noise_in_any_batch() -> None:
    x = jnp.zeros((4, 5))
    whole = noisy_batch(KEY, x, 1.0, 0, 3).reshape(4, 3, 5)
    part = noisy_batch(KEY, x[2:3], 1.0, 0, 3, rows=jnp.asarray([2]))
    np.testing.assert_allclose(part, whole[2], rtol=1e-6)
    later = noisy_batch(KEY, x, 1.0, jnp.asarray([[1, 0]] * 4, jnp.uint32), 2).reshape(4, 2, 5)
    np.testing.assert_allclose(later, whole[:, 1:], rtol=1e-6)
    gradient = jax.grad(lambda x: noisy_batch(KEY, x, 1.0, 0, 3, std=2.0).sum())(x)
    np.testing.assert_allclose(gradient, 1.5)


def test_votes_are_counted_where_logits_are_finite_and_valid() -> None:
    logits = jnp.asarray([[1.0, 2.0], [3.0, 0.0], [jnp.nan, 1.0], [0.0, 1.0], [0.0, jnp.inf], [0.0, 1.0]])
    assert vote(logits, jnp.zeros((2, 2), jnp.int32)).tolist() == [[1, 1], [0, 2]]
    assert vote(logits, jnp.ones((2, 2), jnp.int32), jnp.asarray([1, 0])).tolist() == [[1, 2], [1, 1]]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="distribution is 'cauchy'"):
        noise(KEY, (3,), distribution="cauchy")
    with pytest.raises(TypeError, match="dtype is float16"):
        noise(KEY, (3,), dtype=jnp.float16)
    with pytest.raises(TypeError, match="key is 0"):
        noise(0, (3,))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must be float32 or uint8"):
        noisy_batch(KEY, jnp.zeros((2, 3), jnp.int32), 1.0, 0, 2)
    with pytest.raises(ValueError, match="channel_axis"):
        noisy_batch(KEY, jnp.zeros((2, 4, 4, 3)), 1.0, 0, 2, mean=jnp.zeros(4))
