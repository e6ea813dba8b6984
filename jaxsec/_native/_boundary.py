"""The move of FAB as one native pass over the rows; `jaxsec.attack._hyperplane.boundary_move` is its twin and its specification."""

import jax
import jax.numpy as jnp

from ._load import status

_TARGET = "jaxsec_boundary_move"


def native_move(
    norm: str,
    x: jax.Array,
    x0: jax.Array,
    w: jax.Array,
    value: jax.Array,
    lo: jax.Array,
    hi: jax.Array,
    alpha_max: jax.Array,
    eta: jax.Array,
) -> jax.Array:
    """`boundary_move` by compiled code, equal to float32 rounding; for programs on the CPU with native code `available()`.

    Args: norm: "linf" or "l2". x, x0, w: [B, D] float32. value: [B]. lo, hi: [1 or B, 1 or D]. alpha_max, eta: scalars.
    Cost: one read of the operands, one write; `vmap` over anything stays one call. Not differentiable.
    """
    status()  # registers the target: an executable from the persistent cache asks for it as well
    terms = jnp.stack([jnp.broadcast_to(v, value.shape).astype(jnp.float32) for v in (value, alpha_max, eta)], axis=-1)
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(x.shape, jnp.float32), vmap_method="broadcast_all")
    return call(x, x0, w, terms, lo, hi, l2=norm == "l2")
