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

    def run(
        self, finished: np.ndarray, work: Callable[[np.ndarray], Any], land: Callable[[np.ndarray, Any], None], tell: Callable[[], None]
    ) -> None:
        """`work` on as many rows that are not finished as there are devices, the last ones padded; `land` takes what it gave for the rows
        asked for, which then are, and `tell` hears of it."""
        flying, todo, slots = deque[tuple[np.ndarray, Any]](), np.flatnonzero(~finished), self.inputs.devices

        def down() -> None:
            rows, found = flying.popleft()
            land(rows, found)
            finished[rows] = True
            tell()

        for start in range(0, len(todo), slots):
            rows = todo[start : start + slots]
            flying.append((rows, work(np.resize(rows, slots))))
            if len(flying) > 1:  # the device works on these rows while the host looks at those before
                down()
        while flying:
            down()

    def folded(self, fold: Fold, carry: Any, rows: np.ndarray, first: int, count: int) -> Any:
        """`carry` after samples first .. first + count - 1 of the rows; `fold` sees outputs [S, n, ...] and which of the n count."""
        for at, valid, n in self._chunks(first, count):
            carry = self._sent(fold, carry, rows, at, valid, n)
        return carry

    def outputs(self, fold: Fold, rows: np.ndarray, count: int) -> list[tuple[jax.Array, int]]:
        """(what `fold` makes of a chunk, how many of its samples count) for samples 0 .. count - 1."""
        return [(self._sent(fold, None, rows, at, valid, n), valid) for at, valid, n in self._chunks(0, count)]

    def _chunks(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(first sample, how many count, size), of one size, so that one program serves all."""
        most = max(1, self.batch // self.inputs.devices)
        size = -(-count // -(-count // most))
        for start in range(0, count, size):
            yield first + start, min(size, count - start), size

    def _sent(self, fold: Fold, carry: Any, rows: np.ndarray, first: int, valid: int, n: int) -> Any:
        from_ = np.tile(np.array([[first & 0xFFFFFFFF, first >> 32]], np.uint32), (len(rows), 1))
        inputs = self.inputs
        x, words, offset, sigma = inputs.placed(inputs.x[rows], inputs.words[rows], from_, inputs.sigma[rows])
        how = {"n": n, "dtype": self.dtype, "randomizer": inputs.randomizer}
        return _step(fold, self.model, carry, x, words, offset, np.int32(valid), sigma, inputs.shared, **how)
