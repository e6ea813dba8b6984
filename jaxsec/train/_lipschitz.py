"""Lipschitz nets: a bound on the net's Lipschitz constant in L2, the radius that margins then certify, and a loss that asks for margins.

The constant is the product of those of the operations, read off the traced program; products with weights get a rigorous bound of their
true operator norm, padding and stride included. `_lipschitz_layers` has layers whose constant is at most 1 whatever their weights.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core as jex

from ..core import Model, static, struct
from ..core._walk import rebound
from ._losses import accuracy, cross_entropy, distribution
from ._net import Net, net_of
from ._recipe import Metrics, Recipe

# Of the norms, for their own float64 rounding and for weights that a compiled program rounds otherwise than they were read here.
_SLACK = 1 + 1e-6
# Of the logits' and the input's size: float32 rounding of a margin.
_ROUNDING = 4e-6
_MATRIX = 1024  # inputs or outputs up to which a convolution is written as a matrix
_SAMPLES = 16  # grid points for each degree of a kernel's spectrum


@struct
class LipschitzMargin(Recipe):
    """Cross-entropy with an offset on the label's logit, or a hinge on the margin: a net of constant 1 is certified by its margins.

    Guarantee: refuses a net whose constant is not known to be at most 1, because margins of another one can be had by scaling it up.
    Args:
      offset: how much the label's logit must lead by before it counts; `sqrt(2)` times the radius that matters.
      temperature: of the cross-entropy, above 0; small means that margins beyond the offset add nothing.
      kind: "cross-entropy" or "hinge", `max(0, offset - margin)` (static).
      threat: what validation attacks, an `L2`; the loss does not use it.
    Cost: 1 forward and gradient in the parameters.
    Source: Prach and Lampert 2022, section 5 (loss), with their offset and temperature; hinge: Anil et al. 2019, section 6.

    Example:
      >>> import jax.numpy as jnp, jax, jaxsec
      >>> from jaxsec.train._lipschitz import LipschitzMargin
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> loss, _ = LipschitzMargin(kind="hinge", offset=1.5).loss(model, jnp.eye(2), jnp.array([0, 1]), jax.random.key(0))
      >>> float(loss)
      0.5
    """

    name: ClassVar[str] = "lipschitz"
    summary: ClassVar[str] = "margins of a net of Lipschitz constant 1, which certify an L2 radius"
    cost: ClassVar[str] = "1"
    source: ClassVar[str] = "Prach and Lampert 2022, arXiv:2208.03160; Tsuzuku et al. 2018, arXiv:1802.04034"

    offset: Any = math.sqrt(2)
    temperature: Any = 0.25
    kind: str = static(default="cross-entropy")
    threat: Any = None

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        if self.kind not in ("cross-entropy", "hinge"):
            raise ValueError(f"{self.name} got kind={self.kind!r}; allowed: cross-entropy, hinge.")
        if not isinstance(self.temperature, Tracer) and not float(self.temperature) > 0:
            raise ValueError(f"{self.name} got temperature={self.temperature}; it must be above 0.")
        constant = lipschitz_constant(net, x)
        if constant > 1.001:
            raise ValueError(
                f"{self.name} needs a net of Lipschitz constant 1, and of this one it is only known to be at most {constant:.4g}; build it "
                "from AOLDense, AOLConv and MaxMin."
            )

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        logits, net = net.training(x, keys)
        own = distribution(y, logits.shape[1])
        if self.kind == "hinge":
            label = jnp.argmax(own, axis=1)[:, None] == jnp.arange(logits.shape[1])[None]
            margin = jnp.sum(jnp.where(label, logits, 0), axis=1) - jnp.max(jnp.where(label, -jnp.inf, logits), axis=1)
            loss = jnp.mean(jnp.maximum(self.offset - margin, 0))
        else:
            loss = self.temperature * jnp.mean(cross_entropy((logits - self.offset * own) / self.temperature, y))
        return loss, {"clean_accuracy": accuracy(logits, y)}, net


def lipschitz_certify(model: Model | Net, x: jax.Array, y: Any, *, constant: float | None = None) -> np.ndarray:
    """[B] float32: the L2 radius around each row within which its class is proved not to change; 0 for a wrong row.

    Guarantee: `margin / (sqrt(2) L)`, in exact arithmetic at least that, since 4e-6 of the sizes of logits and input are taken off the
      margin for float32 rounding, and the result is rounded down. Holds with or without a box of valid inputs.
    Args: x [B, ...]; y [B] classes. constant: L, if it has been computed before by `lipschitz_constant`.
    Raises: ValueError: as `lipschitz_constant`. Cost: 1 forward, and the constant.
    Source: Tsuzuku et al. 2018, proposition 1 and section 4; Li et al. 2019.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> from jaxsec.train._lipschitz import lipschitz_certify
      >>> def linear(params, x):
      ...     return x @ params
      >>> lipschitz_certify(jaxsec.bind(linear, jnp.eye(2)), jnp.array([[2.0, 0.0]]), jnp.array([0])).round(3).tolist()
      [1.4140000343322754]
    """
    net = net_of(model)
    constant = lipschitz_constant(net, x) if constant is None else constant
    z = np.asarray(_logits(net.replace(dtype=None), jnp.asarray(x)), np.float64)
    y = np.asarray(y)
    own = np.arange(z.shape[1])[None] == y[:, None]
    margin = z[own] - np.max(np.where(own, -np.inf, z), axis=1)
    size = np.max(np.abs(z), axis=1) + constant * np.linalg.norm(np.asarray(x, np.float64).reshape(len(y), -1), axis=1)
    exact = np.maximum(margin - _ROUNDING * size, 0) / (math.sqrt(2) * constant * _SLACK) if constant else np.where(margin > 0, np.inf, 0.0)
    radius = exact.astype(np.float32)
    return np.where(radius > exact, np.nextafter(radius, np.float32(0)), radius)


@jax.jit
def _logits(net: Net, x: jax.Array) -> jax.Array:
    return net(x)


def lipschitz_constant(model: Model | Net, x: Any) -> float:
    """An upper bound of the Lipschitz constant of the logits in L2, of the net in evaluation mode.

    Guarantee: rigorous for the weights as they are, with 1e-6 for their rounding. Of a dense layer, and of a convolution with at most 1,024
      inputs or outputs, the exact norm; of a larger one the smaller of two bounds of its norm on an endless picture (`conv_norm`).
    Args: x [B, ...]: rows whose shape counts.
    Raises: ValueError: an operation whose constant is not known, by its name; it can be added to the net's constant by hand.
    Edge cases: residual sums add; a product of two values that both depend on the input has no constant.
    """
    net = net_of(model)

    def norm(eqn: Any, w: _Known, position: int) -> float:
        if isinstance(w.value, Tracer):
            raise TypeError("lipschitz_constant needs the weights' numbers, and was called under a trace; call it outside of jit.")
        value = np.asarray(w.value)
        return dense_norm(eqn, value, position) if eqn.primitive.name == "dot_general" else conv_norm(eqn, value)

    out = _walked(net, x, norm)
    return out.constant if isinstance(out, _Depends) else 0.0


def spectral_normalised(net: Net, x: Any, *, most: Any = 1.0, steps: int = 20) -> Net:
    """The net with every weight array divided by so much that no product with it has a norm above `most`, as power iteration finds it.

    Guarantee: the norm is that of the operator, with its padding and stride, at these inputs' shape. Power iteration comes from below, so
      the bound is approximate (2% after 20 steps): what certifies is `lipschitz_constant` of the result, which is rigorous.
    Args: x [B, ...]: rows whose shape counts. most: traced. steps: static. Pure, differentiable in the parameters; works under `jit`.
    Edge cases: weights that are computed from several parameters (normalised ones) stay as they are; biases always do.
    Cost: `steps` forwards and transposes of every layer, for one row.
    Source: Miyato et al. 2018, algorithm 1; of the true operator of a convolution as in Tsuzuku et al. 2018, section 4.
    """
    leaves, tree = jax.tree.flatten(net.params)
    sizes: dict[int, jax.Array] = {}

    def norm(eqn: Any, w: _Known, position: int) -> float:
        if w.leaf is not None:
            aval = eqn.invars[1 - position].aval
            found = power_iteration(lambda v: rebound(eqn, [v, w.value] if position else [w.value, v])[0], aval.shape, aval.dtype, steps)
            sizes[w.leaf] = jnp.maximum(sizes[w.leaf], found) if w.leaf in sizes else found
        return 1.0

    _walked(net, x, norm)
    scaled = [w / jnp.maximum(sizes[i] / most, 1).astype(w.dtype) if i in sizes else w for i, w in enumerate(leaves)]
    return net.replace(params=jax.tree.unflatten(tree, scaled))


def power_iteration(op: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any, steps: int) -> jax.Array:
    """[] the largest singular value of a linear operator, from below; its derivative is that at the singular vectors found."""
    transpose = jax.linear_transpose(op, jax.ShapeDtypeStruct(shape, dtype))
    start = jax.random.normal(jax.random.key(0), shape, dtype)

    def step(_: Any, v: jax.Array) -> jax.Array:
        (v,) = transpose(op(v))
        return v / jnp.maximum(jnp.linalg.norm(v.reshape(-1)), jnp.finfo(dtype).tiny)

    v = lax.stop_gradient(step(0, start))
    v = lax.stop_gradient(lax.fori_loop(0, steps, step, v))
    return jnp.linalg.norm(op(v).reshape(-1))


# -- norms of products with weights


def matrix_norm(m: np.ndarray) -> float:
    """The largest singular value, rounded up; of the smaller Gram matrix in float64."""
    gram = m @ m.conj().T if m.shape[0] <= m.shape[1] else m.conj().T @ m
    return math.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)) * _SLACK if gram.size else 0.0


def dense_norm(eqn: Any, w: np.ndarray, position: int) -> float:
    """Of `dot_general` without batch axes, whose operand at `position` is known."""
    contracting, (bx, by) = eqn.params["dimension_numbers"]
    if bx or by:
        raise _Unknown("dot_general with batch axes")
    w, contracted = w.astype(np.float64), contracting[position]
    rest = [a for a in range(w.ndim) if a not in contracted]
    return matrix_norm(w.transpose([*contracted, *rest]).reshape(math.prod(w.shape[a] for a in contracted), -1))


def conv_norm(eqn: Any, w: np.ndarray) -> float:
    """Of a convolution with a known kernel and zero padding: exact as a matrix where that is small, else the smaller of two bounds.

    Both are of the convolution over an endless picture, of which any padding, cropping and subsampling picks rows and columns; the stride
    is taken care of by `polyphase`. One is `spectrum_bound`, the other `row_sum_bound`.
    """
    p, x, out = eqn.params, eqn.invars[0].aval, eqn.outvars[0].aval
    if p["batch_group_count"] != 1 or set(p["lhs_dilation"]) != {1}:
        raise _Unknown("conv_general_dilated with batch groups or a dilated input")
    inputs, outputs = math.prod(x.shape), math.prod(out.shape)
    if min(inputs, outputs) <= _MATRIX and inputs * outputs <= 1 << 24:
        eye = jnp.eye(inputs, dtype=x.dtype).reshape(inputs, *x.shape)
        full = dict(p, precision=lax.Precision.HIGHEST)
        columns = jax.vmap(lambda v: eqn.primitive.bind(v, jnp.asarray(w), **full))(eye)  # products with 1 and 0: exact
        return matrix_norm(np.asarray(columns, np.float64).reshape(inputs, outputs))
    o, i, *spatial = p["dimension_numbers"].rhs_spec
    groups = np.split(w.astype(np.float64).transpose(*spatial, i, o), p["feature_group_count"], axis=-1)
    found = []
    for kernel in groups:
        for axis, d in enumerate(p["rhs_dilation"]):
            kernel = _dilated(kernel, axis, d)
        phases = np.asarray(polyphase(kernel, tuple(p["window_strides"])))
        found.append(min(spectrum_bound(phases), row_sum_bound(phases)))
    return max(found)


def _dilated(kernel: np.ndarray, axis: int, d: int) -> np.ndarray:
    shape = list(kernel.shape)
    shape[axis] = (shape[axis] - 1) * d + 1
    wide = np.zeros(shape, kernel.dtype)
    wide[(slice(None),) * axis + (slice(None, None, d),)] = kernel
    return wide


def polyphase(kernel: Any, strides: tuple[int, ...]) -> Any:
    """The kernel [*K, C, O] as that of a convolution of stride 1 on pictures whose blocks of `strides` elements are channels:
    [*ceil(K / strides), prod(strides) * C, O]. Blocks begin where the windows do, so the padding does not matter."""
    n = len(strides)
    kernel = (jnp if isinstance(kernel, jax.Array) else np).pad(
        kernel, [(0, -k % s) for k, s in zip(kernel.shape[:n], strides, strict=True)] + [(0, 0)] * 2
    )
    split = [v for k, s in zip(kernel.shape[:n], strides, strict=True) for v in (k // s, s)]
    kernel = kernel.reshape(*split, *kernel.shape[n:])
    kernel = kernel.transpose(*range(0, 2 * n, 2), *range(1, 2 * n, 2), 2 * n, 2 * n + 1)
    return kernel.reshape(*kernel.shape[:n], -1, kernel.shape[-1])


def spectrum_bound(kernel: np.ndarray) -> float:
    """Of a convolution of stride 1 over an endless picture: the largest norm of its spectrum `sum_k W_k exp(i k w)` on a grid, made larger
    by what may be missed between the points.

    For unit u, v the function `|u* W(w) v|^2` is a trigonometric polynomial of degree K - 1 along each axis. Within t of a maximum M such
    a polynomial of degree N is at least `M cos(N t)` (M. Riesz), and the nearest of n points is within pi / n.
    """
    n_axes = kernel.ndim - 2
    sizes = [1 if k == 1 else _SAMPLES * (k - 1) for k in kernel.shape[:n_axes]]
    best = 0.0
    # one slice of the first axis at a time: the whole spectrum may not fit
    for point in range(sizes[0] // 2 + 1):  # the other half is conjugate
        turn = np.exp(2j * np.pi * point * np.arange(kernel.shape[0]) / sizes[0])
        part = np.tensordot(turn, kernel, 1)
        spectrum = np.fft.fftn(part, s=sizes[1:], axes=range(n_axes - 1)) if n_axes > 1 else part
        spectrum = spectrum.reshape(-1, *kernel.shape[n_axes:])
        turned = spectrum.conj().swapaxes(1, 2)
        gram = spectrum @ turned if kernel.shape[-2] <= kernel.shape[-1] else turned @ spectrum
        best = max(best, float(np.linalg.eigvalsh(gram)[:, -1].max()))
    between = math.prod(math.cos(math.pi * (k - 1) / n) for k, n in zip(kernel.shape[:n_axes], sizes, strict=True))
    return math.sqrt(max(best, 0.0) / between) * _SLACK


def row_sum_bound(kernel: np.ndarray) -> float:
    """Of the same: `norm^2 <= max_i (|G| v)_i / v_i` for any v > 0, with G the product of the operator and its transpose (Collatz and
    Wielandt), summed over shifts. v is sought by power iteration; at best it is as good as the scaling of an AOL layer, which is exact
    there."""
    small = np.minimum(row_sums(kernel, False), 1e300), np.minimum(row_sums(kernel, True), 1e300)
    best = math.inf
    for g in small:
        v = np.ones(len(g))
        for _ in range(100):
            w = g @ v
            best = min(best, float(np.max(w / v)))
            v = np.maximum(w / max(w.max(), 1e-300), 1e-9)
    return math.sqrt(best) * _SLACK


def row_sums(kernel: Any, outputs: bool) -> Any:
    """[n, n] `sum over shifts of |sum_k W_k W_{k + shift}^T|` between the inputs' channels, or the outputs', of a kernel [*K, C, O]."""
    xp = jnp if isinstance(kernel, jax.Array) else np
    n = kernel.ndim - 2
    flat = kernel.swapaxes(-1, -2) if outputs else kernel  # [*K, kept, summed]
    pads = [(k - 1, k - 1) for k in kernel.shape[:n]]
    wide = xp.pad(flat, [*pads, (0, 0), (0, 0)])
    shifts = list(np.ndindex(*(2 * k - 1 for k in kernel.shape[:n])))
    total: Any = 0.0
    for i, shift in enumerate(shifts[len(shifts) // 2 :]):
        part = wide[tuple(slice(s, s + k) for s, k in zip(shift, kernel.shape[:n], strict=True))]
        a, b = (v.swapaxes(-1, -2).reshape(-1, flat.shape[-2]) for v in (flat, part))
        size = xp.abs(a.T @ b)
        total = total + (size + size.T if i else size)  # the opposite shift's is the transpose
    return total


@jax.jit
def maxmin(x: jax.Array) -> jax.Array:
    """The larger and the smaller of every two channels: of the last axis, its first half paired with its second. Moves apart no two points.

    Source: Anil et al. 2019 (GroupSort with groups of 2); of an odd number of channels the last one is passed on.
    """
    n = x.shape[-1] // 2
    a, b = x[..., :n], x[..., n : 2 * n]
    rest = [x[..., 2 * n :]] if x.shape[-1] % 2 else []
    return jnp.concatenate([jnp.maximum(a, b), jnp.minimum(a, b), *rest], axis=-1)


# -- the walk


@dataclasses.dataclass(frozen=True)
class _Known:
    """An array that does not depend on the input; `leaf`: which parameter it is, up to its layout."""

    value: Any
    leaf: int | None = None


@dataclasses.dataclass(frozen=True)
class _Depends:
    constant: float


class _Unknown(Exception):
    pass


Norm = Callable[[Any, _Known, int], float]  # (product, its weights, which operand they are) -> its norm

_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "custom_jvp_call", "custom_vjp_call")
_LAYOUT = ("reshape", "transpose", "squeeze", "copy", "convert_element_type", "stop_gradient")
_ELEMENTWISE = ("add", "sub", "add_any", "mul", "div", "max", "min", "clamp")
# of constant 1, with one argument
_CONTRACTIONS = frozenset(
    "reshape transpose squeeze copy stop_gradient convert_element_type rev slice neg abs tanh sin cos reduce_max reduce_min pad".split()
)


def _walked(net: Net, x: Any, norm: Norm) -> Any:
    """The constant of the logits, by the program of one row; a known value where they do not depend on it."""
    row = jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), jnp.promote_types(jnp.result_type(x), jnp.float32))
    closed = jax.make_jaxpr(net.program.evaluate)(net.params, net.state, row)
    params = [_Known(leaf, i) for i, leaf in enumerate(jax.tree.leaves(net.params))]
    state = [_Known(leaf) for leaf in jax.tree.leaves(net.state)]
    with jax.numpy_rank_promotion("allow"):
        (out,) = _run(closed.jaxpr, [_Known(c) for c in closed.consts], [*params, *state, _Depends(1.0)], norm)
    return out


def _run(jaxpr: Any, consts: list[Any], args: list[Any], norm: Norm) -> list[Any]:
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return _Known(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, jex.Literal) else env[atom]  # pyright: ignore[reportAttributeAccessIssue]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _step(eqn, [read(a) for a in eqn.invars], norm), strict=True))
    return [read(a) for a in jaxpr.outvars]


def _step(eqn: Any, values: list[Any], norm: Norm) -> list[Any]:
    name = eqn.primitive.name
    moving = [v for v in values if isinstance(v, _Depends)]
    if not moving:
        leaf = values[0].leaf if name in _LAYOUT and len(values) == 1 else None
        return [_Known(v, leaf) for v in rebound(eqn, [jnp.asarray(v.value) for v in values])]
    inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
    if name in _CALLS and inner is not None:
        if _is_maxmin(eqn, inner):
            return [moving[0]]
        closed = inner if isinstance(inner, jex.ClosedJaxpr) else jex.ClosedJaxpr(inner, ())
        return _run(closed.jaxpr, [_Known(c) for c in closed.consts], values, norm)
    try:
        return [_Depends(_constant(eqn, name, values, norm))] * len(eqn.outvars)
    except _Unknown as e:
        raise ValueError(
            f"no Lipschitz constant is known for {e}; use dense layers, convolutions, ReLU, MaxMin, tanh, pooling, sums and layout changes."
        ) from None


def _constant(eqn: Any, name: str, values: list[Any], norm: Norm) -> float:
    """That of one operation's value, in terms of the input."""
    out: Any = eqn.outvars[0].aval
    if out.dtype not in (jnp.float32, jnp.float64):
        raise _Unknown(f"{name} with a value of dtype {out.dtype}")
    constants = [v.constant for v in values if isinstance(v, _Depends)]
    known = [i for i, v in enumerate(values) if isinstance(v, _Known)]
    if name in ("concatenate", "stack"):
        return math.hypot(*constants)
    if name in _ELEMENTWISE:
        return _elementwise(eqn, name, values, known)
    if name == "pad" and known == [1]:
        return constants[0]
    if name in ("dot_general", "conv_general_dilated"):
        if len(known) != 1 or (name != "dot_general" and known == [0]):
            raise _Unknown(f"{name} of two values that depend on the input")
        return constants[0] * norm(eqn, values[known[0]], known[0])
    if len(values) > 1:
        raise _Unknown(f"{name} of {len(values)} values")
    return constants[0] * _single(eqn, name)


def _elementwise(eqn: Any, name: str, values: list[Any], known: list[int]) -> float:
    # a single number may meet an array: it is then spread over it
    size = math.prod(eqn.outvars[0].aval.shape)
    constants = [
        v.constant * math.sqrt(size / math.prod(a.aval.shape)) for v, a in zip(values, eqn.invars, strict=True) if isinstance(v, _Depends)
    ]
    if name in ("add", "sub", "add_any"):
        return sum(constants)
    if name in ("max", "min"):
        return math.hypot(*constants)
    if name == "clamp" and known == [0, 2]:
        return constants[0]
    if len(constants) == 1 and (name == "mul" or (name == "div" and known == [1])):
        factor = np.abs(np.asarray(values[known[0]].value, np.float64))
        return constants[0] * (float(np.max(factor)) if name == "mul" else 1 / float(np.min(factor))) * _SLACK
    raise _Unknown(f"{name} by a value that depends on the input")


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
        return math.sqrt(max(sizes) / max(min(sizes), 1)) * _SLACK
    if name in ("reduce_window_max", "reduce_window_sum") and set(p["base_dilation"]) | set(p["window_dilation"]) == {1}:
        along = zip(p["window_dimensions"], p["window_strides"], eqn.outvars[0].aval.shape, strict=True)
        shared = math.prod(min(-(-w // s), n) for w, s, n in along)  # windows that an element is in
        return math.sqrt(shared * (math.prod(p["window_dimensions"]) if name.endswith("sum") else 1)) * _SLACK
    raise _Unknown(name)


def _is_maxmin(eqn: Any, inner: Any) -> bool:
    """The very program of `maxmin`: a call's name alone proves nothing."""
    if eqn.params.get("name") != "maxmin" or len(eqn.invars) != 1 or not isinstance(inner, jex.ClosedJaxpr):
        return False
    aval: Any = eqn.invars[0].aval
    reference = jax.make_jaxpr(maxmin)(jax.ShapeDtypeStruct(aval.shape, aval.dtype)).jaxpr.eqns[0].params["jaxpr"]
    return str(inner) == str(reference)
