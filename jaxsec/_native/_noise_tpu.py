"""The noise on a TPU: a Pallas kernel that makes some samples of one image at a time, without the words or the normals leaving VMEM.

The formulas are those of the twin, which is the specification; a TPU has no conversion of uint32, so words become float32 by halves.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._normal import discrete_by, laplace, normal_pair, uniform
from ._philox import philox4x32

_SAMPLES = 8  # of one image in a step: the sublanes of a register
_LANES = 128
_MOST_CELLS = 4096  # beyond, looking a table up by registers costs more than the twin's gather


def fits(d: int, table: jax.Array) -> bool:
    """Whether quarters of a row fill whole registers, and the table, if there is one, is made of some; the twin makes other rows."""
    cells = table.shape[1]
    return d > 0 and d % (4 * _LANES) == 0 and cells <= _MOST_CELLS and cells % _LANES == 0


def noised_tpu(
    first: jax.Array, key: jax.Array, parts: tuple[jax.Array, ...], table: jax.Array, *, n: int, stream: int, distribution: str, dtype: Any,
    interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """y [B, n, d]: z scale + base of parts (base, scale), or with a table (z + base) scale + shift of parts (base, scale, shift).

    first, key: [B, 2] uint32. parts: [B, d] float32 each, d a multiple of 512. table: [2, cells] uint32, cells a multiple of 128.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    b, d = parts[0].shape
    words = pl.BlockSpec(memory_space=pltpu.SMEM)
    row = pl.BlockSpec((1, 1, d), lambda i, j: (i, 0, 0))
    tables = (table.reshape(-1, _LANES),) if table.size else ()
    whole = [pl.BlockSpec(t.shape, lambda i, j: (0, 0)) for t in tables]
    kernel = functools.partial(_kernel, d=d, stream=stream, distribution=distribution, cells=table.shape[1])
    call = pl.pallas_call(
        kernel,
        grid=(b, pl.cdiv(n, _SAMPLES)),
        in_specs=[words, words, *[row] * len(parts), *whole],
        out_specs=pl.BlockSpec((1, _SAMPLES, d), lambda i, j: (i, j, 0)),
        out_shape=jax.ShapeDtypeStruct((b, n, d), dtype),
        interpret=interpret,
    )
    return call(first, key, *(p[:, None] for p in parts), *tables)


def _kernel(first: Any, key: Any, *refs: Any, d: int, stream: int, distribution: str, cells: int) -> None:
    from jax.experimental import pallas as pl

    blocks, shape = d // 4, (_SAMPLES, _LANES)
    image = pl.program_id(0)
    start = (pl.program_id(1) * _SAMPLES).astype(jnp.uint32)
    sample = start + jax.lax.broadcasted_iota(jnp.uint32, shape, 0)
    low = first[image, 0] + sample
    high = first[image, 1] + (low < sample).astype(jnp.uint32)
    k0, k1 = (jnp.full(shape, key[image, i], jnp.uint32) for i in range(2))
    lane = jax.lax.broadcasted_iota(jnp.uint32, shape, 1)
    y = refs[-1]

    def words_of(at: Any, stream: int) -> Any:
        return philox4x32((lane + at.astype(jnp.uint32), jnp.full(shape, stream, jnp.uint32), low, high), (k0, k1))

    def chunk(i: Any, _: Any) -> Any:
        at = pl.multiple_of(i * _LANES, _LANES)
        words = words_of(at, stream)
        if cells:
            seconds, look = words_of(at, stream + 1), functools.partial(_look_up, refs[-2], cells)
            values = tuple(discrete_by(w, s, look, (cells - 1).bit_length()) for w, s in zip(words, seconds, strict=True))
        elif distribution == "gaussian":
            values = (*normal_pair(words[0], words[1]), *normal_pair(words[2], words[3]))
        else:
            values = tuple(map(laplace if distribution == "laplace" else uniform, words))
        for w, z in enumerate(values):
            here = pl.ds(w * blocks + at, _LANES)
            base, scale = refs[0][0, :, here], refs[1][0, :, here]
            value = (z + base) * scale + refs[2][0, :, here] if cells else z * scale + base
            y[0, :, here] = value.astype(y.dtype)
        return _

    jax.lax.fori_loop(0, blocks // _LANES, chunk, np.int32(0))


def _look_up(table: Any, cells: int, half: int, index: jax.Array) -> jax.Array:
    """Element `index` of a half of the table: within a register by lanes, and of the registers the right one."""
    lane, row = (index & np.uint32(_LANES - 1)).astype(jnp.int32), index >> 7
    found = jnp.zeros(index.shape, jnp.uint32)
    for r in range(cells // _LANES):
        line = jnp.broadcast_to(table[half * (cells // _LANES) + r][None], index.shape)
        found = jnp.where(row == np.uint32(r), jnp.take_along_axis(line, lane, axis=1, mode="promise_in_bounds"), found)
    return found
