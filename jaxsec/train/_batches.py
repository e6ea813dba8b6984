"""Where batches come from: arrays in memory, a sequence of batches such as a Grain dataset, or a stream per epoch."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

Batch = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches by number: `epoch(e, first)` yields those of epoch e from number `first` on, always the same ones.

    Attributes: steps: batches in an epoch. example: one batch, for shapes. identity: what a resumed run must find again.
      whole: all rows, where they are arrays in memory; None for a sequence or a stream, whose batches are seen one by one.
    """

    steps: int
    example: Batch
    identity: dict[str, Any]
    epoch: Callable[[int, int], Iterator[Batch]]
    whole: Batch | None = None

    def placed(self, where: Callable[[Any], Any]) -> "Batches":
        """The same batches, each as `where` places it."""
        return dataclasses.replace(
            self, example=where(self.example), epoch=lambda e, first: map(where, self.epoch(e, first)), whole=where(self.whole)
        )


class Reader:
    """Batches by epoch and number, from one stream per epoch as long as numbers do not fall; each batch of a stream is checked.

    A batch of another shape than the first one is refused: it would be another program, and what a recipe carries from step to step would
    not fit it.
    """

    def __init__(self, batches: Batches, check: Callable[[Any, Any, str], None]):
        self._batches, self._check = batches, check
        self._epoch, self._at, self._stream, self._batch = -1, -1, iter(()), batches.example
        self._shapes = [np.shape(a) for a in batches.example]

    def __call__(self, epoch: int, number: int) -> Batch:
        if epoch != self._epoch or number < self._at:
            self._epoch, self._at, self._stream = epoch, number - 1, self._batches.epoch(epoch, number)
        while self._at < number:
            self._batch, self._at = next(self._stream), self._at + 1
            if self._batches.whole is None:
                self._looked_at(f"batch {self._at} of epoch {epoch}")
        return self._batch

    def _looked_at(self, what: str) -> None:
        shapes = [np.shape(a) for a in self._batch]
        if shapes != self._shapes:
            raise ValueError(
                f"{what} has the shapes {shapes[0]} and {shapes[1]}, the first one {self._shapes[0]} and {self._shapes[1]}; all must be "
                "alike: drop the remainder (drop_remainder=True in Grain)."
            )
        x, y = self._batch
        self._check(None if isinstance(x, jax.Array) else x, y, what)  # not off the device and back for every batch


def batches_of(data: Any, batch_size: int, key: jax.Array, steps_per_epoch: int | None) -> Batches:
    """Batches of whatever `fit` takes as data.

    Raises: TypeError, ValueError: no rows, fewer rows than a batch, rows without labels, a stream without `steps_per_epoch`.
    """
    data = arrays_of(data)
    if isinstance(data, tuple) and len(data) == 2 and all(hasattr(a, "shape") for a in data):
        if steps_per_epoch is not None:
            raise ValueError(f"steps_per_epoch is {steps_per_epoch}; arrays have as many as they fill: leave it out.")
        return _of_arrays(*data, batch_size, key)
    if isinstance(data, Sequence) or (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        return _of_sequence(data, steps_per_epoch)
    if callable(data) or hasattr(data, "__iter__"):
        if steps_per_epoch is None:
            raise ValueError("data is a stream, whose length is not known; pass steps_per_epoch, the batches in an epoch.")
        if not callable(data) and iter(data) is data:
            raise ValueError(
                "data is an iterator, which no later epoch and no resumed run can begin again; pass a function of the epoch, or "
                "an iterable."
            )
        return _of_stream(data if callable(data) else lambda _: iter(data), steps_per_epoch)
    raise TypeError(
        f"data is {type(data).__name__}; allowed: (x, y) arrays, a sequence of batches (x, y) such as a batched Grain MapDataset, an "
        "iterable of batches, or a function of the epoch that gives one."
    )


def arrays_of(data: Any) -> Any:
    """(x, y) of what holds both by name; anything else as it is."""
    if hasattr(data, "x") and hasattr(data, "y"):
        return data.x, data.y
    if isinstance(data, dict) and set(data) >= {"x", "y"}:
        return data["x"], data["y"]
    return data


def _of_arrays(x: Any, y: Any, batch_size: int, key: jax.Array) -> Batches:
    x, y = (a if isinstance(a, jax.Array) else np.asarray(a) for a in (x, y))
    if x.ndim < 2 or len(y) != len(x) or y.ndim not in (1, 2):
        raise ValueError(f"data has x of shape {x.shape} and y of shape {y.shape}; needed: x [N, ...] and y [N] classes or [N, K] shares.")
    if not 1 <= batch_size <= len(x):
        raise ValueError(f"batch_size is {batch_size} and the data has {len(x)} rows; allowed: 1 to {len(x)}.")
    for a in (x, y):
        shards = len(a) // a.sharding.shard_shape(a.shape)[0] if isinstance(a, jax.Array) else 1
        if batch_size % shards:
            raise ValueError(f"batch_size is {batch_size} and the rows lie in {shards} shards; take a multiple of {shards}.")
    if x.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        x = np.asarray(x, np.float32)
    if y.ndim == 1 and np.issubdtype(y.dtype, np.integer):
        y = y.astype(np.int32)
    steps = len(x) // batch_size

    def epoch(e: int, first: int) -> Iterator[Batch]:
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, e), len(x)))
        for i in range(first, steps):
            rows = order[i * batch_size : (i + 1) * batch_size]
            yield taken(x, rows), taken(y, rows)

    found = {"rows": len(x), "batch_size": batch_size, "data": checksum(x, y)}
    return Batches(steps, (x[:batch_size], y[:batch_size]), found, epoch, whole=(x, y))


def taken(a: Any, rows: np.ndarray) -> Any:
    """Rows of an array, sharded as the array is."""
    if not isinstance(a, jax.Array):
        return a[rows]
    return _gather(a.sharding)(a, rows)


def on_host(a: Any, rows: np.ndarray) -> np.ndarray:
    """Rows of an array, on every host all of them."""
    if not isinstance(a, jax.Array) or a.is_fully_addressable:
        return np.asarray(a)[rows]
    return np.asarray(_gather(NamedSharding(a.sharding.mesh, PartitionSpec()))(a, rows))  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _gather(sharding: Any) -> Callable[[jax.Array, np.ndarray], jax.Array]:
    return jax.jit(lambda a, rows: jnp.take(a, rows, axis=0), out_shardings=sharding)


def checksum(x: Any, y: Any) -> int:
    """Of this host's rows; 0 where it does not hold them all."""
    if any(isinstance(a, jax.Array) and not a.is_fully_addressable for a in (x, y)):
        return 0
    return zlib.crc32(np.asarray(y).tobytes(), zlib.crc32(np.asarray(x).tobytes()))


def _pair(batch: Any) -> Batch:
    """(x, y) of a batch in any of the usual forms."""
    if isinstance(batch, dict):
        for xs, ys in (("x", "y"), ("image", "label"), ("inputs", "labels")):
            if xs in batch and ys in batch:
                return batch[xs], batch[ys]
        raise TypeError(f"a batch is a dict with the keys {sorted(batch)}; needed: x and y, image and label, or inputs and labels.")
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise TypeError(f"a batch is {type(batch).__name__}; needed: (x, y), or a dict with the keys x and y.")


def _of_sequence(data: Any, steps_per_epoch: int | None) -> Batches:
    steps = steps_per_epoch or len(data)
    if not steps:
        raise ValueError("data has no batches.")

    def epoch(e: int, first: int) -> Iterator[Batch]:
        for i in range(first, steps):
            yield _pair(data[(e * steps + i) % len(data)])

    first = _pair(data[0])
    return Batches(steps, first, {"batches": len(data), "steps": steps, "first batch": checksum(*first)}, epoch)


def _of_stream(start: Callable[[int], Any], steps: int) -> Batches:
    def epoch(e: int, first: int) -> Iterator[Batch]:
        stream = iter(start(e))
        for i in range(steps):
            try:
                batch = next(stream)
            except StopIteration:
                raise ValueError(f"the data of epoch {e} ended after {i} of steps_per_epoch={steps} batches.") from None
            if i >= first:
                yield _pair(batch)

    first = next(epoch(0, 0))
    return Batches(steps, first, {"steps": steps, "first batch": checksum(*first)}, epoch)
