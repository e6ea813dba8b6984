"""Rows made ready for sampling: what every front door of smoothing does with x, sigma and the key before the first sample."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from .._native import as_float, key_words
from ..attack._checkpoint import fingerprint, of_programs
from ..core._check import output_of, program_of
from ..core._keys import as_key, row_keys
from ..core._model import Model
from ..core._working_set import rows_in_cache
from ._randomizer import Randomizer


@dataclasses.dataclass(frozen=True)
class Inputs:
    """N rows. x: as the randomizer draws from them. words: [N, 2] uint32, the key words of each. sigma: [N] float32. shared: what
    `randomizer.shared` gave. shown: [1, ...] what the model is shown of a row. sharding: of slots over devices, None on one."""

    x: np.ndarray
    words: np.ndarray
    sigma: np.ndarray
    shared: tuple[Any, ...]
    shown: jax.ShapeDtypeStruct
    sharding: NamedSharding | None
    randomizer: Randomizer

    @property
    def devices(self) -> int:
        """How many the slots lie on."""
        return 1 if self.sharding is None else len(self.sharding.device_set)

    def placed(self, *arrays: Any) -> tuple[Any, ...]:
        """Arrays [S, ...] on the slots' devices; as they are where that is one."""
        return arrays if self.sharding is None else tuple(jax.device_put(a, self.sharding) for a in arrays)

    @functools.cached_property
    def values(self) -> np.ndarray:
        """The rows in the units of the threat: bytes are read as 1/255 of them."""
        return as_float(self.x)  # the floats that samples are made of, to the last bit

    def taken(self, rows: np.ndarray, x: np.ndarray, words: np.ndarray) -> "Inputs":
        """Some of the rows, with other values and draws."""
        return dataclasses.replace(self, x=self.randomizer.held(x), words=words, sigma=self.sigma[rows], sharding=None)

    def batch(self, model: Model, max_samples: int | None, *, backward: bool = False) -> int:
        """Samples in one forward pass. Without a backward pass little of a batch is kept at a time: on the small net of the benches 17.5 us
        a sample at 256, as many as a gradient's batch, 15.3 at 1024, 22 at 2048."""
        return max_samples or min(4096, (1 if backward else 4) * rows_in_cache(model, self.shown))

    def _programs(self, dtype: Any, classes: int | None) -> list[Any]:
        """The randomizer's closed jaxprs: a class may keep its name and change what it draws or counts."""
        row = jax.ShapeDtypeStruct((2, *self.x.shape[1:]), self.x.dtype)
        words, sigma = jax.ShapeDtypeStruct((2, 2), jnp.uint32), jax.ShapeDtypeStruct((2,), jnp.float32)
        found = [jax.make_jaxpr(functools.partial(self.randomizer.draw, n=2, dtype=dtype))(words, row, words, sigma, self.shared)]
        if classes is not None:
            logits, valid = jax.ShapeDtypeStruct((4, classes), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
            found.append(jax.make_jaxpr(self.randomizer.votes)(logits, valid, self.shared))
        return found

    def identity(self, model: Model, settings: str, dtype: Any, *others: Any, classes: int | None = None) -> str:
        """What decides the samples and what is counted, of models with so many classes by votes. How many run at once does not."""
        parts = of_programs(settings, [program_of(model, self.shown), *self._programs(dtype, classes)])
        return fingerprint(model, self.x, self.words, self.sigma, self.shared, *others, *parts)


def inputs_of(x: Any, words: np.ndarray, randomizer: Randomizer, sigma: Any) -> Inputs:
    """Row r draws from words[r]; ValueError or TypeError for what cannot be sampled."""
    sharding, host = _slots(x), np.asarray(x)
    rows = rows_of(host)
    scale = np.asarray(sigma if randomizer.scaled else 1.0, np.float32).reshape(-1)
    if scale.size not in (1, rows):
        raise ValueError(f"sigma has {scale.size} values for {rows} rows; give one value, or one for each row.")
    scale = np.broadcast_to(scale, (rows,))
    host, shared = randomizer.held(host), randomizer.shared(scale)
    return Inputs(host, words, scale, shared, _shown(randomizer, host, shared), sharding, randomizer)


def rows_of(x: Any) -> int:
    """How many rows x has; ValueError where it has none by its shape."""
    if np.ndim(x) < 2:
        raise ValueError(f"x has shape {np.shape(x)}; needed: x [B, ...] with at least two axes.")
    return np.shape(x)[0]


def ids_of(x: Any, row_ids: Any) -> np.ndarray:
    """[B] the rows' numbers: row_ids, or 0 .. B - 1."""
    ids = np.arange(rows_of(x)) if row_ids is None else np.asarray(row_ids)
    if ids.shape != (rows_of(x),):
        raise ValueError(f"row_ids has shape {ids.shape} for {rows_of(x)} rows; one number for each row is needed.")
    if not ids.size:
        return ids.astype(np.uint32)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"row_ids has dtype {ids.dtype}; integers from 0 to 2^32 - 1 are needed.")
    if len(wrong := ids[(ids < 0) | (ids >= 2**32)]):
        raise ValueError(f"row_ids has the value {wrong[0]}; integers from 0 to 2^32 - 1 are needed.")
    return ids


def row_words(key: Any, row_ids: Any) -> np.ndarray:
    """[B, 2] uint32: the key words of `fold_in(key, row_ids[r])` for each row."""
    key, ids = as_key(key), np.asarray(row_ids, np.uint32).reshape(-1)
    return np.asarray(jax.vmap(key_words)(row_keys(key, jnp.asarray(ids)))) if len(ids) else np.zeros((0, 2), np.uint32)


def output_shape(model: Model, inputs: Inputs, least: int, needed: str) -> tuple[int, ...]:
    """[...] of a row's output, for models of other outputs than classes; ValueError for less than `least` axes with that of the batch."""
    if model.stochastic:
        raise ValueError("the model draws random numbers; certify its deterministic part.")
    out = output_of(model, inputs.shown)
    shape = tuple(int(size) for size in getattr(out, "shape", ()))
    if len(shape) < least or shape[0] != 2:
        raise ValueError(f"the model turns {(2, *inputs.shown.shape[1:])} into {shape or type(out).__name__}; {needed}")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"the model gives values of dtype {out.dtype}; floating ones are needed: scores, not the class.")
    return shape[1:]


def check_units(x: Any, threat: Any) -> None:
    """ValueError for uint8 rows and a threat in units of bytes: the rows are read as 1/255 of them."""
    top = getattr(threat, "hi", None)
    if np.asarray(x).dtype == np.uint8 and top is not None:
        top = float(np.max(np.asarray(top, np.float64), initial=-np.inf))
        if np.isfinite(top) and top > 1:
            raise ValueError(
                f"x is uint8, which is read as k / 255, and the threat has hi={top:g}; give eps, sigma, lo and hi in units of [0, 1], or "
                "x.astype('float32') in units of bytes."
            )


def check_call(door: str, max_samples: int | None, *inputs: Any) -> None:
    """TypeError under a trace, ValueError for a batch of no samples."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(inputs)):
        raise TypeError(f"{door} drives the device from the host and cannot run under jit or vmap; call it eagerly.")
    if max_samples is not None and (not isinstance(max_samples, int) or max_samples < 1):
        raise ValueError(f"max_samples is {max_samples!r}; it must be an int of at least 1, or None.")


def _shown(randomizer: Randomizer, x: np.ndarray, shared: tuple[Any, ...]) -> jax.ShapeDtypeStruct:
    """[1, ...] what the model is shown of a row."""

    def one(words: jax.Array, x: jax.Array, sigma: jax.Array, shared: tuple[Any, ...]) -> jax.Array:
        return randomizer.draw(words, x, words, sigma, shared, n=1, dtype=jnp.float32)

    row = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    return jax.eval_shape(one, jax.ShapeDtypeStruct((1, 2), jnp.uint32), row, jax.ShapeDtypeStruct((1,), jnp.float32), shared)


def _slots(x: Any) -> NamedSharding | None:
    """How slots lie on devices: as the rows of x do; None where that is one device."""
    if not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1:
        return None
    if not isinstance(x.sharding, NamedSharding) or not x.sharding.spec or x.sharding.spec[0] is None:
        raise ValueError(
            f"x lies on {len(x.sharding.device_set)} devices by {x.sharding}; shard its first axis by a NamedSharding, or give "
            "np.asarray(x)."
        )
    return NamedSharding(x.sharding.mesh, PartitionSpec(x.sharding.spec[0]))
