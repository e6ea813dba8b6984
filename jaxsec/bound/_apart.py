"""Does a model see rows one by one? Bounds are of a row alone, and say nothing about a batch in which others have a part."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..core._meshes import in_shard_map
from ..core._model import Model
from ._graph import UnsupportedPrimitive

ROWS = 7  # prime, so that few shifts of rows come round to themselves
_FAR = 1e30


def check_apart(model: Model, x: Any) -> None:
    """Raises UnsupportedPrimitive where logits of a row of x [B, ...] change as other rows of its batch do; where the model is traced
    nothing is asked.

    Some of seven rows are replaced, by others of the same range and then one by numbers far beyond it, which saturate or dominate what
    they meet, in as many ways as tell any two rows apart. Rows that are traced are stood in for by some between 0 and 1.
    Cost: 13 forwards of 7 rows. Edge cases: in `shard_map`, or of rows on devices of other processes, nothing is asked; nor is what a
      model does in batches of another size, or only at points that are not met here.
    """
    traced = isinstance(x, Tracer)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(model)):
        return
    if in_shard_map() if traced else not getattr(x, "is_fully_addressable", True):
        return
    if np.ndim(x) < 2 or not x.size or not jnp.issubdtype(x.dtype, jnp.floating):
        return  # what is wrong with them the door says
    rows = np.random.default_rng(1).uniform(0, 1, (ROWS, *x.shape[1:])).astype(x.dtype) if traced else np.asarray(x[:ROWS])
    with jax.ensure_compile_time_eval():  # also inside a program, whose other values may be traced
        _check(model, rows)


def _check(model: Model, x: np.ndarray) -> None:
    rows = np.resize(np.where(np.isfinite(x), x, np.asarray(0.5, x.dtype)), (ROWS, *x.shape[1:]))
    others = np.random.default_rng(0).uniform(rows.min(), rows.max() + 1e-3, rows.shape).astype(rows.dtype)
    before = _asked(model, jnp.asarray(rows))
    if isinstance(before, Tracer):  # of weights that are no leaves of the model
        return
    before = np.asarray(before)
    room = 1e-6 * (1 + np.abs(np.where(np.isfinite(before), before, 0)).max())  # devices may add in an order of their own
    for kept in parts():
        given = np.where(kept.reshape(-1, *(1,) * (rows.ndim - 1)), rows, others)
        beside = given.copy()
        beside[np.flatnonzero(~kept)[0]] = np.asarray(min(_FAR, float(jnp.finfo(rows.dtype).max)), rows.dtype)
        found = (_logits(model, a)[kept] for a in (given, beside))
        if not all(np.allclose(before[kept], after, rtol=0, atol=room, equal_nan=True) for after in found):
            raise UnsupportedPrimitive(
                "a model whose answer to a row depends on the other rows of its batch, such as one with BatchNorm in training mode. "
                "Bounds are about a row alone: bind the inference mode, or let the model see rows one by one."
            )


def parts() -> Iterator[np.ndarray]:
    """[ROWS] bool, which rows stay: of any two rows one stays in some part that the other does not."""
    for bit in (1, 2, 4):
        for side in (0, bit):
            yield (np.arange(ROWS) & bit) == side


def _logits(model: Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(_asked(model, jnp.asarray(x)))


@jax.jit
def _asked(model: Model, x: jax.Array) -> jax.Array:
    return model(x)
