"""The noise on a TPU: a Pallas kernel that makes some samples of one image at a time, without the words or the normals leaving VMEM.

The formulas are those of the twin, which is the specification; a TPU has no conversion of uint32, so words become float32 by halves.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._normal import laplace, normal_pair, uniform
from ._philox import philox4x32

_SAMPLES = 8  # of one image in a step: the sublanes of a register
_LANES = 128


def fits(d: int) -> bool:
    """Whether quarters of a row fill whole registers; other rows are made by the twin."""
    return d > 0 and d % (4 * _LANES) == 0


def noised_tpu(
    first: jax.Array, key: jax.Array, base: jax.Array, scale: jax.Array, *, n: int, stream: int, distribution: str, dtype: Any,
    interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """y [B, n, d] = z scale + base. first, key: [B, 2] uint32. base, scale: [B, d] float32, d a multiple of 512."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    b, d = base.shape
    words = pl.BlockSpec(memory_space=pltpu.SMEM)
    row = pl.BlockSpec((1, 1, d), lambda i, j: (i, 0, 0))
    kernel = functools.partial(_kernel, d=d, stream=stream, distribution=distribution)
    call = pl.pallas_call(
        kernel,
        grid=(b, pl.cdiv(n, _SAMPLES)),
        in_specs=[words, words, row, row],
        out_specs=pl.BlockSpec((1, _SAMPLES, d), lambda i, j: (i, j, 0)),
        out_shape=jax.ShapeDtypeStruct((b, n, d), dtype),
        interpret=interpret,
    )
    return call(first, key, base[:, None], scale[:, None])


def _kernel(first: Any, key: Any, base: Any, scale: Any, y: Any, *, d: int, stream: int, distribution: str) -> None:
    from jax.experimental import pallas as pl

    blocks, shape = d // 4, (_SAMPLES, _LANES)
    image = pl.program_id(0)
    start = (pl.program_id(1) * _SAMPLES).astype(jnp.uint32)
    sample = start + jax.lax.broadcasted_iota(jnp.uint32, shape, 0)
    low = first[image, 0] + sample
    high = first[image, 1] + (low < sample).astype(jnp.uint32)
    k0, k1 = (jnp.full(shape, key[image, i], jnp.uint32) for i in range(2))
    lane = jax.lax.broadcasted_iota(jnp.uint32, shape, 1)

    def chunk(i: Any, _: Any) -> Any:
        at = pl.multiple_of(i * _LANES, _LANES)
        words = philox4x32((lane + at.astype(jnp.uint32), jnp.full(shape, stream, jnp.uint32), low, high), (k0, k1))
        if distribution == "gaussian":
            values = (*normal_pair(words[0], words[1]), *normal_pair(words[2], words[3]))
        else:
            values = tuple(map(laplace if distribution == "laplace" else uniform, words))
        for w, z in enumerate(values):
            here = pl.ds(w * blocks + at, _LANES)
            y[0, :, here] = (z * scale[0, :, here] + base[0, :, here]).astype(y.dtype)
        return _

    jax.lax.fori_loop(0, blocks // _LANES, chunk, np.int32(0))
