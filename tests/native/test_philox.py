"""The twin against published answers and an independent implementation in Python's integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec import _native

# The three lines "philox4x32 10" of tests/kat_vectors in the Random123 distribution (v1.14.0): counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> tuple[jax.Array, ...]:
    return tuple(jnp.uint32(int(word, 16)) for word in text.split())


def oracle(key: tuple[int, int], offset: int, count: int) -> np.ndarray:
    """The definition in unbounded integers, written from the paper."""
    out: list[int] = []
    for block in range(-(-count // 4)):
        number = (offset + block) % 2**64
        x, (k0, k1) = [number % 2**32, number >> 32, 0, 0], key
        for _ in range(10):
            p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
            x = [(p1 >> 32) ^ x[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ x[3] ^ k1, p0 % 2**32]
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        out += x
    return np.array(out[:count], np.uint32)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    got = _native.philox4x32(words(counter), words(key))
    assert [f"{int(word):08x}" for word in got] == answer.split()


def test_counter_carries_at_32_and_at_64_bits() -> None:
    key = jnp.array([7, 0xFFFFFFFF], jnp.uint32)
    bits = jax.jit(_native.philox_bits, static_argnums=2)
    for offset in (0, 2**32 - 2, 2**64 - 1):
        got = bits(key, _native.as_offset(offset), (19,))
        np.testing.assert_array_equal(got, oracle((7, 0xFFFFFFFF), offset, 19))


def test_offsets_are_64_bit_arithmetic() -> None:
    for offset, step in ((2**32 - 1, 1), (2**64 - 1, 5), (12, 0)):
        total = _native.advance(_native.as_offset(offset), step)
        np.testing.assert_array_equal(total, _native.as_offset((offset + step) % 2**64))
    for index, size in ((2**32 - 1, 2**32), (123_456_789, 3 * 224 * 224 + 1), (0, 5), (9, 0)):
        want = _native.as_offset(index * -(-size // 4))
        np.testing.assert_array_equal(_native.sample_offset(index, size), want)
        np.testing.assert_array_equal(_native.sample_offset(jnp.uint32(index), size), want)


def test_bits_are_balanced() -> None:
    # 32 bit positions over n words: each count of ones is Binomial(n, 1/2), and 6 standard deviations are exceeded with
    # probability 2e-9 each; 32 ones and 31 neighbour agreements give a false failure below 1.3e-7. The key is fixed, so a pass stays one.
    n = 1 << 16
    bits = np.asarray(_native.philox_bits(jnp.array([2011, 10], jnp.uint32), _native.as_offset(0), (n,)))
    ones = (bits[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    limit = 6 * np.sqrt(n) / 2
    assert np.abs(ones.sum(0) - n / 2).max() < limit
    assert np.abs((ones[:, 1:] == ones[:, :-1]).sum(0) - n / 2).max() < limit


def test_different_keys_give_unrelated_bits() -> None:
    # Keys that differ in one bit: the share of equal bits is Binomial(32 n, 1/2); 6 deviations, false failure 2e-9.
    n = 1 << 12
    a, b = (_native.philox_bits(jnp.array([k, 0], jnp.uint32), _native.as_offset(0), (n,)) for k in (1, 0))
    same = 32 * n - int(np.bitwise_count(np.asarray(a ^ b)).sum())
    assert abs(same - 16 * n) < 6 * np.sqrt(32 * n) / 2


def test_refusals() -> None:
    key, offset = jnp.zeros(2, jnp.uint32), _native.as_offset(0)
    with pytest.raises(TypeError, match=r"key is int32\[2\].*key_words"):
        _native.philox_bits(jnp.zeros(2, jnp.int32), offset, (3,))
    with pytest.raises(TypeError, match=r"offset is uint32\[\]"):
        _native.philox_bits(key, jnp.uint32(0), (3,))
    with pytest.raises(ValueError, match="at most 2\\^34"):
        jax.eval_shape(lambda: _native.philox_bits(key, offset, (2**18, 2**17)))
    with pytest.raises(ValueError, match="offset is -1"):
        _native.random_bits(key, (3,), offset=-1)
    with pytest.raises(TypeError, match="sample_offset"):
        _native.random_bits(key, (3,), offset=jnp.uint32(3))
    with pytest.raises(TypeError, match="typed key"):
        _native.key_words(key)
    with pytest.raises(ValueError, match="size is -1"):
        _native.sample_offset(0, -1)
    with pytest.raises(ValueError, match="index is -1"):
        _native.sample_offset(-1, 4)
    with pytest.raises(TypeError, match="float32"):
        _native.sample_offset(jnp.float32(1), 4)
    with pytest.raises(ValueError, match="blocks is -1"):
        _native.advance(offset, -1)
