"""With `sound=True` bounds contain a network's float32 values in whatever order its sums are taken; without, such values get out.

The networks add numbers a thousand times larger than their results, so that every order has a value of its own.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsec.bound import CROWN, CROWNIBP, IBP, ForwardLinear, bound

from . import oracle

METHODS = (IBP(), CROWNIBP(), ForwardLinear(), CROWN())
R = np.random.default_rng(0)
HIGHEST = lax.Precision.HIGHEST


def cancelling(*shape: int) -> np.ndarray:
    """Weights around +1000 and -1000 by turns along the first axis: what they multiply is near 1."""
    sign = np.where(np.arange(shape[0]) % 2 == 0, 1.0, -1.0).reshape(-1, *(1,) * (len(shape) - 1))
    return (sign * (1000 + R.normal(size=shape))).astype(np.float32)


W1, W2, B1, B2 = cancelling(64, 32), cancelling(32, 3), R.normal(size=32).astype(np.float32) + 30, np.float32(R.normal(size=3))
PICKED = np.eye(32, 3, dtype=np.float32)  # a head that adds next to nothing: the first layer's rounding is what counts
V = 1 + 1e-3 * R.normal(size=64).astype(np.float32)  # in front: one coefficient, in which all that is large has cancelled
KERNEL, HEAD = cancelling(18, 4), cancelling(4 * 16, 3)  # taps of a 3x3 convolution of two channels, by tap; then dense

Sum = Callable[[np.ndarray], np.ndarray]  # float32 [..., n, k] over the axis before the last


def in_order(of: Callable[[np.ndarray], np.ndarray]) -> Sum:
    """One addition after the other, in the order of `of(products)`, indices along the axis before the last."""

    def total(products: np.ndarray) -> np.ndarray:
        ordered = np.take_along_axis(products, of(products), -2)
        return np.cumsum(ordered, -2, dtype=np.float32)[..., -1, :]

    return total


def halves(products: np.ndarray) -> np.ndarray:
    """Pairwise."""
    n = products.shape[-2]
    if n == 1:
        return products[..., 0, :]
    return halves(products[..., : n // 2, :]) + halves(products[..., n // 2 :, :])


def orders() -> Iterator[Sum]:
    yield halves
    yield in_order(lambda p: np.broadcast_to(np.arange(p.shape[-2])[:, None], p.shape))
    yield in_order(lambda p: np.argsort(np.abs(p), -2))
    yield in_order(lambda p: np.argsort(-np.abs(p), -2))
    yield in_order(lambda p: np.argsort(p, -2))  # the negative ones first: the largest partial sums
    yield in_order(lambda p: np.argsort(-p, -2))
    for seed in range(40):
        r = np.random.default_rng(seed)
        yield in_order(lambda p, r=r: np.argsort(r.random(p.shape), -2))


def dense_in(x: np.ndarray, total: Sum, w2: np.ndarray = W2) -> np.ndarray:
    hidden = np.maximum(total(x[..., :, None] * W1) + B1, np.float32(0))
    return total(hidden[..., :, None] * w2) + B2


def conv_in(x: np.ndarray, total: Sum) -> np.ndarray:
    """x [..., 2, 6, 6]; the same taps as `conv`'s kernel."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (-2, -1))  # [..., 2, 4, 4, 3, 3]
    taps = np.moveaxis(windows, -5, -3).reshape(*x.shape[:-3], 4, 4, 18)
    hidden = np.maximum(total(taps[..., None] * KERNEL), np.float32(0))
    flat = np.moveaxis(hidden, -1, -3).reshape(*x.shape[:-3], -1)
    return total(flat[..., None] * HEAD)


def dense(x: jax.Array, w2: np.ndarray = W2) -> jax.Array:
    hidden = jax.nn.relu(jnp.matmul(x, jnp.asarray(W1, x.dtype), precision=HIGHEST) + jnp.asarray(B1, x.dtype))
    return jnp.matmul(hidden, jnp.asarray(w2, x.dtype), precision=HIGHEST) + jnp.asarray(B2, x.dtype)


def conv(x: jax.Array) -> jax.Array:
    kernel = jnp.asarray(KERNEL.T.reshape(4, 2, 3, 3), x.dtype)
    hidden = jax.nn.relu(lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", precision=HIGHEST))
    return jnp.matmul(hidden.reshape(-1), jnp.asarray(HEAD, x.dtype), precision=HIGHEST)


CASES = {
    "dense": (dense, dense_in, (64,)),
    "one input": (lambda x: dense(V * x, PICKED), lambda x, total: dense_in(V * x, total, PICKED), (1,)),
    "conv": (conv, conv_in, (2, 6, 6)),
}


@pytest.mark.parametrize("name", CASES)
def test_any_order_stays_within_sound_bounds(name: str) -> None:
    network, by_hand, shape = CASES[name]
    centre = (1 + 1e-3 * R.normal(size=shape)).astype(np.float32)
    run = jax.jit(
        lambda box: {(m.name, sound): bound(network, box, method=m, sound=sound) for m in METHODS for sound in (False, True)},
        compiler_options=oracle.QUICK,
    )
    out = {m.name: 0.0 for m in METHODS}  # how far values get beyond bounds that count no rounding
    for width in (0.0, 1e-3):
        box = (centre - np.float32(width), centre + np.float32(width))
        found = run(box)
        x = worst(network, box)
        ys = np.stack([by_hand(x, total) for total in orders()])  # [orders, points, K]
        assert np.ptp(ys, axis=0).max() > 0
        for m in METHODS:
            sound, plain = found[m.name, True], found[m.name, False]
            assert (ys >= np.asarray(sound.lo)).all() and (ys <= np.asarray(sound.hi)).all(), (name, m, width)
            beyond = max((np.asarray(plain.lo) - ys).max(), (ys - np.asarray(plain.hi)).max())
            out[m.name] = max(out[m.name], float(beyond))
    # the test can fail: were the charges not made, it would
    assert all(v > 0 for v in out.values()), out


def worst(network: oracle.Function, box: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """[n, *shape] float32 points of the box where some output is least or greatest, among samples and ends of ascents."""
    starts = oracle.points([box], 300, 0)
    xs = [np.concatenate([starts[0], *oracle.climbed(network, [box], starts, 0)])]
    _, ys = oracle.values(network, xs)
    picked = np.unique(np.concatenate([np.argmin(ys[0], 0), np.argmax(ys[0], 0)]))
    return np.clip(xs[0][picked].astype(np.float32), *box)
