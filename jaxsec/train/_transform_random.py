"""Transformations that draw: random resizing and padding, random crops, randomised ablation."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ..smooth._choice import chosen
from ._transform import Transform, check_count, check_number, needed, planes


class _Random(Transform):
    """What draws from the row's key alone, and is differentiable in the row as it is."""

    @property
    def stochastic(self) -> bool:
        return True

    def surrogate(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self.apply(x, keys)


def _below(u: jax.Array, count: jax.Array | int) -> jax.Array:
    """int32 in [0, count), uniform as u is in [0, 1): one draw for all numbers of a row, as every draw is a large program to compile."""
    return jnp.minimum(jnp.floor(u * count).astype(jnp.int32), count - 1)


@struct
class RandomResizePad(_Random):
    """Each row is resized to a random size, then placed at random in an image of a fixed size.

    The height is uniform on `smallest` .. `size`, the width in proportion; so is the place in what is left.
    Args:
      size: height of what the model is shown, its width in proportion to the row's; at least `smallest`. It may be the row's own height,
        with rows shrunk, for a net of one input size (static). smallest: the least height (static).
      fill: value around the image. layout: as everywhere (static).
    Cost: two small products of matrices per row and channel.
    Edge cases: bilinear without antialiasing. The derivative is exact; what the adversary needs is the mean over draws.
    Source: Xie et al. 2018, section 3: 299 into 331; theirs picks the nearest pixel, which shows less of the row.
    """

    name: ClassVar[str] = "resize-pad"
    source: ClassVar[str] = "Xie et al. 2018, arXiv:1711.01991"

    size: int = static()
    smallest: int = static()
    fill: Any = 0.0
    layout: str = static(default="auto")

    def check(self) -> None:
        check_count(self.name, "smallest", self.smallest, 1)
        if not isinstance(self.size, int) or self.size < self.smallest:
            raise ValueError(f"{self.name} got size={self.size!r}, smallest={self.smallest}; size must be an int of at least smallest.")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        channels, height, width = v.shape[1:]
        ratio = width / height
        shape = (channels, self.size, max(1, round(self.size * ratio)))

        def one(row: jax.Array, key: jax.Array) -> jax.Array:
            u = jax.random.uniform(key, (3,))
            tall = self.smallest + _below(u[0], self.size + 1 - self.smallest)
            wide = jnp.clip(jnp.round(tall * ratio), 1, shape[2]).astype(jnp.int32)
            resized = jnp.stack([tall, wide])
            place = jnp.stack([_below(u[a], shape[a] - resized[a - 1] + 1) for a in (1, 2)])
            scale = resized.astype(v.dtype) / jnp.asarray((height, width), v.dtype)
            # what lies outside of the row is 0 here
            inside = jax.image.scale_and_translate(
                row - self.fill, shape, (1, 2), scale, place.astype(v.dtype), method="linear", antialias=False
            )
            return inside + self.fill

        return back(jax.vmap(one)(v, needed(keys, self.name)))


@struct
class RandomCrop(_Random):
    """A random square of each row, resized to the row's own size; `defended(model, RandomCrop(...), draws=30)` is the crop ensemble.

    Args: side: of the square, in pixels, at most the image's smaller side (static). layout: as everywhere (static).
    Edge cases: side equal to height and width gives the row back.
    Source: Guo et al. 2018, section 3.3: 30 crops of 90 pixels from images of 224, rescaled, probabilities averaged.
    """

    name: ClassVar[str] = "random-crop"
    source: ClassVar[str] = "Guo et al. 2018, arXiv:1711.00117"

    side: int = static()
    layout: str = static(default="auto")

    def check(self) -> None:
        check_count(self.name, "side", self.side, 1)

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        channels, height, width = v.shape[1:]
        if self.side > min(height, width):
            raise ValueError(
                f"{self.name} got side={self.side} and images of {height} x {width}; side may be {min(height, width)} at most."
            )

        def one(row: jax.Array, key: jax.Array) -> jax.Array:
            u = jax.random.uniform(key, (2,))
            top, left = _below(u[0], height - self.side + 1), _below(u[1], width - self.side + 1)
            crop = jax.lax.dynamic_slice(row, (0, top, left), (channels, self.side, self.side))
            return jax.image.resize(crop, row.shape, "linear", antialias=False)

        return back(jax.vmap(one)(v, needed(keys, self.name)))


@struct
class RandomAblation(_Random):
    """Each row keeps `keep` random pixels and hides the others: randomised ablation as a plain defence, without its certificate.

    Args:
      keep: pixels kept, all channels of each (static). fill: value of the others.
      complement: channels [x, 1 - x] where kept and zeros where hidden, so that hidden is no colour; the net must be trained on twice the
        channels ("hw" rows then need layout "chw" or "hwc") (static). layout: as everywhere (static).
    Cost: min(keep, pixels - keep) short steps.
    Edge cases: keep equal to the pixels hides nothing.
    Source: Levine and Feizi 2020, section 3; `jaxsec.certify` with `smooth.Ablation` has the certificate.
    """

    name: ClassVar[str] = "ablation"
    source: ClassVar[str] = "Levine and Feizi 2020, arXiv:1911.09272"

    keep: int = static()
    fill: Any = 0.0
    complement: bool = static(default=False)
    layout: str = static(default="auto")

    def check(self) -> None:
        check_count(self.name, "keep", self.keep, 1)
        check_number(self.name, "fill", self.fill, lambda v: v == v, "a number")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        pixels = v.shape[2] * v.shape[3]
        if self.keep > pixels:
            raise ValueError(f"{self.name} got keep={self.keep} and images of {pixels} pixels; keep may be {pixels} at most.")
        if self.complement and x.ndim == 3:
            raise ValueError(
                f"{self.name} got complement=True and rows of shape {x.shape[1:]}, which have no channels to double; add an axis."
            )
        words = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(needed(keys, self.name))
        kept = chosen(words, jnp.zeros_like(words), 1, pixels, self.keep).reshape(v.shape[0], 1, *v.shape[2:])
        if self.complement:
            return back(jnp.where(kept, jnp.concatenate([v, 1 - v], axis=1), jnp.zeros((), v.dtype)))
        return back(jnp.where(kept, v, jnp.asarray(self.fill, v.dtype)))
