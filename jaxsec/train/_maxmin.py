"""The sort of channels in pairs, and how its program is told from others."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex


@jax.jit
def maxmin(x: jax.Array) -> jax.Array:
    """The larger and the smaller of every two channels: of the last axis, its first half paired with its second. Moves apart no two points.

    Source: Anil et al. 2019 (GroupSort with groups of 2); of an odd number of channels the last one is passed on.
    """
    n = x.shape[-1] // 2
    a, b = x[..., :n], x[..., n : 2 * n]
    rest = [x[..., 2 * n :]] if x.shape[-1] % 2 else []
    return jnp.concatenate([jnp.maximum(a, b), jnp.minimum(a, b), *rest], axis=-1)


def is_maxmin(eqn: Any, inner: Any) -> bool:
    """The very program of `maxmin`: a call's name alone proves nothing."""
    if eqn.params.get("name") != "maxmin" or len(eqn.invars) != 1 or not isinstance(inner, jex.ClosedJaxpr):
        return False
    aval: Any = eqn.invars[0].aval
    reference = jax.make_jaxpr(maxmin)(jax.ShapeDtypeStruct(aval.shape, aval.dtype)).jaxpr.eqns[0].params["jaxpr"]
    return str(inner) == str(reference)
