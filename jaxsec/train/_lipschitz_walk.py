"""The Lipschitz constant of a traced program, and its rounding in float32: operation by operation, from the input to the logits."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex

from ..core._walk import rebound
from ._lipschitz_rounding import UNIT, own_error
from ._maxmin import is_maxmin
from ._net import Net
from ._operator_norms import SLACK, UnknownConstant, magnitude_norm


@dataclasses.dataclass(frozen=True)
class Known:
    """An array that does not depend on the input; `leaf`: which parameter it is, up to its layout; `computed`: by arithmetic."""

    value: Any
    leaf: int | None = None
    computed: bool = False


@dataclasses.dataclass(frozen=True)
class Depends:
    """A value that depends on the input x.

    growth: [3] the Lipschitz constant L and the rounding's slope and offset: in float32 the value is off by at most `slope |x| + offset`,
      so its norm is at most `(L + 2 slope) |x| + |zero| + 2 offset`. All three go through an operation in the same way, as norms do.
    zero: the value at x = 0, computed; None where rounding is not asked for.
    """

    growth: np.ndarray
    zero: Any = None

    @property
    def constant(self) -> float:
        return float(self.growth[0])

    def size(self) -> np.ndarray:
        """[2] (slope, offset) of the norm of the value as float32 computes it."""
        most, slope, offset = self.growth
        return np.array([most + 2 * slope, _norm(self.zero) + 2 * offset])


Norm = Callable[[Any, Known, int], float]  # (product, its weights, which operand they are) -> its norm

_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "custom_jvp_call", "custom_vjp_call")
_LAYOUT = ("reshape", "transpose", "squeeze", "copy", "convert_element_type", "stop_gradient")
_ELEMENTWISE = ("add", "sub", "add_any", "mul", "div", "max", "min", "clamp")
# of constant 1, with one argument
_CONTRACTIONS = frozenset(
    "reshape transpose squeeze copy stop_gradient convert_element_type rev slice neg abs tanh sin cos reduce_max reduce_min pad".split()
)


def _norm(v: Any) -> float:
    return float(np.linalg.norm(np.asarray(v, np.float64).reshape(-1)))


def walked(net: Net, x: Any, norm: Norm, *, rounding: bool = False) -> Any:
    """The constant of the logits, by the program of one row; a known value where they do not depend on it.

    Args: rounding: bound that of float32 as well; the weights' numbers must be known then.
    Raises: ValueError: rows that the net does not take; an operation that is not known.
    """
    row = jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), jnp.promote_types(jnp.result_type(x), jnp.float32))
    try:
        closed = jax.make_jaxpr(net.program.evaluate)(net.params, net.state, row)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the net does not take rows of shape {row.shape[1:]}: {str(error).splitlines()[0]}.") from error
    # the input may have been rounded to float32
    start = Depends(np.array([1.0, UNIT, 0.0]), jnp.zeros(row.shape, row.dtype) if rounding else None)
    params = [Known(leaf, i) for i, leaf in enumerate(jax.tree.leaves(net.params))]
    state = [Known(leaf) for leaf in jax.tree.leaves(net.state)]
    with jax.numpy_rank_promotion("allow"):
        (out,) = _run(closed.jaxpr, [Known(c) for c in closed.consts], [*params, *state, start], norm)
    return out


def _run(jaxpr: Any, consts: list[Any], args: list[Any], norm: Norm) -> list[Any]:
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return Known(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, jex.Literal) else env[atom]  # pyright: ignore[reportAttributeAccessIssue]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _step(eqn, [read(a) for a in eqn.invars], norm), strict=True))
    return [read(a) for a in jaxpr.outvars]


def _step(eqn: Any, values: list[Any], norm: Norm) -> list[Any]:
    name = eqn.primitive.name
    moving = [v for v in values if isinstance(v, Depends)]
    if not moving:
        leaf = values[0].leaf if name in _LAYOUT and len(values) == 1 else None
        if any(v.aval.dtype in (jnp.float16, jnp.bfloat16) for v in eqn.outvars):
            # compilers may leave a rounding to half precision out, and then the weights are others
            raise ValueError(f"no constant is known where weights pass through {eqn.outvars[0].aval.dtype}; keep them in float32.")
        computed = name not in (*_LAYOUT, "broadcast_in_dim") or any(v.computed for v in values)
        return [Known(v, leaf, computed) for v in rebound(eqn, [jnp.asarray(v.value) for v in values])]
    inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
    if name in _CALLS and inner is not None:
        if is_maxmin(eqn, inner):
            return [Depends(moving[0].growth, *_at_zero(eqn, values))]
        closed = inner if isinstance(inner, jex.ClosedJaxpr) else jex.ClosedJaxpr(inner, ())
        return _run(closed.jaxpr, [Known(c) for c in closed.consts], values, norm)
    try:
        growth = _growth(eqn, name, values, norm)
        zeros = _at_zero(eqn, values)
        return [Depends(growth + _own(eqn, values, growth, zero), zero) for zero in zeros] or [Depends(growth)] * len(eqn.outvars)
    except UnknownConstant as e:
        raise ValueError(
            f"no Lipschitz constant is known for {e}; use dense layers, convolutions, ReLU, MaxMin, tanh, pooling, sums and layout changes."
        ) from None


def _at_zero(eqn: Any, values: list[Any]) -> list[Any]:
    """What the operation makes of the values at x = 0; empty without rounding."""
    if any(isinstance(v, Depends) and v.zero is None for v in values):
        return []
    return rebound(eqn, [jnp.asarray(v.zero if isinstance(v, Depends) else v.value) for v in values])


def _own(eqn: Any, values: list[Any], growth: np.ndarray, zero: Any) -> np.ndarray:
    """[3] the rounding of the operation itself."""
    name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
    sizes, factor = [], 1.0
    for i, v in enumerate(values):
        if isinstance(v, Depends):
            spread = math.prod(shape) / math.prod(eqn.invars[i].aval.shape) if name in _ELEMENTWISE else 1.0
            sizes.append(v.size() * math.sqrt(spread))
        elif name in ("dot_general", "conv_general_dilated"):
            factor = magnitude_norm(eqn, np.asarray(v.value), i)
        elif name in _ELEMENTWISE:
            sizes.append(np.array([0.0, _norm(np.broadcast_to(v.value, shape))]))
    computed = any(isinstance(v, Known) and v.computed for v in values)
    if name in ("reduce_sum", "reduce_window_sum"):
        factor = _single(eqn, name)
    return np.array([0.0, *own_error(eqn, sizes, Depends(growth, zero).size(), factor, computed)])


def _growth(eqn: Any, name: str, values: list[Any], norm: Norm) -> np.ndarray:
    """That of one operation's value, in terms of the input, from those of its operands: sums, products with numbers, and lengths."""
    out: Any = eqn.outvars[0].aval
    if out.dtype not in (jnp.float32, jnp.float64):
        raise UnknownConstant(f"{name} with a value of dtype {out.dtype}")
    constants = [v.growth for v in values if isinstance(v, Depends)]
    known = [i for i, v in enumerate(values) if isinstance(v, Known)]
    if name in ("concatenate", "stack"):
        return _length(constants)
    if name in _ELEMENTWISE:
        return _elementwise(eqn, name, values, known)
    if name == "pad" and known == [1]:
        return constants[0]
    if name in ("dot_general", "conv_general_dilated"):
        if len(known) != 1 or (name != "dot_general" and known == [0]):
            raise UnknownConstant(f"{name} of two values that depend on the input")
        return constants[0] * norm(eqn, values[known[0]], known[0])
    if len(values) > 1:
        raise UnknownConstant(f"{name} of {len(values)} values")
    return constants[0] * _single(eqn, name)


def _length(constants: list[np.ndarray]) -> np.ndarray:
    return np.linalg.norm(np.stack(constants), axis=0)


def _elementwise(eqn: Any, name: str, values: list[Any], known: list[int]) -> np.ndarray:
    # a single number may meet an array: it is then spread over it
    size = math.prod(eqn.outvars[0].aval.shape)
    constants = [
        v.growth * math.sqrt(size / math.prod(a.aval.shape)) for v, a in zip(values, eqn.invars, strict=True) if isinstance(v, Depends)
    ]
    if name in ("add", "sub", "add_any"):
        return sum(constants, np.zeros(3))
    if name in ("max", "min"):
        return _length(constants)
    if name == "clamp" and known == [0, 2]:
        return constants[0]
    if len(constants) == 1 and (name == "mul" or (name == "div" and known == [1])):
        if isinstance(values[known[0]].value, Tracer):
            return constants[0]  # a walk that meets traced weights is after their own norms, not after the constant
        factor = np.abs(np.asarray(values[known[0]].value, np.float64))
        if name == "div" and np.min(factor) == 0:
            raise UnknownConstant("div by a value with a zero in it")
        return constants[0] * (float(np.max(factor)) if name == "mul" else 1 / float(np.min(factor))) * SLACK
    raise UnknownConstant(f"{name} by a value that depends on the input")


def _single(eqn: Any, name: str) -> float:
    """The constant of an operation with one argument."""
    p, sizes = eqn.params, [math.prod(v.aval.shape) for v in (eqn.invars[0], eqn.outvars[0])]
    if name in _CONTRACTIONS:
        return 1.0
    if name == "logistic":
        return 0.25
    if name == "erf":
        return 2 / math.sqrt(math.pi)
    if name in ("broadcast_in_dim", "reduce_sum"):
        return math.sqrt(max(sizes) / max(min(sizes), 1)) * SLACK
    if name in ("reduce_window_max", "reduce_window_sum") and set(p["base_dilation"]) | set(p["window_dilation"]) == {1}:
        along = zip(p["window_dimensions"], p["window_strides"], eqn.outvars[0].aval.shape, strict=True)
        shared = math.prod(min(-(-w // s), n) for w, s, n in along)  # windows that an element is in
        return math.sqrt(shared * (math.prod(p["window_dimensions"]) if name.endswith("sum") else 1)) * SLACK
    raise UnknownConstant(name)
