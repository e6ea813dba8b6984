"""How many rows a CPU works on at once before their activations fall out of its caches."""

import math
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from ._check import program_of
from ._walk import equations

# What a batch's inputs and activations may take. Measured on an attack step of a small convolutional net, 32 MiB of shared cache:
# 18.2 us a row at 11.5 MB, 15.0 at 5.7 MB, 14.9 at 2.9 MB, 15.7 at 1.4 MB, where the steps' own overhead shows.
BUDGET = 6 * 2**20
FEWEST = 32
# Their results lie in memory until the backward pass; elementwise ones are fused into what reads them.
_KEPT = ("conv_general_dilated", "dot_general", "reduce_window_max", "reduce_window_sum", "reduce_window", "sort", "gather")


def rows_in_cache(model: Any, x: Any) -> int:
    """A power of two of at least `FEWEST` rows; no limit (2**30) where the default backend is no CPU.

    Cost: one trace of the model, which `program_of` keeps.
    """
    if jax.default_backend() != "cpu":
        return 2**30
    row = math.prod(x.shape[1:]) * x.dtype.itemsize + bytes_per_row(program_of(model, x).jaxpr)
    return max(FEWEST, 1 << int(math.log2(max(BUDGET / row, 1.0))))


def bytes_per_row(jaxpr: jex.Jaxpr) -> float:
    """Bytes that one row keeps in memory, of a program traced on two rows: results with the batch axis first (loops count once)."""
    return sum(_batched(v) for eqn in equations(jaxpr) if eqn.primitive.name in _KEPT for v in eqn.outvars)


def _batched(v: Any) -> float:
    aval = v.aval
    shape = getattr(aval, "shape", ())
    if not shape or shape[0] != 2 or not isinstance(getattr(aval, "dtype", None), np.dtype):
        return 0.0
    return math.prod(shape[1:]) * aval.dtype.itemsize
