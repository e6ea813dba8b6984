"""Fixed numbers of samples of rows whose outputs are large: as many rows at once as there are devices, their samples in equal chunks."""

import functools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._model import Model
from ._inputs import Inputs
from ._randomizer import Randomizer
from ._sampling import outputs_of

Fold = Callable[[Any, jax.Array, jax.Array], Any]


@functools.partial(jax.jit, static_argnames=("fold", "n", "dtype", "randomizer"))
def _step(
    fold: Fold, model: Model, carry: Any, x: jax.Array, words: jax.Array, first: jax.Array, valid: jax.Array, sigma: jax.Array,
    shared: tuple[Any, ...], *, n: int, dtype: Any, randomizer: Randomizer,
) -> Any:  # fmt: skip
    outputs = outputs_of(model, randomizer.draw(words, x, first, sigma, shared, n=n, dtype=dtype), dtype)
    return fold(carry, outputs.reshape(len(x), n, *outputs.shape[1:]), jnp.arange(n) < valid)


@dataclass(frozen=True)
class Lockstep:
    """`batch`: samples in one forward pass, over all rows at once."""

    model: Model
    inputs: Inputs
    batch: int
    dtype: Any

    @property
    def slots(self) -> int:
        """Rows at once."""
        return 1 if self.inputs.sharding is None else len(self.inputs.sharding.device_set)

    def run(self, todo: np.ndarray, work: Callable[[np.ndarray], Any], land: Callable[[np.ndarray, Any], None]) -> None:
        """`work` on `slots` rows at a time, the last ones padded, and `land` what it gave for the rows asked for."""
        flying = deque[tuple[np.ndarray, Any]]()
        for start in range(0, len(todo), self.slots):
            rows = todo[start : start + self.slots]
            flying.append((rows, work(np.resize(rows, self.slots))))
            if len(flying) > 1:  # the device works on these rows while the host looks at those before
                land(*flying.popleft())
        while flying:
            land(*flying.popleft())

    def folded(self, fold: Fold, carry: Any, rows: np.ndarray, first: int, count: int) -> Any:
        """`carry` after samples first .. first + count - 1 of the rows; `fold` sees outputs [S, n, ...] and which of the n count."""
        for at, valid, n in self._chunks(first, count):
            carry = self._sent(fold, carry, rows, at, valid, n)
        return carry

    def outputs(self, fold: Fold, rows: np.ndarray, count: int) -> list[tuple[jax.Array, int]]:
        """(what `fold` makes of a chunk, how many of its samples count) for samples 0 .. count - 1."""
        return [(self._sent(fold, None, rows, at, valid, n), valid) for at, valid, n in self._chunks(0, count)]

    def placed(self, *arrays: Any) -> tuple[jax.Array, ...]:
        """Arrays [S, ...] on the rows' devices."""
        return tuple(jax.device_put(a, self.inputs.sharding) if self.inputs.sharding is not None else jnp.asarray(a) for a in arrays)

    def _chunks(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(first sample, how many count, size), of one size, so that one program serves all."""
        most = max(1, self.batch // self.slots)
        size = -(-count // -(-count // most))
        for start in range(0, count, size):
            yield first + start, min(size, count - start), size

    def _sent(self, fold: Fold, carry: Any, rows: np.ndarray, first: int, valid: int, n: int) -> Any:
        from_ = np.tile(np.array([[first & 0xFFFFFFFF, first >> 32]], np.uint32), (len(rows), 1))
        x, words, offset, sigma = self.placed(self.inputs.x[rows], self.inputs.words[rows], from_, self.inputs.sigma[rows])
        how = {"n": n, "dtype": self.dtype, "randomizer": self.inputs.randomizer}
        return _step(fold, self.model, carry, x, words, offset, np.int32(valid), sigma, self.inputs.shared, **how)
