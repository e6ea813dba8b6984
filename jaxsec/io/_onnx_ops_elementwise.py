"""ONNX ops that work entry by entry: arithmetic, activations, comparisons, casts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._onnx_program import Step, op
from ._onnx_tensor import Tensor, Value, elementwise, host, tensor

_UNARY = {
    "Relu": jax.nn.relu,
    "Sigmoid": jax.nn.sigmoid,
    "Tanh": jnp.tanh,
    "Softplus": jax.nn.softplus,
    "Softsign": jax.nn.soft_sign,
    "Mish": jax.nn.mish,
    "HardSwish": lambda x: x * jnp.clip(x / 6 + 0.5, 0.0, 1.0),
    "Erf": lax.erf,
    "Exp": jnp.exp,
    "Log": jnp.log,
    "Sqrt": jnp.sqrt,
    "Reciprocal": lambda x: 1.0 / x,
    "Abs": jnp.abs,
    "Neg": jnp.negative,
    "Sign": jnp.sign,
    "Floor": jnp.floor,
    "Ceil": jnp.ceil,
    "Round": jnp.round,
    "Sin": jnp.sin,
    "Cos": jnp.cos,
    "Tan": jnp.tan,
    "Asin": jnp.arcsin,
    "Acos": jnp.arccos,
    "Atan": jnp.arctan,
    "Sinh": jnp.sinh,
    "Cosh": jnp.cosh,
    "Asinh": jnp.arcsinh,
    "Acosh": jnp.arccosh,
    "Atanh": jnp.arctanh,
    "Not": jnp.logical_not,
    "IsNaN": jnp.isnan,
}

_BINARY = {
    "Equal": jnp.equal,
    "Greater": jnp.greater,
    "GreaterOrEqual": jnp.greater_equal,
    "Less": jnp.less,
    "LessOrEqual": jnp.less_equal,
    "And": jnp.logical_and,
    "Or": jnp.logical_or,
    "Xor": jnp.logical_xor,
}


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    whole = jnp.issubdtype(jnp.result_type(a, b), jnp.integer)  # ONNX divides integers towards zero
    return lax.div(*jnp.broadcast_arrays(a, b)) if whole else jnp.divide(a, b)


_ARITHMETIC = {"Add": jnp.add, "Sub": jnp.subtract, "Mul": jnp.multiply, "Div": _divide}
_FOLDED = {"Min": jnp.minimum, "Max": jnp.maximum, "Sum": jnp.add}


@op(*_UNARY)
def _unary(step: Step, x: Value) -> Tensor:
    return elementwise(_UNARY[step.op], x)


@op(*_BINARY)
def _binary(step: Step, a: Value, b: Value) -> Tensor:
    return elementwise(_BINARY[step.op], a, b)


@op(*_ARITHMETIC)
def _arithmetic(step: Step, a: Value, b: Value) -> Tensor:
    if step.opset < 7 and step.attr("broadcast", 0) and step.attr("axis") is not None:
        # Before opset 7 the second operand lines up at `axis` and not at the end.
        a, b = tensor(a), tensor(b)
        if b.rows:
            raise ValueError("the old broadcast rule with an axis is supported for constant second operands only.")
        tail = a.ndim - int(step.attr("axis")) - b.ndim
        b = Tensor(jnp.reshape(b.data, (*b.shape, *[1] * tail)), (*b.shape, *[1] * tail), False)
    return elementwise(_ARITHMETIC[step.op], a, b)


@op(*_FOLDED, "Mean")
def _many(step: Step, *inputs: Value) -> Tensor:
    out = functools.reduce(functools.partial(elementwise, _FOLDED.get(step.op, jnp.add)), [tensor(v) for v in inputs])
    return elementwise(lambda s: s / len(inputs), out) if step.op == "Mean" else out


@op("Pow")
def _pow(step: Step, x: Value, exponent: Value) -> Tensor:
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and float(exponent.reshape(())) in (1.0, 2.0, 3.0, 4.0, -1.0):
        n = int(exponent.reshape(()))  # a whole power has a derivative at 0 and below, the general one has none
        out = elementwise(lambda a: lax.integer_pow(a, n), x)
        return out if exponent.ndim <= out.ndim else elementwise(lambda a, _: a, out, exponent)
    return elementwise(jnp.power, x, exponent)


@op("Mod")
def _mod(step: Step, a: Value, b: Value) -> Tensor:
    return elementwise(jnp.fmod if step.attr("fmod", 0) else jnp.mod, *[tensor(v) for v in (a, b)])


@op("Where")
def _where(step: Step, condition: Value, a: Value, b: Value) -> Tensor:
    return elementwise(lambda c, x, y: jnp.where(c.astype(bool), x, y), condition, a, b)


@op("Clip", static=(1, 2))
def _clip(step: Step, x: Value, low: Value = None, high: Value = None) -> Tensor:
    lo = step.attr("min") if low is None else float(host(low, "min").reshape(()))
    hi = step.attr("max") if high is None else float(host(high, "max").reshape(()))
    return elementwise(lambda a: jnp.clip(a, lo, hi), x)


@op("PRelu")
def _prelu(step: Step, x: Value, slope: Value) -> Tensor:
    return elementwise(lambda a, s: jnp.where(a >= 0, a, s * a), x, slope)


@op("LeakyRelu")
def _leaky_relu(step: Step, x: Value) -> Tensor:
    return elementwise(lambda a: jax.nn.leaky_relu(a, step.attr("alpha", 0.01)), x)


@op("ThresholdedRelu")
def _thresholded_relu(step: Step, x: Value) -> Tensor:
    return elementwise(lambda a: jnp.where(a > step.attr("alpha", 1.0), a, 0.0), x)


@op("Elu", "Celu")
def _elu(step: Step, x: Value) -> Tensor:
    return elementwise(lambda a: (jax.nn.elu if step.op == "Elu" else jax.nn.celu)(a, step.attr("alpha", 1.0)), x)


@op("Selu")
def _selu(step: Step, x: Value) -> Tensor:
    alpha, gamma = step.attr("alpha", 1.67326319217681884765625), step.attr("gamma", 1.05070102214813232421875)
    return elementwise(lambda a: gamma * jax.nn.elu(a, alpha), x)


@op("HardSigmoid")
def _hard_sigmoid(step: Step, x: Value) -> Tensor:
    return elementwise(lambda a: jnp.clip(step.attr("alpha", 0.2) * a + step.attr("beta", 0.5), 0.0, 1.0), x)


@op("Gelu")
@op("Gelu", domain="com.microsoft")
def _gelu(step: Step, x: Value) -> Tensor:
    return elementwise(lambda a: jax.nn.gelu(a, approximate=step.attr("approximate", "none") == "tanh"), x)


@op("FastGelu", domain="com.microsoft")
def _fast_gelu(step: Step, x: Value, bias: Value = None) -> Tensor:
    x = x if bias is None else elementwise(jnp.add, x, bias)
    return elementwise(lambda a: jax.nn.gelu(a, approximate=True), x)


@op("Swish")
def _swish(step: Step, x: Value) -> Tensor:
    return elementwise(lambda a: a * jax.nn.sigmoid(step.attr("alpha", 1.0) * a), x)


@op("Identity")
def _identity(step: Step, x: Value) -> Value:
    return x


@op("Dropout")
def _dropout(step: Step, x: Value, *rest: Value) -> Value:
    """Identity: a deployed model drops nothing, unless the file says it is in training mode."""
    training = rest[1] if len(rest) > 1 else None
    if training is not None and bool(np.any(host(training, "training_mode"))):
        raise ValueError("Dropout is in training mode, which makes the model random; export the model in inference mode.")
    return x


@op("Cast", "CastLike")
def _cast(step: Step, x: Value, like: Value = None) -> Tensor:
    """Between floating types nothing happens: the whole program runs in the caller's floating type (float32)."""
    kind = tensor(like).data.dtype if like is not None else _CASTS.get(step.attr("to"))
    if kind is None:
        raise ValueError(f"data type number {step.attr('to')} has no numeric counterpart; allowed are floats, integers and bool.")

    def convert(a: Any) -> Any:
        if jnp.issubdtype(kind, jnp.floating) and jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return a.astype(kind)

    return elementwise(convert, x)


# TensorProto.DataType numbers of the ONNX specification; 64-bit integers become 32-bit, JAX's default.
_CASTS: dict[Any, Any] = {
    1: np.float32, 10: np.float32, 11: np.float32, 16: np.float32, 9: np.bool_,
    2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int32, 12: np.uint32, 13: np.uint32,
}  # fmt: skip
