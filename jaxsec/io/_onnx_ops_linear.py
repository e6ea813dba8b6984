"""ONNX ops that multiply matrices: MatMul, Gemm, Einsum."""

import jax
import jax.numpy as jnp
from jax import lax

from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, constant, elementwise, over_axes, rows_of, tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` with the shape rules of NumPy's matmul, in the graph's shapes."""
    if not (a.rows or b.rows):
        return constant(jnp.matmul(a.data, b.data))
    if a.rows and not b.rows and b.ndim == 2:
        # The layer of every network: contract the last axis, whatever stands in front.
        _inner(a.shape[-1], b.shape[0])
        out = lax.dot_general(a.data, b.data, (((a.data.ndim - 1,), (0,)), ((), ())))
        return rows_of(out, (*a.shape[:-1], b.shape[1]))
    vector_a, vector_b = a.ndim == 1, b.ndim == 1
    shape_a = (1, *a.shape) if vector_a else a.shape
    shape_b = (*b.shape, 1) if vector_b else b.shape
    _inner(shape_a[-1], shape_b[-2])
    front = tuple(jnp.broadcast_shapes(shape_a[:-2], shape_b[:-2]))
    # A leading 1 that is a batch axis of both operands is left out; one that is a row of a matrix is needed.
    fold = len(front) > 0 and front[0] == 1
    out = jnp.matmul(_stacked(a, shape_a, front, fold), _stacked(b, shape_b, front, fold))
    shape = (*front, *(() if vector_a else shape_a[-2:-1]), *(() if vector_b else shape_b[-1:]))
    return rows_of(out, shape)


def _stacked(t: Tensor, shape: tuple[int, ...], front: tuple[int, ...], fold: bool) -> jax.Array:
    full = (1,) * (len(front) + 2 - len(shape)) + tuple(shape)
    kept = full[1:] if fold else full
    return jnp.reshape(t.data, ((t.data.shape[0] if t.rows else 1), *kept))


def _inner(left: int, right: int) -> None:
    if left != right:
        raise ValueError(f"inner sizes differ: {left} and {right}.")


@op("MatMul")
def _matmul(step: Step, a: Value, b: Value) -> Tensor:
    return matmul(tensor(a), tensor(b))


@op("Gemm")
def _gemm(step: Step, a: Value, b: Value, c: Value = None) -> Tensor:
    """alpha * A' @ B' + beta * C."""
    a, b = tensor(a), tensor(b)
    a = _transposed(a) if step.attr("transA", 0) else a
    b = _transposed(b) if step.attr("transB", 0) else b
    out = matmul(a, b)
    alpha, beta = step.attr("alpha", 1.0), step.attr("beta", 1.0)
    out = out if alpha == 1.0 else elementwise(lambda z: alpha * z, out)
    if c is None or beta == 0.0:
        return out
    return elementwise(jnp.add if beta == 1.0 else lambda z, bias: z + beta * bias, out, c)


def _transposed(t: Tensor) -> Tensor:
    return over_axes(lambda array, axes: jnp.swapaxes(array, *axes), t, (0, 1))


@op("Einsum")
def _einsum(step: Step, *inputs: Value) -> Tensor:
    """The batch axis of row operands gets a letter of its own in front."""
    equation = str(step.attr("equation")).replace(" ", "")
    tensors = [tensor(v) for v in inputs]
    if "..." in equation:
        raise ValueError(f"Einsum equation {equation!r} uses an ellipsis; name every axis.")
    left, arrow, right = equation.partition("->")
    if not arrow:
        letters = [c for term in left.split(",") for c in term]
        right = "".join(sorted({c for c in letters if letters.count(c) == 1}))
    batch = next(c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in equation)
    terms = [batch * t.rows + term for t, term in zip(tensors, left.split(","), strict=True)]
    rows = any(t.rows for t in tensors)
    out = jnp.einsum(f"{','.join(terms)}->{batch * rows}{right}", *[t.open() for t in tensors])
    return rows_of(out, out.shape[1:]) if rows else constant(out)
