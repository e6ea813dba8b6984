"""Products that are one curve: gelu, silu, mish and hard_silu in all their spellings, recognised as x times a gate of x.

With gate(x) = a S(k x) and S one of the sigmoid curves, `p x a S(k x)` is `(p a / k) f(k x)` for the curve f(u) = u S(u), so that
neither the constants nor the order of multiplication matter. Bounded as a product of two ranges instead, x and its gate would forget
that they rise together.
"""

import math

from ._build import curve, erring, rewritten, scaled, size
from ._graph import Graph, Ref, scalar
from ._nodes import Curve, Kink, Scale, Sum
from ._patterns import curve_of, multiple

_TANH = math.sqrt(2 / math.pi)
_CUBIC = 0.044715
# Constants that are rounded to the program's precision are the constants.
_CLOSE = 1e-6
# The curves that a program may make each gate of.
_PROGRAMS = {"silu": ("logistic", "tanh"), "gelu": ("erf", "erfc"), "gelu_tanh": ("tanh",), "mish": ("softplus", "tanh"), "hard_silu": ()}


def gated(graph: Graph, x: Ref, y: Ref) -> Ref | None:
    """The node of `x * y` where one is a gate of the other."""
    for plain, gate in ((x, y), (y, x)):
        for arm, share in _gates(graph, gate):
            if (found := _fused(graph, plain, arm, share)) is not None:
                return _rounded(graph, found, plain, abs(share), _PROGRAMS[arm[0]])
    return None


def _rounded(graph: Graph, found: Ref, plain: Ref, share: float, names: tuple[str, ...]) -> Ref:
    """The gate as the program computes it may err by as much as its largest value does."""
    return rewritten(graph, found, (plain,), lambda own, r: share * size(r) * erring(own[0].dtype, *names))


def _gates(graph: Graph, gate: Ref) -> list[tuple[tuple[str, float, Ref], float]]:
    """[((curve, factor, argument), share)]: gate = share * S(factor * argument), S from 0 to 1."""
    scale, bias, inner = multiple(graph, gate)
    a, b = scalar(scale), scalar(bias)
    node = graph.node(inner)
    if a is None or b is None:
        return []
    if (clipped := _clipped(graph, a, b, inner)) is not None:
        return [clipped]
    if not isinstance(node, Curve):
        return []
    name, argument = node.unary.name, Ref(node.inputs[0])
    if name == "logistic" and b == 0:
        return [(("silu", 1.0, argument), a)]
    if name == "erfc" and b == 0:  # erfc(v) / 2 is the normal distribution function of -sqrt(2) v
        return [(("gelu", -math.sqrt(2), argument), 2 * a)]
    if name == "erf" and abs(a) == b:
        return [(("gelu", math.copysign(math.sqrt(2), a), argument), 2 * b)]
    if name == "tanh" and abs(a) == b:
        sign = math.copysign(1, a)
        return [(("gelu_tanh", sign, argument), 2 * b), (("silu", 2 * sign, argument), 2 * b)]
    if name == "tanh" and b == 0 and (source := curve_of(graph, argument, "softplus")) is not None:
        return [(("mish", 1.0, source), a)]
    return []


def _clipped(graph: Graph, a: float, b: float, inner: Ref) -> tuple[tuple[str, float, Ref], float] | None:
    """Of `a' clip(k x + c / 2, 0, c)`, which is written as `a' (c - max(c - max(k x + c / 2, 0), 0))`."""
    top = _rectified(graph, inner)
    bottom = None if top is None or top[0] != -1 or a * top[1] != -b else _rectified(graph, top[2])
    if top is None or bottom is None or bottom[1] * 2 != top[1]:
        return None
    return ("hard_silu", 6 * bottom[0] / top[1], bottom[2]), -a * top[1]


def _rectified(graph: Graph, ref: Ref) -> tuple[float, float, Ref] | None:
    """(k, b, x) with ref = max(k x + b, 0)."""
    node = graph.node(ref)
    if not isinstance(node, Kink) or scalar(node.neg) != 0 or scalar(node.pos) != 1:
        return None
    k, b, x = multiple(graph, Ref(node.inputs[0]))
    k, b = scalar(k), scalar(b)
    return None if k is None or b is None else (k, b, x)


def _fused(graph: Graph, plain: Ref, arm: tuple[str, float, Ref], share: float) -> Ref | None:
    name, factor, argument = arm
    for base, p in _chain(graph, plain):
        k = _cubic(graph, argument, base) if name == "gelu_tanh" else _ratio(graph, argument, base)
        if k is None:
            continue
        k *= factor
        k = 1.0 if abs(k - 1) < _CLOSE else k
        if k == 0 or (name == "mish" and k != 1):
            return None
        return scaled(graph, curve(graph, scaled(graph, base, k), name), p * share / k)
    return None


def _chain(graph: Graph, ref: Ref) -> list[tuple[Ref, float]]:
    """[(base, p)] with ref = p * base: the node itself, and what it is a plain multiple of."""
    found, p = [(ref, 1.0)], 1.0
    while isinstance(node := graph.node(ref), Scale) and node.bias is None and (s := scalar(node.scale)) is not None:
        p, ref = p * s, Ref(node.inputs[0])
        found.append((ref, p))
    return found


def _ratio(graph: Graph, ref: Ref, base: Ref) -> float | None:
    """k with ref = k * base."""
    return next((p for other, p in _chain(graph, ref) if other == base), None)


def _cubic(graph: Graph, ref: Ref, base: Ref) -> float | None:
    """k with ref = sqrt(2 / pi) * (u + 0.044715 u^3), u = k * base."""
    for node_ref, c in _chain(graph, ref):
        node = graph.node(node_ref)
        if isinstance(node, Sum) and node.sign > 0:
            for one, three in (node.inputs, node.inputs[::-1]):
                linear = _ratio(graph, Ref(one), base)
                cube = next((p * q for other, p in _chain(graph, Ref(three)) if (q := _cube(graph, other, base)) is not None), None)
                if linear is not None and cube is not None:
                    k = c * linear / _TANH
                    return k if abs(c * cube - _TANH * _CUBIC * k**3) <= _CLOSE * abs(c * cube) else None
    return None


def _cube(graph: Graph, ref: Ref, base: Ref) -> float | None:
    """q with ref = q * base^3."""
    source = curve_of(graph, ref, "integer_pow 3")
    k = None if source is None else _ratio(graph, source, base)
    return None if k is None else k**3


def monomial(graph: Graph, x: Ref, y: Ref) -> tuple[float, Ref, int] | None:
    """(c, base, n) with x * y = c * base^n, where both are multiples of powers of one value."""
    for base, p, m in _powers(graph, x):
        for other, q, n in _powers(graph, y):
            if base == other:
                return p * q, base, m + n
    return None


def _powers(graph: Graph, ref: Ref) -> list[tuple[Ref, float, int]]:
    """[(base, c, n)] with ref = c * base^n."""
    found = []
    for base, c in _chain(graph, ref):
        found.append((base, c, 1))
        node = graph.node(base)
        if isinstance(node, Curve) and node.unary.name in ("square", "integer_pow") and (n := int(node.unary.parameter or 2)) > 0:
            found += [(b, c * q**n, n) for b, q in _chain(graph, Ref(node.inputs[0]))]
    return found


def softplus_of(graph: Graph, name: str, x: Ref) -> Ref | None:
    """v, where `log(x)` or `log1p(x)` is log(1 + exp(v))."""
    scale, bias, inner = multiple(graph, x)
    if scalar(scale) != 1 or scalar(bias) != (1 if name == "log" else 0):
        return None
    return curve_of(graph, inner, "exp")
