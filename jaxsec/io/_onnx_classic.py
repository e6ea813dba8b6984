"""What is special about scikit-learn's exports: weights in attributes, and labels and probabilities side by side as outputs."""

import dataclasses

import numpy as np

from ._onnx_ops_ml import ML
from ._onnx_read import Graph, Node, Port


def lifted(graph: Graph) -> Graph:
    """The graph with the coefficients of `ai.onnx.ml` nodes turned into arrays, so that they become parameters like any weight."""
    arrays, nodes = dict(graph.arrays), []
    for i, node in enumerate(graph.nodes):
        if node.domain == ML and node.op in ("Scaler", "LinearClassifier", "LinearRegressor"):
            node = _scaler(node, arrays, i) if node.op == "Scaler" else _linear(node, arrays, i)
        nodes.append(node)
    return dataclasses.replace(graph, nodes=nodes, arrays=arrays)


def _scaler(node: Node, arrays: dict[str, np.ndarray], i: int) -> Node:
    names = [f"{node.name or f'Scaler{i}'}.{part}" for part in ("offset", "scale")]
    for name, part, default in zip(names, ("offset", "scale"), (0.0, 1.0), strict=True):
        arrays[name] = np.asarray(node.attrs.get(part, [default]), np.float32)
    return dataclasses.replace(node, inputs=[node.inputs[0], *names], attrs={})


def _linear(node: Node, arrays: dict[str, np.ndarray], i: int) -> Node:
    flat = np.asarray(node.attrs.get("coefficients", ()), np.float32)
    bias = np.asarray(node.attrs.get("intercepts", ()), np.float32)
    labels = node.attrs.get("classlabels_ints") or node.attrs.get("classlabels_strings") or ()
    rows = bias.size or int(node.attrs.get("targets", len(labels) or 1))
    if not flat.size or flat.size % rows:
        raise ValueError(f"{node.op} {node.name!r} has {flat.size} coefficients for {rows} outputs; the file is damaged.")
    weight = flat.reshape(rows, -1)
    bias = bias if bias.size else np.zeros(rows, np.float32)
    if node.op == "LinearClassifier" and rows == 1 and len(labels) == 2:
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
    names = [f"{node.name or f'{node.op}{i}'}.{part}" for part in ("coefficients", "intercepts")]
    arrays[names[0]], arrays[names[1]] = np.ascontiguousarray(weight.T), bias
    attrs = {"post_transform": node.attrs.get("post_transform", "NONE")}
    if len(bias) == 2:
        attrs["jaxsec_complementary"] = bool(np.array_equal(weight[0], -weight[1]) and bias[0] == -bias[1])
    outputs = node.outputs[1:] if node.op == "LinearClassifier" else node.outputs
    return dataclasses.replace(node, inputs=[node.inputs[0], *names], outputs=outputs, attrs=attrs)


def choose_output(graph: Graph, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """The name of the scores among the graph's outputs, and sentences for the report.

    Labels (integers, strings) are no scores; a ZipMap (probabilities as dictionaries) stands for the tensor it reads.
    """
    names = [p.name for p in graph.outputs]
    if wanted is not None and wanted not in names:
        raise ValueError(f"output is {wanted!r}; the file has {names}.")
    producers = {o: node for node in graph.nodes for o in node.outputs}
    scores = [p for p in graph.outputs if p.name == wanted or (wanted is None and _is_score(p, producers))]
    if not scores:
        raise ValueError(f"the outputs {names} are labels, without scores or probabilities; export the model with its probabilities.")
    if len(scores) > 1:
        raise ValueError(f"the file has several outputs that may be the scores: {[p.name for p in scores]}; choose one with output=...")
    name = scores[0].name
    notes = () if len(names) == 1 else (f"of the outputs {names} the model returns {name!r}",)
    zipped = producers.get(name)
    if zipped is not None and zipped.op == "ZipMap" and zipped.domain == ML:
        labels = tuple(zipped.attrs.get("classlabels_int64s") or zipped.attrs.get("classlabels_strings") or ())
        if labels and labels != tuple(range(len(labels))):
            notes = (*notes, f"class k of the model is label {list(labels)}[k] of the file")
        name = zipped.inputs[0]
    return name, notes


def _is_score(port: Port, producers: dict[str, Node]) -> bool:
    if port.kind == "seq":
        node = producers.get(port.name)
        return node is not None and node.op == "ZipMap"
    return port.kind == "f"
