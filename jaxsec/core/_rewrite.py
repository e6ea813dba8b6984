"""`tuned`: the model's traced program, rewritten where XLA's CPU backend is known to be slow; elsewhere it is left alone."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex

from .._native import cpu_devices, on_one_cpu
from ._layout import Flat, Laid, Pending, identity
from ._model import Model
from ._rewrite_rules import UNARY_SAFE, Rule, elementwise, rules
from ._walk import rebound

# Entered. A remat's point is memory in training; an attack keeps what it needs.
_CALLS = frozenset({"pjit", "jit", "closed_call", "core_call", "checkpoint", "remat", "remat2"})


def tuned(model: Model) -> Model:
    """The same model, with a program for CPUs in which gradients of convolutions and pools are fast.

    Guarantee: equal to the model up to float32 rounding (a derivative exactly at a kink of `max(x, 0)` is 0, where JAX's
    `max` gives a half); the choice is made where the program is lowered, so one traced program serves every platform;
    tuning twice is tuning once; equal models stay equal, so nothing retraces.

    Convolutions and dense layers run as native code where it is `available()` and the process has one CPU device; then a row's
    convolutions and dense layers do not depend on the batch size, bit for bit. Among several CPU devices XLA would gather the
    shards around a native call, so there, and without native code, the same rewritten program runs on XLA's operations.

    Cost: tracing twice. Reverse mode only: `jax.jvp` raises a TypeError at a rewritten operation.
    Edge cases: a stochastic model is left alone; an operation that no rule knows (a grouped or dilated convolution, the body of
    a loop) runs as it was traced. A program with native code exports for TPU and GPU; for the CPU, export with `JAXSEC_NATIVE=0`
    or allow the custom call `jaxsec_conv2d` in `jax.export`.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params["w"]
      >>> jaxsec.core.tuned(jaxsec.bind(linear, {"w": jnp.eye(3)}))(jnp.ones((2, 3))).shape
      (2, 3)
    """
    if isinstance(model.apply, Tuned) or model.stochastic:
        return model
    return model.replace(apply=Tuned(model.apply))


def untuned(model: Model) -> Model:
    """The model with the program that its user wrote."""
    return model.replace(apply=model.apply.inner) if isinstance(model.apply, Tuned) else model


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Compares by the program it wraps."""

    inner: Callable[..., jax.Array]

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        return tuned_call(self.inner, params, x)


def tuned_call(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, arrays or trees of them in and out, by the program that `tuned` makes for CPUs."""
    if cpu_devices() == 0:
        return fn(*args)
    return lax.platform_dependent(*args, cpu=functools.partial(_rewritten, fn, on_one_cpu()), default=fn)


def _rewritten(fn: Callable[..., Any], native: bool, *args: Any) -> Any:
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(out), run(closed, jax.tree.leaves(args), rules(native)))


def run(closed: jex.ClosedJaxpr, args: list[Any], table: dict[str, Rule]) -> list[jax.Array]:
    """Evaluates a closed jaxpr by the rules; arrays or laid values in, plain arrays out."""
    return [plain(v) for v in _interpret(closed.jaxpr, list(closed.consts), args, table)]


def plain(v: Any) -> jax.Array:
    """The traced program's own array."""
    if isinstance(v, Pending):
        v = v.run()
    if isinstance(v, Flat):
        return v.plain()
    return v.in_order(identity(len(v.shape))) if isinstance(v, Laid) else v


def _interpret(jaxpr: jex.Jaxpr, consts: list[Any], args: list[Any], table: dict[str, Rule]) -> list[Any]:
    env: dict[Any, Any] = {}
    uses: dict[Any, int] = {}
    for atoms in (*(eqn.invars for eqn in jaxpr.eqns), jaxpr.outvars):
        for atom in atoms:
            if not isinstance(atom, jex.Literal):
                uses[atom] = uses.get(atom, 0) + 1

    def read(atom: Any) -> Any:
        if isinstance(atom, jex.Literal):
            return jnp.asarray(atom.val, atom.aval.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        v = env[atom]
        # a convolution wanted twice must run once, before anything is folded into it
        return v.run() if isinstance(v, Pending) and uses[atom] > 1 else v

    env.update(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        env.update(zip(eqn.outvars, _evaluate(eqn, values, table), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate(eqn: Any, values: list[Any], table: dict[str, Rule]) -> list[Any]:
    name = eqn.primitive.name
    if name in _CALLS:
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        if isinstance(inner, jex.ClosedJaxpr):
            return _interpret(inner.jaxpr, list(inner.consts), values, table)
        if isinstance(inner, jex.Jaxpr):
            return _interpret(inner, [], values, table)
    if name == "custom_jvp_call" and _is_relu(eqn.params["call_jaxpr"].jaxpr) and _slope_of(eqn) == _relu_slope(eqn.invars[0].aval):
        return [relu(values[0])]
    rule = table.get(name)
    if rule is not None:
        out = rule(eqn, values)
        if out is not None:
            return [out]
    if name in UNARY_SAFE:
        if (out := elementwise(eqn, values)) is not None:
            return [out]
    # everything else as it was traced
    plains = [plain(v) for v in values]
    return rebound(eqn, plains)


def _is_relu(jaxpr: jex.Jaxpr) -> bool:
    """One `max` of the argument and a literal zero, wrapped in calls or not."""
    while len(jaxpr.eqns) == 1 and jaxpr.eqns[0].primitive.name in ("pjit", "jit", "closed_call"):
        jaxpr = jaxpr.eqns[0].params["jaxpr"].jaxpr
    if len(jaxpr.eqns) != 1 or jaxpr.eqns[0].primitive.name != "max" or len(jaxpr.invars) != 1:
        return False
    return any(isinstance(a, jex.Literal) and jnp.ndim(a.val) == 0 and float(a.val) == 0 for a in jaxpr.eqns[0].invars)


def _slope_of(eqn: Any) -> str:
    """The program of the equation's derivative: a surrogate gradient has the values of ReLU and another slope."""
    aval = eqn.invars[0].aval
    v = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    return str(jax.make_jaxpr(lambda v, t: jax.jvp(lambda v: rebound(eqn, [v])[0], (v,), (t,)))(v, v))


def _relu_slope(aval: Any) -> str:
    """That of `jax.nn.relu` itself."""
    closed = jax.make_jaxpr(jax.nn.relu)(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
    eqns = list(closed.jaxpr.eqns)
    while eqns and eqns[0].primitive.name in ("pjit", "jit", "closed_call"):
        eqns = list(eqns[0].params["jaxpr"].jaxpr.eqns)
    return _slope_of(eqns[0]) if eqns and eqns[0].primitive.name == "custom_jvp_call" else ""


def relu(v: Any) -> Any:
    """ReLU in whatever order the value is laid; fused where a convolution waits."""
    if isinstance(v, Pending):
        return v.run(relu=True)
    if isinstance(v, Laid):
        return v.mapped(jax.nn.relu)
    return jax.nn.relu(plain(v))
