"""JPEG compression as a transformation: the lossy part of the baseline standard, with a derivative for the adversary."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from ..core import static, struct
from ._transform import Transform, check_number, planes

# Quantisation tables of ITU-T T.81, annex K.1, in rows of rising vertical frequency.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# ITU-R BT.601 as in JFIF 1.02: rows Y, Cb, Cr of R, G, B.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
_TO_RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136286, -0.714136286], [1.0, 1.772, 0.0]])


def dct_matrix() -> np.ndarray:
    """[8, 8] float64: the orthonormal DCT-II; coefficients of a block b are `D b D^T` (T.81, A.3.3)."""
    k, n = np.arange(8)[:, None], np.arange(8)[None]
    return np.sqrt(np.where(k == 0, 1, 2) / 8) * np.cos((2 * n + 1) * k * np.pi / 16)


def scaled_table(base: np.ndarray, quality: Any) -> jax.Array:
    """[8, 8] int32: the table at a quality from 1 to 100, traced, as libjpeg scales it, in whole numbers from 1 to 255."""
    q = jnp.clip(jnp.round(jnp.asarray(quality)).astype(jnp.int32), 1, 100)
    percent = jnp.where(q < 50, 5000 // q, 200 - 2 * q)
    return jnp.clip((jnp.asarray(base, jnp.int32) * percent + 50) // 100, 1, 255)


@struct
class JPEG(Transform):
    """What JPEG compression leaves of an image in [0, 1]: bytes, YCbCr, 8 x 8 DCT, quantised coefficients, and all of it back.

    Entropy coding loses nothing and is left out. Images of one channel are luminance, of three RGB.
    Args:
      quality: 1 to 100, of the standard's tables as libjpeg scales them. subsampling: colour at half the resolution ("4:2:0"), which is
        libjpeg's default; else 4:4:4 (static). layout: as everywhere (static).
    Cost: forwards about four products by an 8 x 8 matrix per block and channel.
    Edge cases: sides that are no multiples of 8 (16 with subsampling) are padded with their edges, then cut; of subsampled colour the last
      halved row is repeated, as libjpeg does. Of half-precision rows bytes are made in float32. The derivative is zero everywhere. The
      surrogate is the same pipeline with coefficients rounded by `round(c) + (c - round(c))^3`, and without the other roundings and
      the clipping.
    Source: ITU-T T.81 (baseline) and JFIF 1.02; as a defence: Dziugaite et al. 2016, Guo et al. 2018; the surrogate's rounding: Shin and
      Song 2017, eq. 4. libjpeg computes the cosine transforms in integers, we in float32: a coefficient near a tie may
      round the other way, and its block of 8 x 8 pixels then moves by a step of the table. Against libjpeg-turbo (Pillow), on smoothed
      random images of 24 x 32, 13 x 19 and 32 x 32 pixels at the qualities 10, 30, 75 and 95, with subsampling and without: bytes differ by
      0.04 to 0.7 on average, by more than 2 in up to 9 %, by 46 at most.
    """

    name: ClassVar[str] = "jpeg"
    source: ClassVar[str] = "Dziugaite et al. 2016, arXiv:1608.00853"

    quality: Any = 75
    subsampling: bool = static(default=False)
    layout: str = static(default="auto")

    def check(self) -> None:
        check_number(self.name, "quality", self.quality, lambda v: (v >= 1) & (v <= 100) & (v == v.round()), "a whole number from 1 to 100")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self._coded(x, jnp.round, exact=True)

    def surrogate(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self._coded(x, _soft_round, exact=False)

    def _coded(self, x: jax.Array, quantise: Any, exact: bool) -> jax.Array:
        whole, clipped = (jnp.round, _bytes) if exact else (lambda v: v, lambda v: v)
        v, back = planes(x, self.layout, self.name)
        channels, height, width = v.shape[1:]
        if channels not in (1, 3):
            raise ValueError(f"{self.name} got images of {channels} channels; 1 (grey) or 3 (RGB) are allowed.")
        v = clipped(whole(v * 255))
        if channels == 1:
            v = _blocks(_padded(v, 8, 8) - 128, scaled_table(LUMINANCE, self.quality), quantise) + 128
            return back(clipped(whole(v))[:, :, :height, :width] / 255)
        ycc = whole(_mixed(v, _TO_YCC))  # the colour differences about 0, where libjpeg stores them about 128
        light, tint = _padded(ycc[:, :1], 8, 8), ycc[:, 1:]
        # rows are repeated at the bottom after they were halved, columns at the right before, as libjpeg does
        tint = _padded(_halved(_padded(tint, 2, 16), exact), 8, 8) if self.subsampling else _padded(tint, 8, 8)
        light = _blocks(light - 128, scaled_table(LUMINANCE, self.quality), quantise) + 128
        tint = _blocks(tint, scaled_table(CHROMINANCE, self.quality), quantise)
        light, tint = clipped(whole(light)), clipped(whole(tint) + 128) - 128
        if self.subsampling:
            # the padding is not seen: a decoder repeats the last sample that belongs to the image
            tint = _doubled(tint[:, :, : -(-height // 2), : -(-width // 2)], exact)
        light, tint = light[:, :, :height, :width], tint[:, :, :height, :width]
        rgb = _mixed(jnp.concatenate([light, tint], axis=1), _TO_RGB)
        return back(clipped(whole(rgb)) / 255)


def _bytes(v: jax.Array) -> jax.Array:
    return jnp.clip(v, 0.0, 255.0)


def _soft_round(v: jax.Array) -> jax.Array:
    near = jax.lax.stop_gradient(jnp.round(v))
    return near + (v - near) ** 3


def _mixed(v: jax.Array, matrix: np.ndarray) -> jax.Array:
    """The channels' linear combinations."""
    return jnp.einsum("ij,bjhw->bihw", jnp.asarray(matrix, v.dtype), v, precision=Precision.HIGHEST)


def _blocks(v: jax.Array, table: jax.Array, quantise: Any) -> jax.Array:
    """Every 8 x 8 block to coefficients, these in whole multiples of the table, and back."""
    b, c, height, width = v.shape
    basis, steps = jnp.asarray(dct_matrix(), v.dtype), table.astype(v.dtype).reshape(1, 1, 1, 8, 1, 8)
    blocks = v.reshape(b, c, height // 8, 8, width // 8, 8)
    coefficients = jnp.einsum("ui,bcpiqj,vj->bcpuqv", basis, blocks, basis, precision=Precision.HIGHEST)
    kept = quantise(coefficients / steps) * steps
    return jnp.einsum("ui,bcpuqv,vj->bcpiqj", basis, kept, basis, precision=Precision.HIGHEST).reshape(v.shape)


def _padded(v: jax.Array, rows: int, columns: int) -> jax.Array:
    """The last row and column repeated until the sides are multiples."""
    return jnp.pad(v, ((0, 0), (0, 0), (0, -v.shape[2] % rows), (0, -v.shape[3] % columns)), mode="edge")


def _halved(v: jax.Array, exact: bool) -> jax.Array:
    """Means of 2 x 2 pixels; `exact`: in whole numbers, a quarter or a half added column by column in turn, then rounded down."""
    b, c, height, width = v.shape
    v = jnp.mean(v.reshape(b, c, height // 2, 2, width // 2, 2), axis=(3, 5))
    return jnp.floor(v + ((1 + jnp.arange(width // 2) % 2) / 4)[None, None, None]) if exact else v


def _doubled(v: jax.Array, exact: bool) -> jax.Array:
    """Twice the size; a new pixel is 3/4 the nearer old one and 1/4 the next, in each direction: libjpeg's triangle filter.

    Args: exact: in whole numbers, 8/16 or 7/16 added column by column in turn, then rounded down.
    Edge cases: of up to two columns every sample is repeated, as libjpeg does.
    """
    if v.shape[3] <= 2:
        return jnp.repeat(jnp.repeat(v, 2, axis=2), 2, axis=3)
    for axis in (2, 3):
        size = v.shape[axis]
        wide = jnp.pad(v, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        before, after = (jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in (0, 2))
        both = jnp.stack([0.75 * v + 0.25 * before, 0.75 * v + 0.25 * after], axis=axis + 1)
        v = both.reshape([2 * n if a == axis else n for a, n in enumerate(v.shape)])
    return jnp.floor(v + ((8 - jnp.arange(v.shape[3]) % 2) / 16)[None, None, None]) if exact else v
