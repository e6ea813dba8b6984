"""Pooling as elementwise operations on shifted slices: XLA:CPU scatters in the gradient of `reduce_window`, ten times slower."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

Window = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]


def _pieces(x: jax.Array, window: Window, fill: float) -> list[jax.Array]:
    """The value at each offset of the window, one array per offset, in the window's row-major order."""
    sizes, strides, pads = window
    if any(p != (0, 0) for p in pads):
        x = jnp.pad(x, pads, constant_values=fill)
    counts = [(d - k) // s + 1 for d, k, s in zip(x.shape, sizes, strides, strict=True)]
    offsets = [()]
    for k in sizes:
        offsets = [(*o, i) for o in offsets for i in range(k)]
    return [lax.slice(x, o, [i + (n - 1) * s + 1 for i, n, s in zip(o, counts, strides, strict=True)], strides) for o in offsets]


def _tiled(x: jax.Array, window: Window) -> bool:
    sizes, strides, pads = window
    return sizes == strides and all(p == (0, 0) for p in pads) and all(d % k == 0 for d, k in zip(x.shape, sizes, strict=True))


def _blocks(x: jax.Array, window: Window) -> tuple[jax.Array, tuple[int, ...]]:
    shape, inner = [], []
    for d, k in zip(x.shape, window[0], strict=True):
        if k > 1:
            shape += [d // k, k]
            inner.append(len(shape) - 1)
        else:
            shape.append(d)
    return x.reshape(shape), tuple(inner)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, window: Window) -> jax.Array:
    """Maximum over windows. window: (sizes, strides, pads) per axis. The gradient goes to the first winner of each window."""
    return _max(x, window)


def _max(x: jax.Array, window: Window) -> jax.Array:
    if _tiled(x, window):
        blocks, inner = _blocks(x, window)
        return jnp.max(blocks, axis=inner)
    return functools.reduce(jnp.maximum, _pieces(x, window, -jnp.inf))


def _max_forward(x: jax.Array, window: Window) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _max(x, window)
    return y, (x, y)


def _max_backward(window: Window, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    x, y = saved
    pieces = _pieces(x, window, -jnp.inf)
    taken = jnp.zeros(y.shape, bool)
    shares = []
    for piece in pieces:
        wins = (piece == y) & ~taken
        taken = taken | wins
        shares.append(jnp.where(wins, g, 0))
    if _tiled(x, window):  # windows do not overlap: the shares are the gradient, only in another order
        sizes = [k for k in window[0] if k > 1]
        stacked = jnp.stack(shares).reshape(*sizes, *y.shape)
        order, outer = [], len(sizes)
        for axis, k in enumerate(window[0]):
            order.append(outer + axis)
            if k > 1:
                order.append(sum(1 for q in window[0][:axis] if q > 1))
        return (stacked.transpose(order).reshape(x.shape),)
    return (jax.linear_transpose(lambda v: _pieces(v, window, 0.0), jax.ShapeDtypeStruct(x.shape, x.dtype))(shares)[0],)


max_pool.defvjp(_max_forward, _max_backward)


def sum_pool(x: jax.Array, window: Window) -> jax.Array:
    """Sum over windows; its gradient is slices again."""
    if _tiled(x, window):
        blocks, inner = _blocks(x, window)
        return jnp.sum(blocks, axis=inner)
    return functools.reduce(jnp.add, _pieces(x, window, 0.0))
