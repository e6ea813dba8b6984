"""ONNX normalisations, as they are at inference."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, elementwise, merged, over_axes, tensor


def _weights(*values: Value) -> list[Value]:
    found = [None if v is None else tensor(v) for v in values]
    if any(t is not None and t.rows for t in found):
        raise ValueError("normalisation weights that depend on the input are not supported.")
    return [None if t is None else t.data for t in found]


def _channels(vector: Value, rank: int) -> Value:
    return jnp.reshape(vector, (1, -1, *[1] * (rank - 2)))


@op("BatchNormalization")
def _batch_norm(step: Step, x: Value, scale: Value, bias: Value, mean: Value, var: Value) -> Tensor:
    """With the stored statistics, as one scale and one shift per channel, which is also what bound propagation wants to see."""
    if step.attr("training_mode", 0) or (step.opset < 7 and not step.attr("is_test", 0)):
        raise ValueError("BatchNormalization is in training mode, which couples the rows of a batch; export with model.eval().")
    gamma, beta, mu, variance = _weights(scale, bias, mean, var)
    factor = gamma * lax.rsqrt(variance + step.attr("epsilon", 1e-5))
    shift = beta - mu * factor
    return merged(lambda a: a * _channels(factor, a.ndim) + _channels(shift, a.ndim), tensor(x))


@op("InstanceNormalization", "GroupNormalization")
def _group_norm(step: Step, x: Value, scale: Value, bias: Value) -> Tensor:
    gamma, beta = _weights(scale, bias)
    eps = step.attr("epsilon", 1e-5)

    def run(a: jnp.ndarray) -> jnp.ndarray:
        groups = a.shape[1] if step.op == "InstanceNormalization" else int(step.attr("num_groups"))
        grouped = jnp.reshape(a, (a.shape[0], groups, -1))
        z = jnp.reshape(_standardised(grouped, (2,), eps), a.shape)
        per_group = step.op == "GroupNormalization" and gamma.shape[0] == groups  # before opset 21
        g, b = (jnp.repeat(v, a.shape[1] // groups) if per_group else v for v in (gamma, beta))
        return z * _channels(g, a.ndim) + _channels(b, a.ndim)

    return merged(run, tensor(x))


@op("LayerNormalization", "RMSNormalization")
@op("LayerNormalization", "SimplifiedLayerNormalization", domain="com.microsoft")
def _layer_norm(step: Step, x: Value, scale: Value = None, bias: Value = None) -> Tensor:
    x = tensor(x)
    axis = int(step.attr("axis", -1)) % x.ndim
    axes = tuple(range(axis, x.ndim))
    eps = step.attr("epsilon", 1e-5)
    if len(step.outputs) > 1:
        raise ValueError("the Mean and InvStdDev outputs are not supported.")

    def root_mean_square(a: jnp.ndarray, where: tuple[int, ...]) -> jnp.ndarray:
        return a * lax.rsqrt(jnp.mean(jnp.square(a), where, keepdims=True) + eps)

    centred = step.op == "LayerNormalization"
    z = over_axes(lambda a, where: _standardised(a, where, eps) if centred else root_mean_square(a, where), x, axes)
    z = z if scale is None else elementwise(jnp.multiply, z, scale)
    return z if bias is None else elementwise(jnp.add, z, bias)


@op("MeanVarianceNormalization")
def _mvn(step: Step, x: Value) -> Tensor:
    return over_axes(lambda a, where: _standardised(a, where, 1e-9), tensor(x), step.attr("axes", (0, 2, 3)))


def _standardised(a: jnp.ndarray, axes: tuple[int, ...], eps: float) -> jnp.ndarray:
    centred = a - jnp.mean(a, axes, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(jnp.square(centred), axes, keepdims=True) + eps)


@op("LpNormalization")
def _lp_norm(step: Step, x: Value) -> Tensor:
    def run(a: jnp.ndarray, where: tuple[int, ...]) -> jnp.ndarray:
        size = jnp.abs(a) if int(step.attr("p", 2)) == 1 else jnp.square(a)
        total = jnp.sum(size, where, keepdims=True)
        total = total if int(step.attr("p", 2)) == 1 else jnp.sqrt(total)
        return a / jnp.where(total == 0, 1.0, total)

    return over_axes(run, tensor(x), (int(step.attr("axis", -1)),))


@op("LRN")
def _local_response(step: Step, x: Value) -> Tensor:
    """Division by the energy of neighbouring channels."""
    size = int(step.attr("size"))
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    alpha, beta, bias = step.attr("alpha", 1e-4), step.attr("beta", 0.75), step.attr("bias", 1.0)

    def run(a: jnp.ndarray) -> jnp.ndarray:
        window = (1, size, *[1] * (a.ndim - 2))
        pads = [(0, 0), (before, after), *[(0, 0)] * (a.ndim - 2)]
        energy = lax.reduce_window(jnp.square(a), np.array(0, a.dtype), lax.add, window, (1,) * a.ndim, pads)
        return a / (bias + alpha / size * energy) ** beta

    return merged(run, tensor(x))
