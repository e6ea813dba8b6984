"""Splitting noise: every value becomes the middle of the cell that random thresholds put it in (L1)."""

import dataclasses
import math
from fractions import Fraction
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._native import as_float, philox4x32
from ..core._struct import static, struct
from ..threat import L1, Threat
from ._exhaustive import Enumeration, ExhaustiveSmoothing
from ._noise import copies
from ._radius import norm_of, probability_for, radius_of
from ._randomizer import Randomizer, Reach, check_dtype, eps_of

_MOST = 1 << 20  # variations: twice as many half steps are exact in float32


def middle(x: jax.Array, s: jax.Array, width: jax.Array, top: float) -> jax.Array:
    """Twice the middle of the part in [0, top] of the cell of x between the thresholds s + k width, k whole.

    Source: Levine and Feizi 2021, the definition of SSN.
    """
    cell = jnp.ceil((x - s) / width)
    return jnp.minimum(width * cell + s, top) + jnp.maximum(width * (cell - 1) + s, 0.0)


@dataclasses.dataclass(frozen=True)
class Splitting(Randomizer):
    """SSN: thresholds `s + 2 sigma k`, with s uniform in [0, 2 sigma] for each value and sample; x in [0, 1] shows as its cell's middle.

    Why: moving one value by t <= 2 sigma passes a threshold with a probability of t / (2 sigma), and only then changes what is shown; so no
      probability of a class changes by more than `||d||_1 / (2 sigma)`. A class above 1/2 stays there within `2 sigma (p - 1/2)`.
    Source: Levine and Feizi 2021, SSN.
    """

    smooth: ClassVar[bool] = False  # what is shown moves in steps

    @property
    def name(self) -> str:
        return "splitting"

    def draw(
        self, words: jax.Array, x: jax.Array, first: jax.Array, sigma: jax.Array, shared: tuple[Any, ...], *, n: int, dtype: Any
    ) -> jax.Array:
        noise = copies(words, jnp.zeros(x.shape, jnp.float32), sigma, first, n, dtype=jnp.float32, distribution="uniform")
        x = as_float(x)
        half = sigma.reshape(-1, *(1,) * x.ndim)
        s = noise.reshape(len(x), n, *x.shape[1:]) + half
        return (0.5 * middle(x[:, None], s, 2 * half, 1.0)).reshape(-1, *x.shape[1:]).astype(dtype)

    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        norm, d = norm_of(threat), math.prod(shape)
        if not isinstance(threat, L1):
            raise ValueError(f"splitting noise and the norm {norm}: no certificate is known here; it certifies L1.")

        def radius(p: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return radius_of(p, "uniform", norm, sigma[rows], d)  # of equal form

        return Reach(norm, radius, probability_for(eps_of(threat, len(sigma)), "uniform", norm, sigma, d))


@dataclasses.dataclass(frozen=True)
class GridSplitting(Enumeration):
    """DSSN: on the grid of k / q, thresholds half way between levels, `(b + v_j) mod n + 1/2` steps for value j, with one b for all values.

    Why: each of the n values of b gives value j another threshold modulo n steps. So moving value j by t steps passes a threshold for at
      most t of them, and moving an input by k steps in all changes at most k of the n variations, whatever v is.
    """

    smooth: ClassVar[bool] = False
    levels: int

    @property
    def name(self) -> str:
        return "splitting"

    def variations(self, sigma: float, shape: tuple[int, ...]) -> int:
        n = round(2 * sigma * self.levels)
        if n < 1 or n > _MOST or abs(2 * sigma * self.levels - n) > 1e-4:
            raise ValueError(
                f"sigma is {sigma}: 2 sigma {self.levels} = {2 * sigma * self.levels} thresholds; it must be a whole number from 1 to "
                f"{_MOST}, e.g. sigma = {min(max(n, 1), _MOST)} / {2 * self.levels}."
            )
        return n

    def held(self, x: np.ndarray) -> np.ndarray:
        check_dtype(x)
        values = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
        steps = np.rint(values.astype(np.float64) * self.levels)
        # written by x / levels or x * (1 / levels): within one unit in the last place of 1
        wrong = ~((np.abs(values - steps / self.levels) <= 2.0**-23) & (steps >= 0) & (steps <= self.levels))
        if wrong.any():
            raise ValueError(
                f"x has the value {x[wrong].flat[0]!r}; the variations can be counted on the grid of 0, 1 / {self.levels}, ..., 1 only: "
                "give uint8 images, or round x to the grid."
            )
        return x if x.dtype == np.uint8 and self.levels == 255 else values

    def draw(
        self, words: jax.Array, x: jax.Array, first: jax.Array, sigma: jax.Array, shared: tuple[Any, ...], *, n: int, dtype: Any
    ) -> jax.Array:
        d, levels = math.prod(x.shape[1:]), float(self.levels)
        steps = (x.astype(jnp.float32) if x.dtype == jnp.uint8 else jnp.round(x * levels)).reshape(len(x), 1, d)
        width = jnp.round(2 * levels * sigma).astype(jnp.uint32).reshape(-1, 1, 1)
        at, zero = jnp.arange(d, dtype=jnp.uint32), jnp.zeros(d, jnp.uint32)
        offsets = philox4x32((at, zero, zero, zero), (words[0, 0], words[0, 1]))[0].reshape(1, 1, d) % width
        placed = (first[:, :1] + jnp.arange(n, dtype=jnp.uint32)[None])[:, :, None] % width + offsets
        # whole and half numbers below 2^23, and quotients no nearer to a whole one than 1 / (2 width): exact in float32
        s = jnp.where(placed >= width, placed - width, placed).astype(jnp.float32) + 0.5
        shown = middle(steps, s, width.astype(jnp.float32), levels) / (2 * levels)
        return shown.reshape(-1, *x.shape[1:]).astype(dtype)

    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        if not isinstance(threat, L1):
            raise ValueError(f"the threat is {type(threat).__name__}; splitting noise certifies L1.")

        eps = eps_of(threat, len(sigma))
        needed = 2 * np.array([self.steps(e) for e in eps.tolist()], np.int64)

        def radius(lead: np.ndarray, rows: np.ndarray) -> np.ndarray:
            # a float above the exact quotient is no larger a ball: it holds the same points of the grid, and so does eps between two steps
            found = (lead // 2) / self.levels
            return np.where(lead >= needed[rows], np.maximum(found, eps[rows]), found)

        return Reach("l1", radius, needed)

    def steps(self, eps: float) -> int:
        """The most steps of the grid between images that `L1(eps).contains` one another, in whole numbers.

        It forgives 1e-6 of eps, which is rounded to float32; and float32 values are up to 2^-23 off the grid: two images k steps apart
        have a distance of at least `k / levels - 2 k 2^-23`.
        """
        if not math.isfinite(eps):
            return 0  # refused later, with the threat
        return math.floor(Fraction(eps) * (1 + Fraction(2, 10**6)) / (Fraction(1, self.levels) - Fraction(1, 1 << 22)))


@struct
class SplittingNoise(ExhaustiveSmoothing):
    """Deterministic smoothing against L1 (DSSN): all `n = 2 sigma levels` placements of dependent thresholds are counted.

    Guarantee: `confidence` 1. The smoothed classifier gives `predict` at every image *on the grid* of 0, 1 / levels, ..., 1 whose L1
      distance is at most `radius`: `floor(lead / 2)` steps of the grid, with the lead in votes over the runner-up (a tie goes to the lower
      class). That is the paper's `sigma (p_1 - p_2)` rounded down to the grid, or eps where no more steps than those fit into eps.
      Images between the levels are no inputs of this classifier.
    Args:
      sigma: lambda of the paper, half the distance of thresholds, in units of x; `2 sigma levels` whole. Above 1/2 some values are not
        split at all in some variations. levels: steps of the grid, q in the paper; 255 for 8-bit images (static).
      seed: 0 to 2^64 - 1, of the fixed offsets between the thresholds of different values. Any is sound; all rows share them.
      dtype: as in `Smoothing`. n0, n, alpha: filled in; leave them out.
    Raises: ValueError: x off the grid, another threat than `L1`, a key, a sigma that gives no whole number, or one per row.
    Cost: n forward passes a row: 255 for sigma = 1/2.
    Source: Levine and Feizi 2021, "Improved, deterministic smoothing for L1 certified robustness", DSSN.

    Example:
      >>> import jaxsec
      >>> model = jaxsec.bind(lambda p, x: x @ p, np.array([[1.0, -1.0], [1.0, -1.0]], np.float32))
      >>> x, threat = np.array([[128, 255]], np.uint8), jaxsec.L1(eps=0.25, lo=0.0, hi=1.0)
      >>> c = jaxsec.certify(model, x, np.array([0]), threat=threat, method=jaxsec.SplittingNoise(sigma=0.5))
      >>> c.confidence, int(c.samples[0]), bool(c.robust[0]), round(float(c.radius[0]), 3)
      (1.0, 255, True, 0.498)
    """

    name: ClassVar[str] = "splitting-noise"
    sigma: Any = None
    levels: int = static(default=255)
    seed: int = static(default=0)

    @property
    def randomizer(self) -> GridSplitting:
        return GridSplitting(self.levels)

    def check(self) -> None:
        ExhaustiveSmoothing.check(self)
        for name, low, high in (("levels", 1, 65535), ("seed", 0, 2**64 - 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; it must be an int from {low} to {high}.")
        if np.ndim(self.sigma):
            raise ValueError(f"sigma has shape {np.shape(self.sigma)}; it must be one number, which says how many variations are counted.")
