"""The move of FAB as one native pass over the rows; `jaxsec.attack._hyperplane.boundary_move` is its twin and its specification."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ._load import status

_TARGET = "jaxsec_boundary_move"


class Move(NamedTuple):
    """x, x0, w: [B, D], x and x0 inside the box. value: [B]. lo, hi: [1 or B, 1 or D]. alpha_max, eta: scalars."""

    x: jax.Array
    x0: jax.Array
    w: jax.Array
    value: jax.Array
    lo: jax.Array
    hi: jax.Array
    alpha_max: jax.Array
    eta: jax.Array


def native_move(norm: str, m: Move) -> jax.Array:
    """`boundary_move` by compiled code, equal to float32 rounding; for programs on the CPU with native code `available()`.

    Args: norm: "linf" or "l2". m: float32.
    Cost: one read of the operands, one write; `vmap` over anything stays one call. Not differentiable.
    """
    status()  # registers the target: an executable from the persistent cache asks for it as well
    terms = jnp.stack([jnp.broadcast_to(v, m.value.shape).astype(jnp.float32) for v in (m.value, m.alpha_max, m.eta)], axis=-1)
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(m.x.shape, jnp.float32), vmap_method="broadcast_all")
    return call(m.x, m.x0, m.w, terms, m.lo, m.hi, l2=norm == "l2")
