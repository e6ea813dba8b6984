"""From the file's graph to a `Program`: shapes made static, constants folded, weights named, every op tried once without computing.

The pass runs the op table under `jax.eval_shape`. What depends on shapes only (the Shape-Gather-Concat-Reshape arithmetic that exporters
write for a free batch) is a known array there and disappears, so a traced program holds the network and nothing else.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from ._onnx_program import TABLE, Step, call
from ._onnx_read import Graph, Node
from ._onnx_tensor import Tensor, constant, rows_of

# Known inputs of these ops are computed while loading, by onnx's own NumPy reference. An explicit list: a file must not choose what runs
# (Loop, If, random ops and the like are refused by name).
FOLDABLE = frozenset(
    "Abs Add And Cast CastLike Ceil Clip Concat ConstantOfShape CumSum Div Equal Exp Expand Flatten Floor Gather "
    "GatherElements GatherND Greater GreaterOrEqual Identity Less LessOrEqual Log Max Mean Min Mod Mul Neg NonZero Not OneHot "
    "Or Pow Range Reciprocal ReduceMax ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements ScatterND Shape Sign Size "
    "Slice Split Sqrt Squeeze Sub Sum Tile Transpose Trilu Unsqueeze Where Xor".split()
)
_LARGEST = 2**26  # entries of one folded array: a damaged or hostile shape must not eat the memory


@dataclasses.dataclass
class Folded:
    """What the pass found: steps, the number and graph shape of every value, and the weights in order of first use."""

    steps: list[Step]
    shapes: dict[int, tuple[int, ...]]
    params: dict[str, int]
    input: int
    output: int


def fold(graph: Graph, source: str, output: str, shape: tuple[int, ...], exported: int, floating: bool) -> Folded:
    """Evaluates the graph for inputs of graph shape `shape`; `exported` is the batch size the file was written with."""
    nodes = needed(graph.nodes, output)
    weights = {k: v for k, v in graph.arrays.items() if v.dtype.kind == "f" and k not in graph.literals}
    known = {k: v for k, v in graph.arrays.items() if k not in weights}
    numbers: dict[str, int] = {}
    steps: list[Step] = []
    shapes: dict[int, tuple[int, ...]] = {}

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers))

    def run(params: dict[str, Any], x: Any) -> Any:
        env: dict[str, Any] = {**known, **{k: constant(v) for k, v in params.items()}, source: rows_of(x, shape)}
        for node in nodes:
            missing = [i for i in node.inputs if i and i not in env]
            if missing:
                raise ValueError(f"node {node.name or node.op!r} reads {missing}, which nothing in the file provides; the file is damaged.")
            args = [env[i] if i else None for i in node.inputs]
            opset = graph.opsets.get(node.domain, 1)
            try:
                results = _host(node, args, graph.opsets)
            except (IndexError, TypeError, OverflowError) as error:
                raise ValueError(f"node {node.name or node.op!r} ({node.op}) has missing or impossible inputs: {error}") from None
            if results is not None:
                env.update(zip(node.outputs, results, strict=False))
                continue
            entry = TABLE.get((node.domain, node.op))
            for i in entry.static if entry else ():
                if i < len(args) and isinstance(args[i], Tensor) and node.inputs[i] in weights:
                    args[i] = weights[node.inputs[i]]
            attrs = {**node.attrs, "jaxsec_batch": exported} if exported > 1 and node.op in ("Reshape", "Expand") else node.attrs
            wired = tuple(number(i) if isinstance(a, Tensor) else a for i, a in zip(node.inputs, args, strict=True))
            outputs = node.outputs[: max((i + 1 for i, o in enumerate(node.outputs) if o), default=0)]
            step = Step(node.op, node.domain, opset, node.name, wired, tuple(number(o) for o in outputs), attrs)
            values = call(step, args)
            for name, value in zip(outputs, values, strict=False):
                env[name] = value
                shapes[number(name)] = value.shape
            steps.append(step)
        if not isinstance(env.get(output), Tensor) or not env[output].rows:
            raise ValueError(f"the output {output!r} does not depend on the input {source!r}; choose another with output=...")
        return env[output].data

    abstract = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
    row = shape if exported == 0 else shape[1:]
    number(source)
    jax.eval_shape(run, abstract, jax.ShapeDtypeStruct((2, *row), np.float32 if floating else np.int32))
    shapes.setdefault(numbers[source], shape)
    params = {name: n for name, n in numbers.items() if name in weights}
    return Folded(steps, shapes, params, numbers[source], numbers[output])


def needed(nodes: list[Node], output: str) -> list[Node]:
    """The nodes that `output` depends on, in order; output names that nobody reads are blanked."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if any(o in wanted for o in node.outputs):
            kept.append(dataclasses.replace(node, outputs=[o if o in wanted else "" for o in node.outputs]))
            wanted.update(node.inputs)
    return kept[::-1]


def _host(node: Node, args: list[Any], opsets: dict[str, int]) -> list[np.ndarray] | None:
    """The node's results as known arrays, or None if they depend on input or weights."""
    if node.domain:
        return None
    if node.op in ("Shape", "Size") and isinstance(args[0], Tensor):
        dims = args[0].shape
        part = dims[node.attrs.get("start", 0) : node.attrs.get("end", len(dims))]
        return [np.array(part if node.op == "Shape" else math.prod(dims), np.int64)]
    if node.op not in FOLDABLE or any(isinstance(a, Tensor) for a in args) or not args:
        return None
    if node.op in ("ConstantOfShape", "Expand", "Tile", "Range"):
        size = float(np.prod(np.maximum(np.abs(np.asarray(args[-1], np.float64)), 1)))
        if node.op == "Range":
            size = abs(float(args[1]) - float(args[0])) / max(abs(float(args[2])), 1e-9)
        if size * (args[0].size if node.op == "Tile" else 1) > _LARGEST:
            raise ValueError(
                f"node {node.name or node.op!r} would make an array of about {size:.3g} entries; the file is damaged or hostile."
            )
    return _reference(node, args, opsets)


def _reference(node: Node, args: list[Any], opsets: dict[str, int]) -> list[np.ndarray]:
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [f"i{k}" if a is not None else "" for k, a in enumerate(args)]
    outputs = [f"o{k}" for k, _ in enumerate(node.outputs)]
    attrs: dict[str, Any] = {k: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in node.attrs.items()}
    single = helper.make_node(node.op, names, outputs, **attrs)
    anything = [helper.make_tensor_value_info(o, onnx.TensorProto.UNDEFINED, None) for o in outputs]
    graph = helper.make_graph([single], "folded", [helper.make_tensor_value_info(n, 0, None) for n in names if n], anything)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opsets.get("", 1))])
    try:
        results = ReferenceEvaluator(model).run(None, {n: a for n, a in zip(names, args, strict=True) if n})
    except Exception as error:  # NumPy faults of any kind: what counts is which node of the file caused them
        raise ValueError(f"node {node.name or node.op!r} ({node.op}) cannot be computed from its constants: {error}") from None
    return [np.asarray(r) for r in results]
