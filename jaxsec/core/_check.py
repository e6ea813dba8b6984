"""What a front door demands of its inputs; every message shows the value, what is allowed and the remedy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from ._walk import equations, inner_programs


@jax.jit
def _program(model: Any, x: jax.Array, keys: jax.Array) -> jax.Array:
    # a jitted function of the module: JAX keeps its trace, so asking again runs none of the user's Python
    return model(x, keys if model.stochastic else None)


def _rows_like(x: Any) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    return jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype), jax.eval_shape(_two_keys)


def _two_keys() -> jax.Array:
    return jax.random.split(jax.random.key(0), 2)


def program_of(model: Any, x: Any) -> Any:
    """The model's closed jaxpr on two rows of x's shape."""
    return _program.trace(model, *_rows_like(x)).jaxpr


def constants_of(closed: Any) -> list[np.ndarray]:
    """Every array that a closed jaxpr holds besides its arguments, inner programs included: printing shows only their shapes."""
    found = list(closed.consts)
    for eqn in equations(closed.jaxpr):
        found += [a.val for a in eqn.invars if isinstance(a, jex.Literal) and np.ndim(a.val)]
        found += [c for inner in inner_programs(eqn) if isinstance(inner, jex.ClosedJaxpr) for c in inner.consts]
    return [np.asarray(c) for c in found]


def n_classes_of(model: Any, x: Any) -> int:
    """K; raises as `logits_of`."""
    return int(logits_of(model, x).shape[1])


def logits_of(model: Any, x: Any) -> jax.ShapeDtypeStruct:
    """[2, K], found by tracing the model on two rows of x's shape; raises `ValueError` where it gives no logits."""
    out = output_of(model, x)
    if out.ndim != 2 or out.shape[0] != 2 or out.shape[1] < 2:
        raise ValueError(f"the model turns {(2, *x.shape[1:])} into {out.shape}; logits of shape [B, K] with K >= 2 are needed.")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"the model gives values of dtype {out.dtype}; logits are floating: return scores, not the class.")
    return out


def output_of(model: Any, x: Any) -> Any:
    """What the model makes of two rows of x's shape; `ValueError` where it does not take them."""
    rows, keys = _rows_like(x)
    try:
        return jax.eval_shape(_program, model, rows, keys)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the model does not take rows of shape {tuple(x.shape[1:])} and dtype {x.dtype}: {str(error).splitlines()[0].rstrip('.')}. "
            "Check the layout (NCHW or NHWC), whether images must be flattened, and the dtype that the model takes."
        ) from error


def check_finite(x: np.ndarray) -> None:
    """ValueError where values are NaN or infinite."""
    finite = np.isfinite(x.astype(np.float32))
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise ValueError(f"x has {int((~finite).sum())} NaN or infinite values, the first in row {row}; remove or impute these rows.")


def check_batch(model: Any, x: Any, y: Any, threat: Any, max_rows: int, shown: Any = None) -> tuple[Any, Any, int]:
    """Validates a batch on the host and gives (x floating, y int32, K).

    Args: shown: [1, ...] what the model is shown of a row, where that is not the row itself, which may then be of integers.
    Raises: ValueError or TypeError on wrong dtypes, shapes, NaN, labels out of range, rows outside the threat's box, negative
    or non-finite eps.
    """
    if max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}; it must be at least 1.")
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if x.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        x = np.asarray(x, np.float32)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or (shown is not None and jnp.issubdtype(x.dtype, jnp.integer))):
        raise TypeError(f"x has dtype {x.dtype}; floating values are needed, e.g. images.astype('float32') / 255.")
    y = np.asarray(y)
    if x.ndim < 2 or y.shape != x.shape[:1]:
        raise ValueError(f"x has shape {x.shape}, y has {y.shape}; needed: x [B, ...] with at least two axes and y [B].")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"y has dtype {y.dtype}; integer class labels are needed.")
    host = np.asarray(x)
    check_finite(host)
    k = n_classes_of(model, x if shown is None else shown)
    if y.size and (y.min() < 0 or y.max() >= k):
        hint = " Labels that start at 1 must be shifted." if y.min() == 1 and y.max() == k else ""
        raise ValueError(f"y has labels from {y.min()} to {y.max()}; the model has {k} classes, so 0 to {k - 1} are allowed.{hint}")
    threat.check(host)
    return x, y.astype(np.int32), k
