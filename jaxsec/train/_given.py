"""What `fit` is given: checked, and brought into one form."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..threat import Threat
from ._batches import arrays_of, on_host, taken
from ._net import Net
from ._recipe import Recipe


def check_recipe(recipe: Any) -> None:
    """TypeError where it is none."""
    if not isinstance(recipe, Recipe):
        shown = f"the class {recipe.__name__}; write {recipe.__name__}()" if isinstance(recipe, type) else type(recipe).__name__
        raise TypeError(f"recipe is {shown}; a recipe such as jaxsec.train.PGDAT(threat=...) is needed.")
    for threat in recipe.threats:
        if not isinstance(threat, Threat):
            raise TypeError(f"{recipe.name} got threat={threat!r}; a threat such as jaxsec.LInf(eps=8/255, lo=0.0, hi=1.0) is needed.")


def check_counts(counts: Mapping[str, Any], least: int = 1) -> None:
    """Whole numbers of at least `least`; None is left out."""
    for name, value in counts.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} is {value!r}; a whole number of at least {least} is needed.")
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}.")


def strong(v: Any) -> jax.Array:
    """One dtype, so that 0.1, np.float32(0.1) and jnp.asarray(0.1) share a program; whole numbers and keys stay what they are."""
    v = jnp.asarray(v)
    return v.astype(jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) and v.dtype != jnp.float64 else v


def floating(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    if x.dtype == jnp.uint8:
        return x.astype(jnp.float32) / 255
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"data has x of dtype {x.dtype}; floating values are needed, or uint8, which counts in 1/255.")
    return x


def held_out(data: Any, validation: Any, key: jax.Array) -> tuple[Any, Any]:
    """(the data to train on, the rows to validate on or None)."""
    if validation is None:
        return data, None
    if isinstance(rows := arrays_of(validation), tuple | list):
        if len(rows) != 2:
            raise ValueError(f"validation has {len(rows)} parts; two are needed, (x, y).")
        return data, validation
    if isinstance(validation, bool) or not isinstance(validation, int | float | np.number):
        raise TypeError(f"validation is {type(validation).__name__}; a share of the rows such as 0.1 is needed, or rows (x, y).")
    data = arrays_of(data)
    if not (isinstance(data, tuple) and len(data) == 2 and all(hasattr(a, "shape") for a in data)):
        raise ValueError(f"validation is {validation}, a share, which only arrays in memory can be split by; pass (x, y) rows.")
    n = len(data[0])
    count = round(n * validation)
    if not 0 < validation < 1 or not 1 <= count < n:
        raise ValueError(f"validation is {validation} of {n} rows; a share in (0, 1) that leaves rows on both sides is needed.")
    # rows that stay on their mesh must fill it
    devices = max(len(a.sharding.device_set) if isinstance(a, jax.Array) else 1 for a in data)
    count += (n - count) % devices
    if count >= n:
        raise ValueError(
            f"validation is {validation} of {n} rows on {devices} devices, and of what is left no {devices} remain; give more rows."
        )
    order = np.asarray(jax.random.permutation(key, n))
    return tuple(taken(a, order[count:]) for a in data), tuple(on_host(a, order[:count]) for a in data)


def classes_of(net: Any, x: jax.Array) -> int | None:
    """How many the net tells apart; ValueError where its answer is no [B, K]."""
    logits = jax.eval_shape(Net.evaluated, net, x, jax.random.split(jax.random.key(0), len(x)))
    if logits.ndim != 2 or logits.shape[0] != len(x) or logits.shape[1] < 2:
        raise ValueError(f"the net turns {x.shape} into {logits.shape}; logits of shape [B, K] with K >= 2 are needed.")
    return logits.shape[1]
