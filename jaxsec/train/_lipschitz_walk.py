"""The Lipschitz constant of a traced program: operation by operation, from the input to the logits."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from ..core._walk import rebound
from ._net import Net
from ._operator_norms import SLACK, UnknownConstant


@jax.jit
def maxmin(x: jax.Array) -> jax.Array:
    """The larger and the smaller of every two channels: of the last axis, its first half paired with its second. Moves apart no two points.

    Source: Anil et al. 2019 (GroupSort with groups of 2); of an odd number of channels the last one is passed on.
    """
    n = x.shape[-1] // 2
    a, b = x[..., :n], x[..., n : 2 * n]
    rest = [x[..., 2 * n :]] if x.shape[-1] % 2 else []
    return jnp.concatenate([jnp.maximum(a, b), jnp.minimum(a, b), *rest], axis=-1)


@dataclasses.dataclass(frozen=True)
class Known:
    """An array that does not depend on the input; `leaf`: which parameter it is, up to its layout."""

    value: Any
    leaf: int | None = None


@dataclasses.dataclass(frozen=True)
class Depends:
    constant: float


Norm = Callable[[Any, Known, int], float]  # (product, its weights, which operand they are) -> its norm

_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "custom_jvp_call", "custom_vjp_call")
_LAYOUT = ("reshape", "transpose", "squeeze", "copy", "convert_element_type", "stop_gradient")
_ELEMENTWISE = ("add", "sub", "add_any", "mul", "div", "max", "min", "clamp")
# of constant 1, with one argument
_CONTRACTIONS = frozenset(
    "reshape transpose squeeze copy stop_gradient convert_element_type rev slice neg abs tanh sin cos reduce_max reduce_min pad".split()
)


def walked(net: Net, x: Any, norm: Norm) -> Any:
    """The constant of the logits, by the program of one row; a known value where they do not depend on it."""
    row = jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), jnp.promote_types(jnp.result_type(x), jnp.float32))
    closed = jax.make_jaxpr(net.program.evaluate)(net.params, net.state, row)
    params = [Known(leaf, i) for i, leaf in enumerate(jax.tree.leaves(net.params))]
    state = [Known(leaf) for leaf in jax.tree.leaves(net.state)]
    with jax.numpy_rank_promotion("allow"):
        (out,) = _run(closed.jaxpr, [Known(c) for c in closed.consts], [*params, *state, Depends(1.0)], norm)
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
        return [Known(v, leaf) for v in rebound(eqn, [jnp.asarray(v.value) for v in values])]
    inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
    if name in _CALLS and inner is not None:
        if _is_maxmin(eqn, inner):
            return [moving[0]]
        closed = inner if isinstance(inner, jex.ClosedJaxpr) else jex.ClosedJaxpr(inner, ())
        return _run(closed.jaxpr, [Known(c) for c in closed.consts], values, norm)
    try:
        return [Depends(_constant(eqn, name, values, norm))] * len(eqn.outvars)
    except UnknownConstant as e:
        raise ValueError(
            f"no Lipschitz constant is known for {e}; use dense layers, convolutions, ReLU, MaxMin, tanh, pooling, sums and layout changes."
        ) from None


def _constant(eqn: Any, name: str, values: list[Any], norm: Norm) -> float:
    """That of one operation's value, in terms of the input."""
    out: Any = eqn.outvars[0].aval
    if out.dtype not in (jnp.float32, jnp.float64):
        raise UnknownConstant(f"{name} with a value of dtype {out.dtype}")
    constants = [v.constant for v in values if isinstance(v, Depends)]
    known = [i for i, v in enumerate(values) if isinstance(v, Known)]
    if name in ("concatenate", "stack"):
        return math.hypot(*constants)
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


def _elementwise(eqn: Any, name: str, values: list[Any], known: list[int]) -> float:
    # a single number may meet an array: it is then spread over it
    size = math.prod(eqn.outvars[0].aval.shape)
    constants = [
        v.constant * math.sqrt(size / math.prod(a.aval.shape)) for v, a in zip(values, eqn.invars, strict=True) if isinstance(v, Depends)
    ]
    if name in ("add", "sub", "add_any"):
        return sum(constants)
    if name in ("max", "min"):
        return math.hypot(*constants)
    if name == "clamp" and known == [0, 2]:
        return constants[0]
    if len(constants) == 1 and (name == "mul" or (name == "div" and known == [1])):
        factor = np.abs(np.asarray(values[known[0]].value, np.float64))
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


def _is_maxmin(eqn: Any, inner: Any) -> bool:
    """The very program of `maxmin`: a call's name alone proves nothing."""
    if eqn.params.get("name") != "maxmin" or len(eqn.invars) != 1 or not isinstance(inner, jex.ClosedJaxpr):
        return False
    aval: Any = eqn.invars[0].aval
    reference = jax.make_jaxpr(maxmin)(jax.ShapeDtypeStruct(aval.shape, aval.dtype)).jaxpr.eqns[0].params["jaxpr"]
    return str(inner) == str(reference)
