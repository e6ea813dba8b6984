"""ONNX ops that look along axes: reductions, softmax, arg-max, cumulative sums, attention."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ._onnx_ops_linear import matmul
from ._onnx_ops_shape import to_shape
from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, elementwise, host, integers, over_axes, tensor

_REDUCE = {
    "ReduceSum": jnp.sum,
    "ReduceMean": jnp.mean,
    "ReduceMax": jnp.max,
    "ReduceMin": jnp.min,
    "ReduceProd": jnp.prod,
    "ReduceL1": lambda a, axis, keepdims: jnp.sum(jnp.abs(a), axis, keepdims=keepdims),
    "ReduceL2": lambda a, axis, keepdims: jnp.sqrt(jnp.sum(jnp.square(a), axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda a, axis, keepdims: jnp.sum(jnp.square(a), axis, keepdims=keepdims),
    "ReduceLogSum": lambda a, axis, keepdims: jnp.log(jnp.sum(a, axis, keepdims=keepdims)),
    "ReduceLogSumExp": lambda a, axis, keepdims: jax.nn.logsumexp(a, axis, keepdims=keepdims),
}


@op(*_REDUCE, static=(1,))
def _reduce(step: Step, x: Value, axes: Value = None) -> Tensor:
    x = tensor(x)
    named = step.attr("axes") if axes is None else integers(axes, "axes")
    if not named:
        if step.attr("noop_with_empty_axes", 0):
            return x
        named = range(x.ndim)
    named = sorted(int(a) % x.ndim for a in named)
    keep = bool(step.attr("keepdims", 1))
    out = over_axes(lambda a, where: _REDUCE[step.op](a, axis=where, keepdims=True), x, named)
    return out if keep else to_shape(out, tuple(n for i, n in enumerate(out.shape) if i not in named))


@op("ArgMax", "ArgMin")
def _arg(step: Step, x: Value) -> Tensor:
    x, axis = tensor(x), int(step.attr("axis", 0))
    pick = jnp.argmax if step.op == "ArgMax" else jnp.argmin
    if step.attr("select_last_index", 0):
        raise ValueError("select_last_index=1 is not supported.")
    out = over_axes(lambda a, where: pick(a, axis=where[0], keepdims=True).astype(jnp.int32), x, (axis,))
    return out if step.attr("keepdims", 1) else to_shape(out, tuple(n for i, n in enumerate(out.shape) if i != axis % x.ndim))


@op("Softmax", "LogSoftmax")
def _softmax(step: Step, x: Value) -> Tensor:
    """Along one axis; before opset 13 along all axes from `axis` on, taken together."""
    x, fn = tensor(x), jax.nn.softmax if step.op == "Softmax" else jax.nn.log_softmax
    if step.opset >= 13:
        return over_axes(lambda a, where: fn(a, axis=where[0]), x, (int(step.attr("axis", -1)),))
    axis = int(step.attr("axis", 1)) % x.ndim
    return over_axes(lambda a, where: fn(a, axis=where), x, range(axis, x.ndim))


@op("Hardmax")
def _hardmax(step: Step, x: Value) -> Tensor:
    x, axis = tensor(x), int(step.attr("axis", -1 if step.opset >= 13 else 1))
    size = x.shape[axis]
    return over_axes(lambda a, where: jax.nn.one_hot(jnp.argmax(a, where[0]), size, axis=where[0], dtype=a.dtype), x, (axis,))


@op("CumSum", static=(1,))
def _cumsum(step: Step, x: Value, axis: Value) -> Tensor:
    def run(a: jax.Array, where: tuple[int, ...]) -> jax.Array:
        a = jnp.flip(a, where) if step.attr("reverse", 0) else a
        out = jnp.cumsum(a, where[0])
        out = out - a if step.attr("exclusive", 0) else out
        return jnp.flip(out, where) if step.attr("reverse", 0) else out

    return over_axes(run, tensor(x), (int(host(axis, "axis").reshape(())),))


@op("Attention")
def _attention(step: Step, q: Value, k: Value, v: Value, mask: Value = None, *past: Value) -> Tensor:
    """softmax(Q K^T * scale + mask) V of opset 23, for inputs [1, heads, length, size] or [1, length, heads * size]."""
    if any(p is not None for p in past) or len(step.outputs) > 1 or step.attr("softcap", 0.0):
        raise ValueError("past keys and values, extra outputs and softcap are not supported.")
    q, k, v = tensor(q), tensor(k), tensor(v)
    flat = q.ndim == 3
    if flat:
        heads = int(step.attr("q_num_heads")), int(step.attr("kv_num_heads")), int(step.attr("kv_num_heads"))
        q, k, v = (_heads(t, h) for t, h in zip((q, k, v), heads, strict=True))
    if q.shape[1] != k.shape[1]:
        times = q.shape[1] // k.shape[1]
        k, v = (over_axes(lambda a, where: jnp.repeat(a, times, axis=where[0]), t, (1,)) for t in (k, v))
    scale = step.attr("scale") or 1.0 / math.sqrt(q.shape[-1])
    keys = over_axes(lambda a, where: jnp.swapaxes(a, *where), k, (2, 3))
    scores = matmul(elementwise(lambda a: a * scale, q), keys)
    if step.attr("is_causal", 0):
        scores = elementwise(lambda s, m: jnp.where(m, s, -jnp.inf), scores, np.tri(*scores.shape[2:], dtype=bool))
    if mask is not None:
        boolean = tensor(mask).data.dtype == np.bool_
        scores = elementwise((lambda s, m: jnp.where(m, s, -jnp.inf)) if boolean else jnp.add, scores, mask)
    out = matmul(over_axes(lambda a, where: jax.nn.softmax(a, where[0]), scores, (3,)), v)
    if not flat:
        return out
    moved = over_axes(lambda a, where: jnp.swapaxes(a, *where), out, (1, 2))
    return to_shape(moved, (*moved.shape[:2], moved.shape[2] * moved.shape[3]))


def _heads(t: Tensor, heads: int) -> Tensor:
    split = to_shape(t, (*t.shape[:2], heads, t.shape[2] // heads))
    return over_axes(lambda a, where: jnp.swapaxes(a, *where), split, (1, 2))
