"""From uniform words to values, in JAX's 32-bit numbers: the specification of the native transforms.

The polynomials are those of csrc/include/jaxsec/normal.h, minimax in relative error.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_ULP32 = np.float32(2.0**-32)
_LOG = (
    9.999998321e-01, -6.666790044e-01, 5.000351052e-01, -3.992414443e-01, 3.314101601e-01, -2.983594534e-01, 2.861504525e-01,
    -1.746969350e-01,
)  # fmt: skip
_SIN = (1.570796322e00, -6.459634602e-01, 7.968003277e-02, -4.601657887e-03)
_COS = (1.0, -1.233700543e00, 2.536692263e-01, -2.086016704e-02, 9.037702341e-04)
_MINUS_TWO_LN2 = np.float32(-1.386294361 / 2**23)
_SQRT_HALF = np.int32(0x3F3504F3)


def normal_pair(word0: jax.Array, word1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two independent standard normals for each pair of uint32 words: radius from the first, angle from the second.

    Guarantee: within 4 units in the last place of every native form; finite, at most 6.764 in size.
    Source: Box and Muller 1958.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(z), 3) for z in normal_pair(jnp.uint32(0), jnp.uint32(0))]
      [6.764, 0.0]
    """
    r = jnp.sqrt(_minus_two_log(as_float32(word0) * _ULP32 + np.float32(2.0**-33)))
    t = jax.lax.bitcast_convert_type(word1 << 2, jnp.int32).astype(jnp.float32) * _ULP32  # of a quarter turn, from its nearest multiple
    quarter = word1 + np.uint32(0x20000000)  # in the top two bits
    sine, cosine = _horner(_SIN, t * t) * t, _horner(_COS, t * t)
    odd = (quarter & np.uint32(0x40000000)) != 0
    z0 = _signed(jnp.where(odd, sine, cosine), quarter + np.uint32(0x40000000))
    z1 = _signed(jnp.where(odd, cosine, sine), quarter)
    return z0 * r, z1 * r


def as_float32(word: jax.Array) -> jax.Array:
    """The word as a number, rounded once, by halves that are exact: TPU kernels have no conversion of unsigned words.

    Example:
      >>> import jax.numpy as jnp
      >>> float(as_float32(jnp.uint32(2**32 - 1)))
      4294967296.0
    """
    high, low = ((v).astype(jnp.int32).astype(jnp.float32) for v in (word >> 16, word & np.uint32(0xFFFF)))
    return high * np.float32(65536) + low


def laplace(word: jax.Array) -> jax.Array:
    """Laplace with scale 1 for each uint32 word: the top bit is the sign, minus the logarithm of the others the size.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(laplace(jnp.uint32(2**31))), 3)
      -22.181
    """
    u = (word & np.uint32(0x7FFFFFFF)).astype(jnp.int32).astype(jnp.float32) * np.float32(2.0**-31) + _ULP32
    return _signed(np.float32(0.5) * _minus_two_log(u), word)


def uniform(word: jax.Array) -> jax.Array:
    """Flat on [-1, 1] for each uint32 word.

    Example:
      >>> import jax.numpy as jnp
      >>> float(uniform(jnp.uint32(0)))
      -1.0
    """
    centred = jax.lax.bitcast_convert_type(word ^ np.uint32(0x80000000), jnp.int32)
    return centred.astype(jnp.float32) * np.float32(2.0**-31) + _ULP32


def discrete(word: jax.Array, second: jax.Array, table: jax.Array) -> jax.Array:
    """Whole numbers, as float32, for each pair of uint32 words, by the alias method. table: [2, cells] uint32, see `alias_table`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec._native._discrete import alias_table
      >>> float(discrete(jnp.uint32(2**31), jnp.uint32(0), jnp.asarray(alias_table(63.75))))
      0.0
    """
    return discrete_by(word, second, lambda half, index: table[half][index], (table.shape[1] - 1).bit_length())


def discrete_by(word: jax.Array, second: jax.Array, look: Callable[[int, jax.Array], jax.Array], bits: int) -> jax.Array:
    """`discrete` with the table behind `look(half, index)`, for machines that gather in their own way; `bits` name a cell.

    Example:
      >>> import jax.numpy as jnp
      >>> float(discrete_by(jnp.uint32(0), jnp.uint32(0), lambda half, index: jnp.uint32(1), 1))
      -1.0
    """
    shift = np.uint32(32 - bits)
    mask = np.uint32((1 << (32 - bits)) - 1)
    own, rest = word >> shift, word & mask
    cell = look(0, own)
    cut = cell & mask
    below = (rest < cut) | ((rest == cut) & (second < look(1, own)))
    return (jnp.where(below, own, cell >> shift).astype(jnp.int32) - np.int32(1 << (bits - 1))).astype(jnp.float32)


def _minus_two_log(u: jax.Array) -> jax.Array:
    """-2 ln u for normal u in (0, 1]: the exponent is taken out where it lies, ln of the rest is a polynomial."""
    bits = jax.lax.bitcast_convert_type(u, jnp.int32)
    e = (bits - _SQRT_HALF) & np.int32(~0x7FFFFF)
    f = jax.lax.bitcast_convert_type(bits - e, jnp.float32) - 1
    return e.astype(jnp.float32) * _MINUS_TWO_LN2 + (f * f * _horner(_LOG, f) + f * -2)


def _horner(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + np.float32(c)
    return value


def _signed(size: jax.Array, word: jax.Array) -> jax.Array:
    """`size` with its sign flipped where the top bit of the word is set."""
    bits = jax.lax.bitcast_convert_type(size, jnp.uint32) ^ (word & np.uint32(0x80000000))
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
