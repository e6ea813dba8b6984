"""Accuracy on rows that training never sees, clean and under an attack: what decides which weights are kept."""

import dataclasses
import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._native import as_float
from ..attack import PGD, attack
from ..attack._door import stages_of
from ..attack._method import Method
from ..core import Model, Status, row_keys
from ..threat import Threat
from ._batches import arrays_of
from ._net import Net
from ._recipe import Recipe
from ._rows import Rows
from ._worst_case import lower_margins, numbers_kept, tighter_margins

# Of float32 numbers that lines may keep at once in one value: a gigabyte in all, as measured.
_ELEMENTS = 1 << 26


@dataclasses.dataclass(frozen=True)
class Validation:
    """The rows, and the attack on them."""

    x: np.ndarray
    y: np.ndarray
    threat: Threat | None
    method: Method | None
    key: jax.Array
    noise: float | None = None
    bounds: str | None = None

    @property
    def identity(self) -> Any:
        """What a resumed run must find again."""
        sums = [zlib.crc32(a.tobytes()) for a in (self.x, self.y)]
        return [len(self.y), *sums, repr(self.threat), repr(self.method), self.noise, self.bounds]

    def __call__(self, net: Net) -> dict[str, float]:
        """Shares of rows: `validation_clean`; `validation_noisy` of a recipe with noise; `validation_robust` of one with a threat, where
        the attack takes it; `validation_certified` of one that trains on bounds, by intervals or by CROWN-IBP as the recipe says."""
        model = net.model()
        size = min(len(self.y), 512)  # one batch size, so that nothing is compiled again as rows fall

        keys = row_keys(self.key, jnp.arange(len(self.y))) if model.stochastic else np.zeros(len(self.y))  # the same draws in every epoch

        def accuracy(x: Any) -> float:
            parts = [_wrong(model, x[i : i + size], self.y[i : i + size], keys[i : i + size]) for i in range(0, len(self.y), size)]
            return float(1 - np.concatenate([np.asarray(part) for part in parts]).mean())

        found = {"validation_clean": accuracy(self.x)}
        if self.noise is not None:  # the same noise in every epoch
            found["validation_noisy"] = accuracy(self.x + np.float32(self.noise) * np.asarray(jax.random.normal(self.key, self.x.shape)))
        if self.bounds is not None and self.threat is not None:
            found["validation_certified"] = self._certified(net, self.threat, max(8, size))
        if self.threat is None or self.method is None:
            return found
        result = attack(
            model,
            self.x,
            self.y,
            threat=self.threat,
            method=self.method,
            key=self.key,
            max_rows=size,
            min_rows=size,
            checks=False,
            progress=False,
        )
        lost = np.asarray(result.success) | (np.asarray(result.status) == Status.NONFINITE)  # NaN is no answer
        return {**found, "validation_robust": float(1 - lost.mean())}

    def _certified(self, net: Net, threat: Threat, size: int) -> float:
        """By intervals, then by CROWN-IBP what these leave open, where the lines of 8 rows fit into memory."""
        proved = np.zeros(len(self.y), bool)
        self._prove(net, threat, proved, size, lines=False)
        if self.bounds == "crown-ibp" and not proved.all():
            fit = int(_ELEMENTS / float(numbers_kept(net, self.x[:1])))
            if fit >= 8:
                self._prove(net, threat, proved, min(size, fit, 64), lines=True)
        return float(proved.mean())

    def _prove(self, net: Net, threat: Threat, proved: np.ndarray, size: int, *, lines: bool) -> None:
        """Marks rows that are proved, of those which are not yet; in parts of one size, filled up, so that nothing is compiled again."""
        left = np.flatnonzero(~proved)
        for i in range(0, len(left), size):
            rows = left[np.arange(i, i + size) % len(left)]  # a batch of bounds has a few rows at least, see `graph_of`
            proved[rows] = _proved(net, threat, self.x[rows], self.y[rows], lines)


@jax.jit
def _wrong(model: Model, x: jax.Array, y: jax.Array, keys: jax.Array) -> jax.Array:
    z = model(x, keys) if model.stochastic else model(x)
    return (z.argmax(axis=1) != y) | ~jnp.all(jnp.isfinite(z), axis=1)


@functools.partial(jax.jit, static_argnames="lines")
def _proved(net: Net, threat: Threat, x: jax.Array, y: jax.Array, lines: bool) -> jax.Array:
    """[B] rows that keep their class over the whole set."""
    margins = tighter_margins(net, threat, x, y) if lines else lower_margins(net, threat, x, y)
    return jnp.all((margins > 0) | (jnp.arange(margins.shape[1])[None] == y[:, None]), axis=1)


def validation_of(
    rows: Any, recipe: Recipe, method: Method | None, key: jax.Array, allowed: Rows, shape: tuple[int, ...]
) -> Validation | None:
    """The validation of a run; None without rows.

    Raises: TypeError, ValueError: rows that are no (x, y) arrays of classes; an attack that does not take the threat.
    """
    if rows is None:
        return None
    x, y = arrays_of(rows)
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype == np.uint8:
        x = as_float(x)
    if x.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        x = x.astype(np.float32)
    if x.ndim < 2 or y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer) or not len(y):
        raise ValueError(f"validation has x of shape {x.shape} and y of shape {y.shape}, {y.dtype}; needed: x [N, ...] and classes y [N].")
    if x.shape[1:] != shape:
        raise ValueError(f"validation has rows of shape {x.shape[1:]}, and those to train on have {shape}; they must be alike.")
    allowed.check(x, y, "validation")
    threat = recipe.threats[0] if recipe.threats else None
    if method is None and (threat is None or threat.norm in PGD.norms):
        method = PGD(steps=10)
    if threat is not None and method is not None:
        stages_of(method, threat.norm, allowed.classes or 2, shape, False)
    noise = None if recipe.noise is None else float(np.asarray(recipe.noise))
    return Validation(x, y.astype(np.int32), threat, method, key, noise, recipe.bounds)
