"""The ops of the `ai.onnx.ml` domain that scikit-learn exporters write around linear models and multi-layer perceptrons."""

import jax
import jax.numpy as jnp

from ._onnx_ops_linear import matmul
from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, elementwise, over_axes, tensor

ML = "ai.onnx.ml"


@op("Scaler", domain=ML)
def _scaler(step: Step, x: Value, offset: Value, scale: Value) -> Tensor:
    """(x - offset) * scale; the loader hands the attributes over as parameters."""
    return elementwise(lambda a, o, s: (a - o) * s, x, offset, scale)


@op("Normalizer", domain=ML)
def _normalizer(step: Step, x: Value) -> Tensor:
    norm = step.attr("norm", "MAX")

    def run(a: jax.Array, where: tuple[int, ...]) -> jax.Array:
        size = jnp.square(a) if norm == "L2" else jnp.abs(a)
        total = jnp.max(a, where, keepdims=True) if norm == "MAX" else jnp.sum(size, where, keepdims=True)
        total = jnp.sqrt(total) if norm == "L2" else total
        return a / jnp.where(total == 0, 1.0, total)

    return over_axes(run, tensor(x), (1,))


@op("LinearClassifier", "LinearRegressor", domain=ML)
def _linear(step: Step, x: Value, weight: Value, bias: Value = None) -> Tensor:
    """x @ W + b, then `post_transform`; the label output is dropped by the loader. `weight` is [D, K]."""
    z = matmul(tensor(x), tensor(weight))
    z = z if bias is None else elementwise(jnp.add, z, bias)
    after = step.attr("post_transform", "NONE")
    if after not in _POST:
        raise ValueError(f"post_transform {after!r} is not supported; allowed: {sorted(_POST)}.")
    return _POST[after](z)


_POST = {
    "NONE": lambda z: z,
    "HALF": lambda z: elementwise(lambda a: 0.5 * a, z),  # not of ONNX: the loader's logits of a two-class logistic regression
    "LOGISTIC": lambda z: elementwise(jax.nn.sigmoid, z),
    "LOG_SIGMOID": lambda z: elementwise(jax.nn.log_sigmoid, z),
    "SOFTMAX": lambda z: over_axes(lambda a, where: jax.nn.softmax(a, where[0]), z, (1,)),
}


@op("BinaryLogits", domain="jaxsec")
def _binary_logits(step: Step, z: Value) -> Tensor:
    """[z] to [0, z]: the two logits whose softmax is [1 - sigmoid(z), sigmoid(z)]."""
    return over_axes(lambda a, where: jnp.concatenate([jnp.zeros_like(a), a], where[0]), tensor(z), (-1,))


@op("LogSigmoid", domain="jaxsec")
def _log_sigmoid(step: Step, z: Value) -> Tensor:
    return elementwise(jax.nn.log_sigmoid, z)
