"""Structured ablation: all of an image is hidden but one band or block, wherever it lies (patches)."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._native import as_float
from ..core._struct import static, struct
from ..threat import Patch, Threat
from ..threat._windows import image_of
from ._exhaustive import Enumeration, ExhaustiveSmoothing
from ._randomizer import Reach

_KINDS = ("column", "row", "block")


@dataclasses.dataclass(frozen=True)
class Ablation(Enumeration):
    """Variation i shows a band of `size` columns from column i on, rows likewise, or a square block; all wrap around the border.

    Why: a patch of `h` by `w` pixels changes a variation only where it meets the band. Bands that meet columns a .. a + w - 1 begin at
      a - size + 1 .. a + w - 1: these are w + size - 1 places, or all of them if the image is narrower. So it is with rows and h; and a
      block meets the patch where both its rows and its columns do. That no patch wraps around is not used.
    """

    scaled: ClassVar[bool] = False
    kind: str
    size: int
    layout: str
    encoded: bool  # hidden pixels are zeros of [x, 1 - x]; else they have the value shared[0]
    voted: bool  # every class with a softmax above shared[1]; else the argmax
    values: tuple[float, float] = dataclasses.field(compare=False)  # read by `shared` only: others compile nothing anew

    @property
    def name(self) -> str:
        return f"{self.kind}-ablation"

    def variations(self, sigma: float, shape: tuple[int, ...]) -> int:
        height, width, _ = image_of((1, *shape), self.layout, "PatchAblation")
        over = {"column": (width,), "row": (height,), "block": (height, width)}[self.kind]
        if self.size > min(over):
            raise ValueError(f"size is {self.size}, larger than the images of {height} x {width} pixels (layout {self.layout}).")
        return int(np.prod(over))

    def shared(self, sigma: np.ndarray) -> tuple[Any, ...]:
        return tuple(np.float32(v) for v in self.values)

    def draw(
        self, words: jax.Array, x: jax.Array, first: jax.Array, sigma: jax.Array, shared: tuple[Any, ...], *, n: int, dtype: Any
    ) -> jax.Array:
        height, width, channel = image_of(x.shape, self.layout, "PatchAblation")
        x = as_float(x)[:, None]
        number = (first[:, :1] + jnp.arange(n, dtype=jnp.uint32)[None]).astype(jnp.int32)
        at_row, at_column = {
            "column": (None, number % width), "row": (number % height, None), "block": (number // width % height, number % width)
        }[self.kind]  # fmt: skip
        shows = self._band(at_row, height)[..., :, None] & self._band(at_column, width)[..., None, :]
        shows = jnp.expand_dims(shows, channel + 1)
        if self.encoded:
            x = jnp.where(shows, jnp.concatenate([x, 1 - x], axis=channel + 1), 0.0)
        else:
            x = jnp.where(shows, x, shared[0])
        return x.reshape(-1, *x.shape[2:]).astype(dtype)

    def _band(self, start: jax.Array | None, length: int) -> jax.Array:
        """[S, n, length] bool, or [1, 1, length] that hides nothing."""
        if start is None:
            return jnp.ones((1, 1, length), bool)
        return (jnp.arange(length)[None, None] - start[..., None]) % length < self.size

    def votes(self, logits: jax.Array, valid: jax.Array, shared: tuple[Any, ...]) -> jax.Array:
        if not self.voted:
            return Enumeration.votes(self, logits, valid, shared)
        logits = logits.reshape(len(valid), -1, logits.shape[-1]).astype(jnp.float32)
        counted = jnp.all(jnp.isfinite(logits), -1) & (jnp.arange(logits.shape[1])[None] < valid[:, None])
        return jnp.sum((jax.nn.softmax(logits) > shared[1]) & counted[..., None], 1, dtype=jnp.int32)

    def reach(self, threat: Threat, sigma: np.ndarray, shape: tuple[int, ...]) -> Reach:
        if not isinstance(threat, Patch):
            raise ValueError(f"the threat is {type(threat).__name__}; PatchAblation certifies Patch.")
        if threat.layout != self.layout:
            raise ValueError(f"the threat has layout={threat.layout!r} and the method {self.layout!r}; both describe x.")
        height, width, _ = image_of((1, *shape), self.layout, "PatchAblation")
        squares = 2 * np.array([self.changed((m, m), height, width) for m in range(1, min(height, width) + 1)])

        def radius(lead: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return np.searchsorted(squares, lead, side="right").astype(np.float64)

        return Reach("patch", radius, np.full(len(sigma), 2 * self.changed(threat.sides, height, width), np.int64))

    def changed(self, patch: tuple[int, int], height: int, width: int) -> int:
        """The most variations that a patch of that height and width changes."""
        rows, columns = min(height, patch[0] + self.size - 1), min(width, patch[1] + self.size - 1)
        return {"column": columns, "row": rows, "block": rows * columns}[self.kind]


@struct
class PatchAblation(ExhaustiveSmoothing):
    """Deterministic smoothing against patches: the model sees one band or block of the image at a time, and all their places are counted.

    Guarantee: `confidence` 1. The smoothed classifier gives `predict` at every image that differs from x inside one square of `radius`
      pixels, whatever the values there (they need not lie in the threat's box), because
      `n_1 >= max over others (n_2 + [2 wins ties]) + 2 changed`, with `changed` = m + size - 1 variations for columns and rows and its
      square for blocks, for an m x m patch, and never more than there are. `robust`: the same for the threat's own sides, square or not;
      `radius` is about squares, so it may be below the longer side of an oblong patch that is certified.
    Args:
      kind: "column", "row" or "block": what is shown of the image. size: its width in pixels, 1 to the image's (both static).
      layout: "chw" or "hwc", of x; the threat's must agree. It has no default: to guess it would certify other patches.
      fill: what hidden pixels are set to; None for the paper's encoding, in which the model gets [x, 1 - x], twice the channels, and
        hidden pixels are zeros of both, which no shown pixel is.
      theta: every class whose softmax is above it gets a vote, several or none; None: the argmax gets one. In (0, 1).
      dtype: as in `Smoothing`. n0, n, alpha: filled in; leave them out.
    Raises: ValueError: rows that are no images, another threat than `Patch`, a key.
    Cost: a forward pass for each column, row, or pixel (blocks).
    Source: Levine and Feizi 2020, "(De)randomized smoothing for certifiable defense against patch attacks"; the paper has square patches.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> model = jaxsec.bind(lambda p, x: x.mean((1, 2, 3))[:, None] * p, jnp.array([[1.0, -1.0]]))
      >>> threat = jaxsec.Patch(size=2, layout="hwc", lo=0.0, hi=1.0)
      >>> method = jaxsec.PatchAblation(kind="column", size=1, layout="hwc", fill=0.0)
      >>> c = jaxsec.certify(model, np.full((1, 8, 8, 1), 0.5, np.float32), np.array([0]), threat=threat, method=method)
      >>> c.counts.tolist(), bool(c.robust[0]), float(c.radius[0])
      ([[8, 0]], True, 4.0)
    """

    name: ClassVar[str] = "patch-ablation"
    sigma: ClassVar[None] = None
    kind: str = static(default="column")
    size: int = static()
    layout: str = static()
    fill: Any = static(default=None)
    theta: float | None = static(default=None)

    @property
    def randomizer(self) -> Ablation:
        values = (0.0 if self.fill is None else float(self.fill), 0.0 if self.theta is None else float(self.theta))
        return Ablation(self.kind, self.size, self.layout, self.fill is None, self.theta is not None, values)

    def check(self) -> None:
        ExhaustiveSmoothing.check(self)
        if self.kind not in _KINDS:
            raise ValueError(f"kind is {self.kind!r}; allowed are {', '.join(_KINDS)}.")
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size is {self.size!r}; it must be an int of at least 1, in pixels.")
        if self.fill is not None and not (np.ndim(self.fill) == 0 and np.isfinite(self.fill)):
            raise ValueError(f"fill is {self.fill!r}; it must be a finite number, or None for the encoding [x, 1 - x].")
        if self.theta is not None and not 0 < self.theta < 1:
            raise ValueError(f"theta is {self.theta!r}; it must be above 0 and below 1, or None: the argmax votes.")
