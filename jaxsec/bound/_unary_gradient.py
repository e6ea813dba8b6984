"""Derivatives of functions that act element by element, taken forward and one argument at a time.

Reverse mode pushes the zero of an unselected branch through its infinite derivative and gets nan; the usual remedy, every `where` twice,
would double this room's code. Forward mode selects tangents as it selects values, so only a selected infinity is left to deal with.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

Arrays = tuple[jax.Array, ...]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def elementwise(function: Callable[..., Arrays], *xs: jax.Array) -> Arrays:
    """`function(*xs)` with finite derivatives: one that is infinite or undefined counts as 0.

    Args:
      function: acts element by element on arrays of one shape and returns a tuple of such arrays (static).
    Cost: under differentiation, one forward derivative per differentiated argument; the backward pass is one product per pair.
    """
    return function(*xs)


def _jvp(function: Callable[..., Arrays], primals: Arrays, tangents: tuple[Any, ...]) -> tuple[Arrays, Arrays]:
    out = elementwise(function, *primals)
    total = [jnp.zeros_like(v) for v in out]
    for i, tangent in enumerate(tangents):
        if isinstance(tangent, SymbolicZero):
            continue
        units = tuple(jnp.full_like(x, float(i == j)) for j, x in enumerate(primals))
        _, slopes = jax.jvp(function, primals, units)
        total = [t + jnp.where(jnp.isfinite(s), s, 0) * tangent for t, s in zip(total, slopes, strict=True)]
    return out, tuple(total)


elementwise.defjvp(_jvp, symbolic_zeros=True)
