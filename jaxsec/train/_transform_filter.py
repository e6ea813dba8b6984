"""Transformations that smooth images: median, Gaussian blur, bilateral filter, total-variation minimisation."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ..core._manual import marked_like
from ._transform import Transform, check_count, check_number, needed, planes


def shifted(v: jax.Array, before: int, after: int) -> jax.Array:
    """[n * n, B, C, H, W]: each pixel's window, from `before` pixels above and left of it to `after` below and right; edges mirrored."""
    height, width = v.shape[2:]
    # mirrored with the edge pixel repeated, as scipy.ndimage and the feature squeezing code do
    v = jnp.pad(v, ((0, 0), (0, 0), (before, after), (before, after)), mode="symmetric")
    n = before + after + 1
    return jnp.stack([v[:, :, i : i + height, j : j + width] for i in range(n) for j in range(n)])


@struct
class MedianFilter(Transform):
    """Each pixel becomes the median of a `window` x `window` neighbourhood, channel by channel.

    Args: window: side in pixels; of an even one the neighbourhood reaches further up and left, and of its two middle values the larger is
      taken (static). layout: as everywhere (static).
    Cost: a sort of window ** 2 values a pixel; memory of as many images.
    Edge cases: edges are mirrored. The derivative reaches one pixel of a window, the surrogate's (the window's mean) all of them.
    Source: Xu et al. 2018 (Feature Squeezing), section III-B: windows of 2 and 3.
    """

    name: ClassVar[str] = "median"
    source: ClassVar[str] = "Xu et al. 2018, arXiv:1704.01155"

    window: int = static(default=3)
    layout: str = static(default="auto")

    def check(self) -> None:
        check_count(self.name, "window", self.window, 1)

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        return back(jnp.sort(self._windows(v), axis=0)[self.window**2 // 2])

    def surrogate(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        return back(jnp.mean(self._windows(v), axis=0))

    def _windows(self, v: jax.Array) -> jax.Array:
        return shifted(v, self.window // 2, self.window - 1 - self.window // 2)


@struct
class GaussianBlur(Transform):
    """Convolution with a Gaussian of `sigma` pixels, cut off at `radius` pixels and normalised; edges mirrored.

    Args: sigma: above 0. radius: at least 3 sigma, or the tails are missing (static). layout: as everywhere (static).
    Edge cases: linear, so that its own derivative is what the adversary wants.
    Source: the low-pass filter of the baselines in Guo et al. 2018 and Dziugaite et al. 2016; no security is claimed for it.
    """

    name: ClassVar[str] = "gaussian-blur"
    source: ClassVar[str] = "-"

    sigma: Any = 1.0
    radius: int = static(default=3)
    layout: str = static(default="auto")

    def check(self) -> None:
        check_count(self.name, "radius", self.radius, 1)
        check_number(self.name, "sigma", self.sigma, lambda v: v > 0, "above 0")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        weights = _gaussian(jnp.arange(-self.radius, self.radius + 1, dtype=v.dtype) ** 2, self.sigma)
        weights = weights / jnp.sum(weights)
        for axis in (2, 3):
            size = v.shape[axis]
            v = jnp.pad(v, [(self.radius, self.radius) if a == axis else (0, 0) for a in range(4)], mode="symmetric")
            v = sum((weights[i] * jax.lax.slice_in_dim(v, i, i + size, axis=axis) for i in range(len(weights))), jnp.zeros(()))
        return back(v)

    def surrogate(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self.apply(x)


def _gaussian(square: jax.Array, sigma: Any) -> jax.Array:
    return jnp.exp(-square / (2 * sigma**2))


@struct
class Bilateral(Transform):
    """Each pixel becomes a mean of its neighbourhood, weighted by nearness in place and in colour: smooth areas, kept edges.

    Args: radius: of the square neighbourhood, in pixels (static). sigma_space: in pixels. sigma_range: of the colour's Euclidean distance,
      in units of x. layout: as everywhere (static).
    Cost: (2 radius + 1) ** 2 images of memory.
    Edge cases: edges are mirrored. The surrogate holds the weights fixed, a linear filter: derivatives of the weights mask gradients.
    Source: Tomasi and Manduchi 1998, eq. 5, with Gaussian closeness and similarity (section 2.1).
    """

    name: ClassVar[str] = "bilateral"
    source: ClassVar[str] = "Tomasi and Manduchi 1998, ICCV"

    radius: int = static(default=2)
    sigma_space: Any = 2.0
    sigma_range: Any = 0.1
    layout: str = static(default="auto")

    def check(self) -> None:
        check_count(self.name, "radius", self.radius, 1)
        check_number(self.name, "sigma_space", self.sigma_space, lambda v: v > 0, "above 0")
        check_number(self.name, "sigma_range", self.sigma_range, lambda v: v > 0, "above 0")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self._filtered(x, x)

    def surrogate(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self._filtered(x, jax.lax.stop_gradient(x))

    def _filtered(self, x: jax.Array, guide: jax.Array) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        windows, colours = shifted(v, self.radius, self.radius), shifted(planes(guide, self.layout, self.name)[0], self.radius, self.radius)
        centre = colours[(2 * self.radius + 1) ** 2 // 2]
        place = jnp.arange(-self.radius, self.radius + 1, dtype=v.dtype) ** 2
        near = _gaussian((place[:, None] + place[None, :]).reshape(-1, 1, 1, 1, 1), self.sigma_space)
        alike = _gaussian(jnp.sum((colours - centre[None]) ** 2, axis=2, keepdims=True), self.sigma_range)
        weights = near * alike
        return back(jnp.sum(weights * windows, axis=0) / jnp.sum(weights, axis=0))


@struct
class TotalVariation(Transform):
    """The image z that minimises `weight * TV(z) + 1/2 sum_kept (z - x)^2`: flat areas, with few and sharp edges.

    TV is isotropic: the sum over pixels of the length of the forward difference's vector, channel by channel.
    Guarantee: `iterations` steps of the primal-dual algorithm, whatever x: no stopping rule hides a gradient. They start from z = x, of
      elements that are not kept from the mean of those around them that are: their own values do not reach the output.
    Args:
      weight: lambda, in units of x. iterations: steps (static). 50 come within a percent of the least objective for weights up to 0.2,
        with half of the elements kept from 0.02 to 0.2 (64 x 64 pixels with values in [0, 1]). Above, objectives fall more slowly: by 3 and
        14 % too large at the weights 0.5 and 1, 10 and 29 % with half kept; so they do below with elements to fill in: 6 % at 0.003.
      keep: None, or the probability in (0, 1] with which each element is held to x; others are filled in by the regulariser alone. A row
        draws its own elements, and the transformation is then stochastic. layout: as everywhere (static).
    Cost: `iterations` sweeps over the image, forwards; the deployed gradient runs back through all of them and keeps as many images.
    Edge cases: weight 0 gives x back, where it is kept. The surrogate passes straight through.
    Source: the defence: Guo et al. 2018, section 3.2; the algorithm: Chambolle and Pock 2011, algorithm 1 (theta = 1), section 6.2.1 (ROF).
      We differ from Guo in the data term (squared, as in ROF, so that weight is comparable between images) and in the norm: theirs takes
      whole rows of differences together, ours the gradient at each pixel, as the algorithm's literature does.
    """

    name: ClassVar[str] = "total-variation"
    source: ClassVar[str] = "Guo et al. 2018, arXiv:1711.00117"

    weight: Any = 0.05
    iterations: int = static(default=50)
    keep: Any = None
    layout: str = static(default="auto")

    @property
    def stochastic(self) -> bool:
        return self.keep is not None

    def check(self) -> None:
        check_count(self.name, "iterations", self.iterations, 1)
        check_number(self.name, "weight", self.weight, lambda v: v >= 0, "at least 0")
        if self.keep is not None:
            check_number(self.name, "keep", self.keep, lambda v: (v > 0) & (v <= 1), "above 0 and at most 1")

    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        v, back = planes(x, self.layout, self.name)
        mask, start = jnp.ones((), v.dtype), v
        if self.keep is not None:
            keys = needed(keys, self.name)
            kept = jax.vmap(lambda key: jax.random.bernoulli(key, self.keep, v.shape[1:]))(keys)
            mask = kept.astype(v.dtype)
            # what was dropped starts from the mean of what was kept around it: its own values must not reach the output
            near, count = jnp.sum(shifted(mask * v, 1, 1), axis=0), jnp.sum(shifted(mask, 1, 1), axis=0)
            mean = jnp.sum(mask * v, axis=(2, 3), keepdims=True) / jnp.maximum(jnp.sum(mask, axis=(2, 3), keepdims=True), 1)
            start = jnp.where(kept, v, jnp.where(count > 0, near / jnp.maximum(count, 1), mean))
        # tau * sigma * 8 <= 1, 8 bounding the squared norm of the difference operator
        tau, sigma = 0.25, 0.5

        def step(_: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
            z, ahead, down, right = carry
            dy, dx = differences(ahead)
            down, right = down + sigma * dy, right + sigma * dx
            # onto discs of radius `weight`, written without a root of zero, whose derivative is infinite
            shrink = jax.lax.rsqrt(jnp.maximum(1.0, (down**2 + right**2) / jnp.maximum(self.weight**2, 1e-20)))
            down, right = down * shrink, right * shrink
            new = z + tau * divergence(down, right)
            new = (new + tau * mask * v) / (1 + tau * mask)
            return new, 2 * new - z, down, right

        nothing = marked_like(jnp.zeros_like(v), v)
        z, *_ = jax.lax.fori_loop(0, self.iterations, step, (start, start, nothing, nothing))
        return back(z)


def differences(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(down, right) [B, C, H, W] forward differences, 0 at the last row and column."""
    down = jnp.pad(z[:, :, 1:] - z[:, :, :-1], ((0, 0), (0, 0), (0, 1), (0, 0)))
    return down, jnp.pad(z[:, :, :, 1:] - z[:, :, :, :-1], ((0, 0), (0, 0), (0, 0), (0, 1)))


def divergence(down: jax.Array, right: jax.Array) -> jax.Array:
    """The negative adjoint of `differences`."""
    y, x = down[:, :, :-1], right[:, :, :, :-1]
    y = jnp.pad(y, ((0, 0), (0, 0), (0, 1), (0, 0))) - jnp.pad(y, ((0, 0), (0, 0), (1, 0), (0, 0)))
    return y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1))) - jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0)))
