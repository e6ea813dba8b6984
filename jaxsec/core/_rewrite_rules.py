"""Rules of `tuned`, one per primitive: each gives the value in a convenient axis order, or None to leave the equation alone."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core as jex

from .._native import dense
from ._layout import Flat, Laid, Pending, identity
from ._pool import max_pool, sum_pool

Rule = Callable[[Any, list[Any]], Any]

# Entries of a weight matrix up to which a dense layer is native: beyond, XLA's blocking for the caches wins.
_DENSE_LIMIT = 1 << 20

# Elementwise: any axis order will do, as long as all operands share it.
UNARY_SAFE = frozenset(
    "add sub mul div max min neg abs sign exp exp2 log log1p expm1 tanh logistic sqrt rsqrt cbrt square pow integer_pow erf erfc erf_inv "
    "sin cos floor ceil round select_n clamp convert_element_type eq ne lt le gt ge and or not xor is_finite stop_gradient copy "
    "add_any nextafter rem atan2".split()
)


def _laid(v: Any) -> Any:
    return v.run() if isinstance(v, Pending) else v


def _as_laid(v: Any, shape: tuple[int, ...]) -> Laid:
    """Any value as `Laid`; scalars spread over `shape`."""
    if isinstance(v, Laid):
        return v
    v = v.plain() if isinstance(v, Flat) else v
    if jnp.ndim(v) == 0 and shape:
        v = jnp.reshape(v, (1,) * len(shape))
    return Laid(v, identity(len(shape)), shape)


def elementwise(eqn: Any, values: list[Any]) -> Any:
    """All operands in the order of the first one that has moved; None where none has."""
    values = [_laid(v) for v in values]
    values = [v.array.reshape(()) if isinstance(v, Laid) and v.shape == () else v for v in values]  # a scalar has no order
    moved = [v for v in values if isinstance(v, Laid)]
    if not moved:
        return None
    shape = eqn.outvars[0].aval.shape
    order = next((v.perm for v in moved if v.perm != identity(len(shape)) and np.prod(v.array.shape) == np.prod(shape)), moved[0].perm)
    arrays = [
        v
        if not isinstance(v, Laid) and jnp.ndim(v) == 0 and eqn.primitive.name in ("clamp", "select_n")
        else _as_laid(v, shape).in_order(order)
        for v in values
    ]
    params = dict(eqn.params)
    if params.get("sharding") is not None:
        return None
    return Laid(eqn.primitive.bind(*arrays, **params), order, shape)


class ConvParts(NamedTuple):
    """A convolution but for its input, which is wanted in the axis order `order`; `perm` and `shape` are its output's."""

    w: jax.Array
    bias: jax.Array
    stride: int
    pads: Any
    perm: tuple[int, ...]
    shape: tuple[int, ...]
    order: tuple[int, ...]


def conv_parts(eqn: Any, w: Any) -> ConvParts | None:
    """One or two spatial axes, one stride, no groups, no dilation; float32."""
    p = eqn.params
    numbers = p["dimension_numbers"]
    shape, out = eqn.invars[0].aval, eqn.outvars[0].aval
    fits = (
        len(shape.shape) in (3, 4)
        and p["feature_group_count"] == p["batch_group_count"] == 1
        and set(p["lhs_dilation"]) == set(p["rhs_dilation"]) == {1}
        and len(set(p["window_strides"])) == 1
        and all(q >= 0 for pair in p["padding"] for q in pair)
        and {eqn.invars[0].aval.dtype, eqn.invars[1].aval.dtype, out.dtype} == {np.dtype("float32")}
        and 0 not in out.shape
    )
    if not fits:
        return None
    (n, c, *space), (o, i, *taps), (on, oc, *out_space) = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    w = _as_laid(w, eqn.invars[1].aval.shape).in_order((*taps, i, o))
    pads = tuple((int(a), int(b)) for a, b in p["padding"])
    if len(space) == 1:  # a picture of height 1
        w, pads = w[None], ((0, 0), *pads)
    zero, stride = jnp.zeros(w.shape[-1], w.dtype), int(p["window_strides"][0])
    return ConvParts(w, zero, stride, pads, (on, *out_space, oc), out.shape, (n, *space, c))


def _conv(eqn: Any, values: list[Any], native: bool) -> Any:
    x, w = (_laid(v) for v in values)
    parts = conv_parts(eqn, w)
    if parts is None:
        return None
    return Pending(_as_laid(x, eqn.invars[0].aval.shape).in_order(parts.order), *parts[:-1], native)


def _scalar_zero(atom: Any, value: Any) -> bool:
    if isinstance(atom, jex.Literal):
        # under an outer trace a literal's number may be a tracer
        return jnp.ndim(atom.val) == 0 and not isinstance(atom.val, Tracer) and float(atom.val) == 0
    value = value.array if isinstance(value, Laid) else value
    if isinstance(value, Pending | Flat | Tracer) or value.size != 1:
        return False
    return float(np.asarray(value).reshape(-1)[0]) == 0  # numpy: under an outer trace JAX's own operations would give a tracer


def _max(eqn: Any, values: list[Any]) -> Any:
    """`max(x, 0)` is ReLU."""
    for k in (0, 1):
        v = values[1 - k]
        if isinstance(v, Pending | Laid) and _scalar_zero(eqn.invars[k], values[k]):
            return v.run(relu=True) if isinstance(v, Pending) else v.mapped(jax.nn.relu)
    return None


def _affine(eqn: Any, values: list[Any]) -> Any:
    """A per-channel add, sub, mul or div right after a convolution goes into its weights (bias, folded BatchNorm)."""
    name = eqn.primitive.name
    a, b = values
    if isinstance(b, Pending) and not isinstance(a, Pending) and name in ("add", "mul"):
        a, b = b, a
    if not isinstance(a, Pending) or isinstance(b, Pending | Flat):
        return None
    other = a.channels(_as_laid(b, a.shape))
    if other is None:
        return None
    if name in ("add", "sub"):
        return a.scaled(None, other if name == "add" else -other)
    return a.scaled(other if name == "mul" else 1.0 / other, None)


def _broadcast(eqn: Any, values: list[Any]) -> Any:
    """Kept small: axes that are only repeated stay 1."""
    v = values[0]
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    if isinstance(v, Pending | Flat) or eqn.params.get("sharding") is not None or len(shape) < 2:
        return None
    v = v.in_order(identity(len(v.shape)), full=False) if isinstance(v, Laid) else jnp.asarray(v)
    small = [1] * len(shape)
    for axis, d in enumerate(dims):
        small[d] = v.shape[axis]
    return Laid(v.reshape(small), identity(len(shape)), tuple(shape))


def _transpose(eqn: Any, values: list[Any]) -> Any:
    v = _laid(values[0])
    if isinstance(v, jax.Array) and v.ndim == 2:  # a matrix of weights, whose gradient is best made as it lies in memory
        v = Laid(v, identity(2), v.shape)
    if not isinstance(v, Laid):
        return None
    order = eqn.params["permutation"]
    return Laid(v.array, tuple(order.index(a) for a in v.perm), tuple(v.shape[a] for a in order))


def _reshape(eqn: Any, values: list[Any]) -> Any:
    v = _laid(values[0])
    new = tuple(eqn.params["new_sizes"])
    if isinstance(v, Laid) and eqn.params.get("dimensions") is None:
        full = np.prod(v.extent) == np.prod(v.shape)
        if full and v.perm[0] == 0 and len(v.shape) > 2 and new == (v.shape[0], int(np.prod(v.shape[1:]))):
            return Flat(v)
    return None


def _plain_dense(eqn: Any) -> bool:
    """x [N, K] times a weight array."""
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    return not (lb or rb or lc != (1,) or len(rc) != 1 or len(eqn.invars[0].aval.shape) != 2)


def _native_dense(eqn: Any) -> bool:
    """The weight array is a matrix that the kernel takes."""
    a, b = eqn.invars[0].aval, eqn.invars[1].aval
    float32 = {a.dtype, b.dtype, eqn.outvars[0].aval.dtype} == {np.dtype("float32")}
    return len(b.shape) == 2 and float32 and 0 not in a.shape and math.prod(b.shape) <= _DENSE_LIMIT


def _permuted(source: Laid, w: jax.Array, axis: int) -> jax.Array:
    """The weights, whose `axis` meets the flattened `source`, for the order in which that lies in memory."""
    rest = source.shape[1:]
    w = w.reshape(*w.shape[:axis], *rest, *w.shape[axis + 1 :])
    order = [*range(axis), *(axis + a - 1 for a in source.perm[1:]), *range(axis + len(rest), w.ndim)]
    w = w.transpose(order)
    return w.reshape(*w.shape[:axis], -1, *w.shape[axis + len(rest) :])


def _matrix(eqn: Any, w: Any, as_it_lies: bool) -> tuple[jax.Array, int]:
    """The weights and the axis of theirs that is summed over; in the order of the memory or of the traced program."""
    axis = eqn.params["dimension_numbers"][0][1][0]
    if not isinstance(w, Laid):
        return w, axis
    order = w.perm if as_it_lies else identity(len(w.shape))
    return w.in_order(order), order.index(axis)


def dense_weights(eqn: Any, x: Any, w: Any) -> jax.Array | None:
    """[D, O] of a native dense layer after a flatten, D in the order of the memory; None for anything else."""
    if isinstance(w, Flat) or not isinstance(x, Flat) or not _plain_dense(eqn) or not _native_dense(eqn):
        return None
    w, axis = _matrix(eqn, w, True)
    w = _permuted(x.source, w, axis)
    return w.T if axis else w


def _dot(eqn: Any, values: list[Any], native: bool) -> Any:
    """A dense layer. After a flatten its weight matrix is permuted instead of the activations."""
    x, w = (_laid(v) for v in values)
    ours = native and _native_dense(eqn)
    if isinstance(w, Flat) or not _plain_dense(eqn) or not (isinstance(x, Flat) or ours):
        return None
    w, axis = _matrix(eqn, w, ours)
    if isinstance(x, Flat):
        w, x = _permuted(x.source, w, axis), x.source.array.reshape(x.source.shape[0], -1)
    x = x.in_order(identity(2)) if isinstance(x, Laid) else x
    if ours:
        return dense(x, w, True, axis)
    return eqn.primitive.bind(x, w, **eqn.params)


def _pool(eqn: Any, values: list[Any], pool: Callable[..., Any]) -> Any:
    p = eqn.params
    v = _as_laid(_laid(values[0]), eqn.invars[0].aval.shape)
    dilated = set(p.get("base_dilation") or ()) | set(p.get("window_dilation") or ())
    if any(q < 0 for pair in p["padding"] for q in pair):
        return None
    if dilated - {1} or not jnp.issubdtype(v.array.dtype, jnp.floating) or np.prod(p["window_dimensions"]) > 64:
        return None  # a large window (global pooling) is better as XLA does it
    array = v.in_order(v.perm)
    sizes, strides, pads = (
        [tuple(q) if isinstance(q, tuple | list) else q for q in p[k]] for k in ("window_dimensions", "window_strides", "padding")
    )
    window = tuple(tuple(q[a] for a in v.perm) for q in (sizes, strides, pads))
    return Laid(pool(array, window), v.perm, eqn.outvars[0].aval.shape)


def _reduce(eqn: Any, values: list[Any]) -> Any:
    v = _laid(values[0])
    axes = eqn.params["axes"]
    if not isinstance(v, Laid) or eqn.params.get("out_sharding") is not None:
        return None
    array = v.in_order(v.perm)
    params = {**eqn.params, "axes": tuple(sorted(v.perm.index(a) for a in axes))}
    left = [a for a in range(len(v.shape)) if a not in axes]
    out = eqn.primitive.bind(array, **params)
    return Laid(out, tuple(left.index(a) for a in v.perm if a not in axes), tuple(v.shape[a] for a in left))


def _concatenate(eqn: Any, values: list[Any]) -> Any:
    values = [_laid(v) for v in values]
    moved = [v for v in values if isinstance(v, Laid)]
    if not moved:
        return None
    order = moved[0].perm
    arrays = [_as_laid(v, a.aval.shape).in_order(order) for v, a in zip(values, eqn.invars, strict=True)]
    return Laid(lax.concatenate(arrays, order.index(eqn.params["dimension"])), order, eqn.outvars[0].aval.shape)


def _pad(eqn: Any, values: list[Any]) -> Any:
    v = _laid(values[0])
    if not isinstance(v, Laid) or isinstance(values[1], Laid | Flat | Pending):
        return None
    config = tuple(eqn.params["padding_config"][a] for a in v.perm)
    return Laid(lax.pad(v.in_order(v.perm), values[1], config), v.perm, eqn.outvars[0].aval.shape)


_RULES: dict[str, Rule] = {
    "max": _max,
    "add": _affine,
    "sub": _affine,
    "mul": _affine,
    "div": _affine,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "reduce_window_max": lambda eqn, values: _pool(eqn, values, max_pool),
    "reduce_window_sum": lambda eqn, values: _pool(eqn, values, sum_pool),
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "concatenate": _concatenate,
    "pad": _pad,
}


def rules(native: bool) -> dict[str, Rule]:
    """The table, with convolutions and dense layers by native code or by XLA."""
    return {
        **_RULES,
        "conv_general_dilated": lambda eqn, values: _conv(eqn, values, native),
        "dot_general": lambda eqn, values: _dot(eqn, values, native),
    }
