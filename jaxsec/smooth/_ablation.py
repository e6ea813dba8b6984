"""Randomized ablation: every sample keeps a few positions of the input and hides the others; certifies changes of few positions."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._native import as_float
from ..threat import L0, Threat
from ..threat._l0 import counted
from ..threat._positions import channel_axis, count_of, over_elements
from ._choice import bias, chosen
from ._randomizer import Randomizer, Reach, eps_of

_ENCODINGS = ("fill", "complement")


@dataclasses.dataclass(frozen=True)
class Ablation(Randomizer):
    """Each sample keeps `keep` positions of the row, chosen uniformly without replacement, and hides the others.

    Guarantee: where p is what the class's probability is at least, and p - Delta(r) > 1/2, no change of r positions alters the smoothed
      class, whatever the model does: Delta(r) = 1 - C(d - r, keep) / C(d, keep) is the probability that a sample sees one of them. Delta
      is exact integer arithmetic, rounded against the certificate; the bias of the choice (`_choice.bias`) is taken off p as well.
    Args:
      keep: positions kept, at least 1; few certify far, many see well. 45 of MNIST's 784 pixels; of a text a tenth to a half.
      fill: what hidden positions get: a number, or for token ids the int that is the id of [MASK].
      encoding: "fill", or "complement": channels [x, 1 - x] where kept and zeros where hidden, so that hidden is not black; twice the
        channels, for values in [0, 1].
      positions: "flat": every element or token is a position. "chw", "hwc": a pixel with all its channels, in rows of three axes. The
        threat, `L0`, must count the same.
    Raises: ValueError: a threat other than `L0` with the same positions, a keep beyond the row's positions, an unknown encoding; values
      outside [0, 1] for "complement". TypeError: rows that are neither floating, uint8 nor token ids; a fill that is no int for these.
    Cost: min(keep, d - keep) short steps a sample. 784 positions, 45 kept: 2 us on two CPU cores, where Gaussian noise takes 1.
    Edge cases: a radius is a whole number. Of [B, T] tokens all T positions count, padding too, and an adversary may change each, but
      insert and delete none. keep = d shows everything and certifies nothing beyond 0.
    Source: Levine and Feizi 2020, theorem 1 and the corollary for probabilities above 1/2. Their form with the runner-up's probability is
      not used: n0 samples choose the class, and of the others only this class is counted, so alpha is spent on one bound. For tokens it is
      the certificate of Zeng et al. 2021 (RanMASK) with beta = 1: a smaller beta, the probability of the class given that a changed word
      is seen, is an estimate there, without a bound that holds at confidence 1 - alpha.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> def spam(weights, tokens):  # votes of the words that are seen
      ...     return weights[tokens].sum(1)
      >>> model = jaxsec.bind(spam, jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
      >>> tokens, mask = jnp.array([[1] * 12]), 0
      >>> method = jaxsec.Smoothing(distribution=Ablation(keep=2, fill=mask), n=2_000)
      >>> c = jaxsec.certify(model, tokens, jnp.array([0]), threat=jaxsec.L0(eps=3), method=method, key=jax.random.key(0))
      >>> bool(c.robust[0]), float(c.radius[0])
      (True, 3.0)
    """

    keep: int
    fill: float = 0.0
    encoding: str = "fill"
    positions: str = "flat"

    scaled: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "ablation"

    def _check(self, shape: tuple[int, ...]) -> None:
        """ValueError for settings that make no sense, or do not go with rows of this shape."""
        if self.encoding not in _ENCODINGS:
            raise ValueError(f"encoding is {self.encoding!r}; allowed are {', '.join(_ENCODINGS)}.")
        if self.encoding == "complement" and self.positions == "flat":
            raise ValueError("encoding='complement' doubles the channels, and positions='flat' names none; use 'chw' or 'hwc'.")
        if isinstance(self.fill, bool) or not isinstance(self.fill, int | float) or not math.isfinite(self.fill):
            raise ValueError(f"fill is {self.fill!r}; it must be a finite number, or an int for token ids.")
        d = count_of(self.positions, shape)
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or not 1 <= self.keep <= d:
            raise ValueError(f"keep is {self.keep!r}; it must be an int from 1 to {d}, the positions of a row.")

    def held(self, x: np.ndarray) -> np.ndarray:
        self._check(x.shape[1:])
        if np.issubdtype(x.dtype, np.integer) and x.dtype != np.uint8:
            return self._ids(x)
        if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"x has dtype {x.dtype}; ablation takes floating rows, uint8 images, and int32 token ids.")
        if self.encoding == "complement" and x.dtype != np.uint8 and x.size and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(f"x spans [{x.min()}, {x.max()}]; encoding='complement' needs values in [0, 1]: scale them, or use 'fill'.")
        return x if x.dtype == np.uint8 else x.astype(np.float32)

    def draw(
        self, words: jax.Array, x: jax.Array, first: jax.Array, sigma: jax.Array, shared: tuple[Any, ...], *, n: int, dtype: Any
    ) -> jax.Array:
        row = x.shape[1:]
        kept = chosen(words, first, n, count_of(self.positions, row), self.keep)
        kept = over_elements(kept.reshape(len(x) * n, -1), self.positions, row)
        tokens = jnp.issubdtype(x.dtype, jnp.signedinteger)
        value = x if tokens else as_float(x).astype(dtype)
        value = jnp.broadcast_to(value[:, None], (len(x), n, *row)).reshape(len(x) * n, *row)
        if self.encoding == "fill":
            return jnp.where(kept, value, jnp.asarray(self.fill, value.dtype))
        both = jnp.concatenate([value, 1 - value], axis=channel_axis(self.positions, row))
        return jnp.where(kept, both, jnp.zeros((), both.dtype))

    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        if not isinstance(threat, L0):
            raise ValueError(f"the threat is {type(threat).__name__}; ablation certifies changes of few positions: L0(eps=...).")
        if threat.positions != self.positions:
            raise ValueError(f"the threat counts positions as {threat.positions!r}, ablation as {self.positions!r}; give both the same.")
        d = count_of(self.positions, shape)
        counted(eps := eps_of(threat, len(sigma)))
        least = needed(d, self.keep)
        # beyond the table, 2: more than any probability
        p0 = np.append(least, 2.0)[np.minimum(eps, len(least)).astype(np.int64)]

        def radius(p: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return np.maximum(np.searchsorted(least, p, side="right") - 1.0, 0.0)

        return Reach("l0", radius, p0)

    def _ids(self, x: np.ndarray) -> np.ndarray:
        if self.positions != "flat" or self.encoding != "fill":
            raise ValueError("x has token ids; ablation takes them with positions='flat' and encoding='fill'.")
        if not isinstance(self.fill, int):
            raise TypeError(f"fill is {self.fill!r} and x has token ids; give the id of the mask token, an int.")
        limits = np.iinfo(np.int32)
        if not limits.min <= self.fill <= limits.max or (x.size and not (x.min() >= limits.min and x.max() <= limits.max)):
            raise ValueError(f"x has ids from {x.min()} to {x.max()} and fill is {self.fill}; they must fit into int32.")
        return x.astype(np.int32)


@functools.lru_cache(maxsize=64)
def needed(d: int, keep: int) -> np.ndarray:
    """[R] float64, rising: entry r is a probability that certifies changes of r positions; of more than R - 1 none does.

    Guarantee: strictly above 1/2 + Delta(r) + bias in real numbers, by at most two units in the last place.

    Example:
      >>> needed(784, 45)[[0, 8]].round(4).tolist()
      [0.5, 0.8782]
    """
    everything = unseen = math.comb(d, keep)  # unseen: C(d - r, keep)
    a, b = bias(d, keep)
    found = []
    for r in range(d + 1):
        above = 2 * b * (everything - unseen) + b * everything + 2 * a * everything
        # a quotient of integers is rounded to nearest, so that the next number is above it
        if (p := math.nextafter(above / (2 * b * everything), math.inf)) > 1:
            break
        found.append(p)
        unseen = unseen * (d - r - keep) // (d - r) if r < d else 0
    table = np.array(found)
    table.flags.writeable = False
    return table
