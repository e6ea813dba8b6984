"""Square's proposals as masks of fixed shape: a window's place and size are traced, nothing is sliced.

Images are [B, C, H, W] in the L2 and L1 parts; the Linf part works in the caller's layout.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..threat import Threat


def _corner(u: jax.Array, free: jax.Array, reference: bool) -> jax.Array:
    """[B] int32 in [0, free] ([0, free) in reference mode) from uniform numbers `u` [B]."""
    count = jnp.maximum(free if reference else free + 1, 1)
    return jnp.minimum(jnp.floor(u * count), count - 1).astype(jnp.int32)


def linf_window(u: jax.Array, side: jax.Array, height: int, width: int, reference: bool) -> jax.Array:
    """[B, 4] int32 (top, bottom, left, right; the ends excluded) from uniform numbers u [B, 2 or more]."""
    top, left = (_corner(u[:, k], n - side, reference) for k, n in enumerate((height, width)))
    return jnp.stack([top, top + side, left, left + side], axis=1)


def linf_proposal(
    x: jax.Array, corners: tuple[jax.Array, jax.Array], u: jax.Array, window: jax.Array, axes: tuple[int, int, int | None]
) -> jax.Array:
    """`x` with +-2 eps (one sign per channel) added in one window per row, projected.

    As `x` is within eps, that is the set's upper or lower corner, whatever `x` was there. u: [B, C] uniform numbers in [0, 1).
    Source: Andriushchenko et al. 2020, algorithm 2.
    """
    h, w, c = axes
    row = x.shape[1:]

    def place(axis: int, begin: jax.Array, end: jax.Array) -> jax.Array:
        position = jnp.arange(row[axis]).reshape([-1 if a == axis else 1 for a in range(len(row))])[None]
        begin, end = (v.reshape(-1, *[1] * len(row)) for v in (begin, end))
        return (position >= begin) & (position < end)

    channels = 1 if c is None else row[c]
    inside = place(h, window[:, 0], window[:, 1]) & place(w, window[:, 2], window[:, 3])
    down = (u < 0.5).reshape(-1, *([1] * len(row) if c is None else [channels if a == c else 1 for a in range(len(row))]))
    return jnp.where(inside, jnp.where(down, *corners), x)


def _pyramid(rows: jax.Array, columns: jax.Array, tall: jax.Array, wide: jax.Array, power: int, largest: int) -> jax.Array:
    """Concentric rectangles with weights 1/(k+1)^power in a `tall` x `wide` window; 0 outside. Unnormalised.

    The k-th rectangle reaches k beyond the centre, so a pixel at Chebyshev distance m is covered by k = m, m + 1, ...:
    its height is a difference of two prefix sums, read from a table.
    """
    table = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, 2 * largest + 3) ** power)]).astype(np.float32)
    cr, cc = tall // 2, wide // 2
    count = jnp.maximum(cr, cc) + 1
    m = jnp.maximum(jnp.abs(rows - cr), jnp.abs(columns - cc))
    height = jnp.asarray(table)[count] - jnp.asarray(table)[jnp.minimum(m, count)]
    inside = (rows >= 0) & (rows < tall) & (columns >= 0) & (columns < wide)
    return jnp.where(inside, height, 0.0)


def eta(rows: jax.Array, columns: jax.Array, side: jax.Array, power: int, largest: int) -> jax.Array:
    """A positive and a negative pyramid that share a `side` x `side` window; each has unit L2 norm, then both together.

    Source: Andriushchenko et al. 2020, eq. 2 and figure 4.
    """
    half = side // 2
    upper = _pyramid(rows, columns, half, side, power, largest)
    lower = _pyramid(rows - half, columns, side - half, side, power, largest)

    def unit(v: jax.Array) -> jax.Array:
        return v / (jnp.sqrt(jnp.sum(v * v, axis=(-2, -1), keepdims=True)) + 1e-12)

    return unit(unit(upper) - unit(lower))


def _norm(v: jax.Array, power: int) -> jax.Array:
    axes = tuple(range(1, v.ndim))
    return (jnp.sum(jnp.abs(v), axes) if power == 1 else jnp.sqrt(jnp.sum(v * v, axes))).reshape(-1, *[1] * (v.ndim - 1))


def _channel_norm(v: jax.Array, power: int) -> jax.Array:
    """[B, C, 1, 1]."""
    return jnp.sum(jnp.abs(v), (2, 3), keepdims=True) if power == 1 else jnp.sqrt(jnp.sum(v * v, (2, 3), keepdims=True))


def _to_sphere(threat: Threat, x0: jax.Array, delta: jax.Array) -> jax.Array:
    power = 1 if threat.norm == "l1" else 2
    eps = threat.radius(x0).reshape(-1, 1, 1, 1)
    if power == 1:  # exact projection, a hair inside so that rounding cannot leave the ball
        return threat.scaled(1 - 1e-6).project(x0, (x0 + delta).astype(x0.dtype))
    return threat.project(x0, (x0 + delta / (_norm(delta, 2) + 1e-12) * eps).astype(x0.dtype))


def first_tiles(threat: Threat, x0: jax.Array, keys: jax.Array, images: Threat) -> jax.Array:
    """Start: a 5 x 5 tiling of `eta` windows with a random sign each, scaled to the sphere."""
    b, c, height, width = x0.shape
    power = 1 if threat.norm == "l1" else 2
    side = max(min(height, width) // 5, 1)
    n = min(5, height // side, width // side)
    top, left = (height - n * side) // 2, (width - n * side) // 2
    r, q = np.arange(height)[:, None] - top, np.arange(width)[None, :] - left
    tile = np.where((r >= 0) & (q >= 0) & (r < n * side) & (q < n * side), (r // side) * n + q // side, -1)
    local = eta(jnp.arange(side)[:, None], jnp.arange(side)[None, :], jnp.int32(side), 2 * (3 - power), side)
    pattern = jnp.where(jnp.asarray(tile) >= 0, local[np.clip(r, 0, None) % side, np.clip(q, 0, None) % side], 0.0)
    sign = jax.vmap(lambda k: jax.random.rademacher(k, (c, n * n), jnp.float32))(keys)
    sign = jnp.take(sign, jnp.asarray(np.maximum(tile, 0)).reshape(-1), axis=2).reshape(b, c, height, width)
    delta = pattern[None, None] * sign
    eps = images.radius(x0).reshape(-1, 1, 1, 1)
    if power == 1:
        delta = delta / (_norm(delta, 1) + 1e-12) * eps
    return _to_sphere(images, x0, delta)


def moved_mass(threat: Threat, x0: jax.Array, x: jax.Array, u: jax.Array, side: jax.Array, largest: int, reference: bool) -> jax.Array:
    """L2 / L1 proposal: the mass of one window and the unused budget are moved into a second window, shaped by `eta`.

    u: [B, 5 + C] uniform numbers in [0, 1): four corners, a sign per channel, a flip.

    Source: Andriushchenko et al. 2020, algorithm 3.
    """
    _, c, height, width = x0.shape
    power = 1 if threat.norm == "l1" else 2
    top, left, top2, left2 = (_corner(u[:, j], n - side, reference)[:, None, None] for j, n in enumerate((height, width, height, width)))
    r, q = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    inside = (r >= top) & (r < top + side) & (q >= left) & (q < left + side)
    inside2 = (r >= top2) & (r < top2 + side) & (q >= left2) & (q < left2 + side)
    signs = jnp.where(u[:, 4:] < 0.5, 1.0, -1.0)
    flip = (signs[:, c] > 0).reshape(-1, 1, 1)
    rows, columns = jnp.where(flip, q - left, r - top), jnp.where(flip, r - top, q - left)
    window, window2 = inside[:, None], inside2[:, None]
    delta = (x - x0).astype(jnp.float32)
    first = delta * window
    shape = jnp.where(window, eta(rows, columns, side, power=2 * (3 - power), largest=largest)[:, None], 0.0)
    fresh = shape * signs[:, :c].reshape(-1, c, 1, 1) + first / (_channel_norm(first, power) + 1e-12)
    eps, used = threat.radius(x0).reshape(-1, 1, 1, 1), _norm(delta, power)
    # each channel keeps the mass of its own two windows; the published code gives every channel that of all of them
    both = (_norm if reference else _channel_norm)(delta * (window | window2), power)
    if power == 2:
        per_channel = jnp.sqrt(jnp.sum(fresh * fresh, axis=(2, 3), keepdims=True))
        budget = jnp.sqrt(jnp.maximum(eps**2 - used**2, 0.0) / c + both**2)
    else:
        per_channel = jnp.sum(jnp.abs(fresh), axis=(2, 3), keepdims=True)
        budget = jnp.maximum(eps - used, 0.0) / c + both
    fresh = fresh / (per_channel + 1e-12) * budget
    delta = jnp.where(window, fresh, jnp.where(window2, 0.0, delta))
    return _to_sphere(threat, x0, delta)
