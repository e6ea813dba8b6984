"""A traced function as a graph of nodes: what depends on the input becomes nodes, everything else stays plain arrays.

Built anew inside every trace from parameters that may be tracers, so bounds are ordinary JAX programs of the weights.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex

from ..core._walk import rebound
from ._nodes import Input, Node, Range


@dataclasses.dataclass(frozen=True)
class Ref:
    """A value that depends on the input: the node's index."""

    index: int


Value = Any  # Ref, or a known array


class UnsupportedPrimitive(NotImplementedError):
    """An operation that no rule bounds; the message names it and the line of the user's program it comes from."""


class Graph:
    """Nodes in the order of evaluation, and the values that the function returns."""

    def __init__(self, native: bool = False, rows: int = 1) -> None:
        self.native = native  # convolutions by compiled code
        self.rows = rows  # of a batch whose values lie side by side; what is chosen is chosen by one row, the same for every batch
        self.nodes: list[Node] = []
        self.outputs: list[Value] = []
        self.out_tree: Any = None
        self.source = ""
        self.comparisons: dict[int, tuple[str, Value, Value]] = {}  # a truth value's own comparison
        self.made: dict[Any, Any] = {}  # what need not be made twice, by what it is
        self.maxima: dict[int, tuple[int, tuple[int, ...], np.ndarray]] = {}  # what is reduced, its axes, which maximum stands where
        self.finite: dict[int, Ref] = {}  # of a truth value whether something is finite: what
        self.apart: dict[int, int] = {}  # of a log-softmax along the last axis its logits: what differs between two elements is the same
        self.shares: dict[int, tuple[int, ...]] = {}  # a softmax's axes, along which it sums to 1

    def of_row(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What a value's shape is in the graph of one row."""
        return (1, *shape[1:]) if self.rows > 1 else shape

    def add(self, node: Node) -> Ref:
        node.source = node.source or self.source
        if hasattr(node, "input_shapes"):
            node.input_shapes = [self.nodes[i].shape for i in node.inputs]  # pyright: ignore[reportAttributeAccessIssue]
        self.nodes.append(node)
        return Ref(len(self.nodes) - 1)

    def once(self, key: Any, make: Callable[[], Ref]) -> Ref:
        """The node of that description: the one there is, or a new one."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def hinted(self, ref: Ref, inputs: tuple[Ref, ...], interval: Callable[..., Range], *, tight: bool = False) -> Ref:
        """The node, with a second interval that is computed from earlier nodes; tight: its own is no better."""
        assert all(r.index < ref.index for r in inputs)
        node = self.nodes[ref.index]
        node.hint, node.tight = (tuple(r.index for r in inputs), interval), tight
        return ref

    def node(self, ref: Ref) -> Node:
        return self.nodes[ref.index]

    def consumers(self) -> list[list[int]]:
        """For every node the nodes that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for i in dict.fromkeys(node.inputs):
                found[i].append(index)
        return found

    def ancestors(self, index: int) -> list[int]:
        """The node and all it is made of, latest first."""
        wanted = {index}
        for i in range(index, -1, -1):
            if i in wanted:
                wanted.update(self.nodes[i].inputs)
        return sorted(wanted, reverse=True)


Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers `rule(graph, eqn, *values) -> value or list of values` for primitives."""

    def register(fn: Rule) -> Rule:
        for name in names:
            RULES[name] = fn
        return fn

    return register


def trace(fn: Callable[..., Any], *args: Any, native: bool = False, rows: int = 1) -> Graph:
    """The graph of `fn(*args)` with every array of every argument perturbed.

    What `fn` holds besides (weights) stays known. `args` may be arrays or `jax.ShapeDtypeStruct`.
    rows: of the batch that the arguments are.
    Guarantee: every node is what the program computes in exact arithmetic; where a known function was recognised (softmax, gelu, a
      normalisation) its nodes are another way to write the same function. An operation that feeds no output is not looked at.
    Raises: UnsupportedPrimitive: an operation without a rule, on a value that depends on the input. TypeError: an input that is not
      float32 or float64.
    """

    from ._rules import RULES as table  # filled by files that import this one

    assert table is RULES
    leaves, tree = jax.tree.flatten(args)
    shapes = [jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in leaves]
    for s in shapes:
        if s.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(
                f"an input of dtype {s.dtype}: only float32 and float64 inputs can be perturbed. Convert it before it is bounded; of "
                "narrower types the bounds' own rounding would be as large as the bounds."
            )
    closed, out = jax.make_jaxpr(lambda *ls: fn(*jax.tree.unflatten(tree, ls)), return_shape=True)(*shapes)
    graph = Graph(native, rows)
    refs: list[Value] = []
    for position, s in enumerate(shapes):
        refs.append(graph.add(Input(inputs=(), shape=tuple(s.shape), dtype=s.dtype, position=position)))
    graph.outputs = evaluate(graph, closed.jaxpr, list(closed.consts), refs)
    graph.out_tree = jax.tree.structure(out)
    return graph


def evaluate(graph: Graph, jaxpr: jex.Jaxpr, consts: list[Any], args: list[Value]) -> list[Value]:
    """Runs a program on known arrays and refs."""
    env: dict[Any, Value] = {}

    def read(atom: Any) -> Value:
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, jex.Literal) else env[atom]  # pyright: ignore[reportAttributeAccessIssue]

    for var, const in zip(jaxpr.constvars, consts, strict=True):  # JAX keeps a NumPy array as it is, float64 or not
        env[var] = const.astype(var.aval.dtype) if isinstance(const, np.ndarray | np.generic) else const  # pyright: ignore[reportAttributeAccessIssue]
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn, wanted in zip(jaxpr.eqns, _wanted(jaxpr), strict=True):
        if wanted:
            values = [read(atom) for atom in eqn.invars]
            env.update(zip(eqn.outvars, _apply(graph, eqn, values), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _wanted(jaxpr: jex.Jaxpr) -> list[bool]:
    """Which equations an output is made of."""
    live = {atom for atom in jaxpr.outvars if not isinstance(atom, jex.Literal)}
    found = []
    for eqn in reversed(jaxpr.eqns):
        found.append(any(v in live for v in eqn.outvars))
        if found[-1]:
            live.update(atom for atom in eqn.invars if not isinstance(atom, jex.Literal))
    return found[::-1]


def _apply(graph: Graph, eqn: Any, values: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    if not any(isinstance(v, Ref) for v in values):
        # a call on traced and concrete values is entered: what is concrete inside may count a loop
        mixed = len({isinstance(v, Tracer) for v in values}) == 2
        return RULES[name](graph, eqn, *values) if mixed and name in ("jit", "pjit") else known(eqn, values)
    handler = RULES.get(name)
    outer, graph.source = graph.source, source_line(eqn) or graph.source
    try:
        if handler is None:
            raise UnsupportedPrimitive(
                f"no rule bounds the operation {name!r} ({_shown(eqn)}), used at {graph.source or 'an unknown line'}. Write it with "
                f"operations that have one (`from jaxsec.bound import primitives` lists them), or move it out of what is certified."
            )
        key = _key(eqn, values)
        out = graph.made.get(key) if key is not None else None
        if out is None:
            out = handler(graph, eqn, *values)
            out = list(out) if isinstance(out, list | tuple) else [out]
            if key is not None:
                graph.made[key] = out
    finally:
        graph.source = outer
    return out


def _key(eqn: Any, values: list[Value]) -> Any:
    """The same for equations that compute the same: of values that depend on the input, and single numbers."""
    if any(isinstance(p, jex.Jaxpr | jex.ClosedJaxpr) for p in eqn.params.values()) or eqn.effects:
        return None
    known = [v if isinstance(v, Ref) else (np.shape(v), scalar(v)) for v in values]
    if any(isinstance(v, tuple) and v[1] is None for v in known):
        return None
    return (eqn.primitive.name, tuple(known), str(eqn.params))


def known(eqn: Any, values: list[Any]) -> list[Any]:
    """The equation on known arrays; what is concrete stays concrete, so that loops with literal counts can be unrolled under jit."""
    return steady(lambda *vs: rebound(eqn, [jnp.asarray(v) for v in vs]), *values)


def steady(fn: Callable[..., Any], *values: Any) -> Any:
    """`fn(*values)` of known arrays; concrete, even inside a trace, where they are. (There `jnp.asarray` of a number is a tracer.)"""
    if any(isinstance(v, Tracer) for v in values):
        return fn(*values)
    with jax.ensure_compile_time_eval():
        return fn(*values)


def concrete(value: Value) -> np.ndarray | None:
    """The number behind a value, where it does not depend on the input nor on anything traced."""
    return None if isinstance(value, Ref | Tracer) else np.asarray(value)


def scalar(value: Value) -> float | None:
    """The one number that a known value is, however often it is repeated; None where it is no such thing."""
    array = None if value is None or isinstance(value, Ref) else concrete(value)
    if array is None or array.size == 0 or array.dtype == bool or (array != array.flat[0]).any():
        return None
    return float(array.flat[0])


_HIDDEN = tuple(os.path.dirname(os.path.abspath(m)) + os.sep for m in (jax.__file__, __file__))
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


def source_line(eqn: Any) -> str:
    """`file:line` of the user's program: the innermost line outside of JAX, and of installed libraries (flax) if there is one."""
    traceback = getattr(eqn.source_info, "traceback", None)
    if traceback is None:
        return ""
    frames = [f for f in traceback.frames if not f.file_name.startswith((*_HIDDEN, "<")) and f"{os.sep}jaxlib{os.sep}" not in f.file_name]
    own = [f for f in frames if not any(part in f.file_name for part in _INSTALLED)]
    return next((f"{f.file_name}:{f.line_num}" for f in (*own[:1], *frames)), "")


def _shown(eqn: Any) -> str:
    shapes = ", ".join(f"{a.aval.dtype}{list(a.aval.shape)}" for a in eqn.invars if hasattr(a.aval, "shape"))
    return f"on {shapes}"
