"""`new_network`: an untrained classifier of a usual shape as an ONNX file, for who brings data and no network."""

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np

from ._onnx_save import _write

NETWORKS = {
    "linear": "one dense layer",
    "mlp": "256 - 256, ReLU",
    "cnn": "images: conv 16, conv 32 (4x4, stride 2), dense 100, ReLU; small and fast, and the one that bounds certify best",
    "cnn-large": "images: conv 32, 32, pool, 64, 64, pool (3x3), dense 200, ReLU; more accurate, about ten times the work",
}


def new_network(kind: str, shape: tuple[int, ...], classes: int, path: str | os.PathLike[str], *, seed: int, layout: str = "NCHW") -> None:
    """Writes an ONNX file with random weights (He et al. 2015) that takes rows of `shape` and gives `classes` logits.

    Args: kind: one of `NETWORKS`. shape: one row's, without batch axis. layout: NCHW or NHWC, of image rows. seed: of the weights.
    Raises: ValueError: another kind, or rows that are no images of at least 8x8 for a convolutional one.
    """
    from onnx import TensorProto, helper

    if kind not in NETWORKS:
        raise ValueError(f"the network is {kind!r}; allowed: {', '.join(NETWORKS)}.")
    images = len(shape) == 3
    c, h, w = (shape if layout == "NCHW" else (shape[2], *shape[:2])) if images else (0, 0, 0)
    if kind.startswith("cnn") and (not images or min(h, w) < 8):
        raise ValueError(f"the network {kind!r} needs images of at least 8x8, and a row has the shape {tuple(shape)}; take mlp.")
    graph = _Graph(np.random.default_rng(seed))
    if kind.startswith("cnn"):
        if layout == "NHWC":
            graph.node("Transpose", perm=[0, 3, 1, 2])
        c, h, w = graph.small(c, h, w) if kind == "cnn" else graph.large(c, h, w)
        graph.node("Flatten")
        widths = [c * h * w, 100 if kind == "cnn" else 200, classes]
    else:
        if len(shape) > 1:
            graph.node("Flatten")
        widths = [int(np.prod(shape)), *([256, 256] if kind == "mlp" else []), classes]
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        graph.weighted("Gemm", (n_out, n_in), n_in, transB=1)
        if i + 2 < len(widths):
            graph.node("Relu")
    graph.nodes[-1].output[0] = "logits"
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])]
    out = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, kind, ends, out, graph.weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="jaxsec",
    )
    _write(model.SerializeToString(), Path(path))


class _Graph:
    """A chain of nodes that grows at its end."""

    def __init__(self, random: np.random.Generator):
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random, self._last = random, "x"

    def node(self, op: str, *weights: str, **attributes: Any) -> None:
        from onnx import helper

        out = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self._last, *weights], [out], name=out, **attributes))
        self._last = out

    def weighted(self, op: str, shape: tuple[int, ...], fan_in: int, **attributes: Any) -> None:
        from onnx import numpy_helper

        name = f"layer{len(self.weights) // 2}"
        kernel = self._random.normal(size=shape) * np.sqrt(2 / fan_in)
        for part, value in (("weight", kernel), ("bias", np.zeros(shape[0]))):
            self.weights.append(numpy_helper.from_array(value.astype(np.float32), f"{name}.{part}"))
        self.node(op, f"{name}.weight", f"{name}.bias", **attributes)

    def small(self, c: int, h: int, w: int) -> tuple[int, int, int]:
        for out in (16, 32):
            self.weighted("Conv", (out, c, 4, 4), c * 16, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
            self.node("Relu")
            c, h, w = out, h // 2, w // 2
        return c, h, w

    def large(self, c: int, h: int, w: int) -> tuple[int, int, int]:
        for out in (32, 64):
            for _ in range(2):
                self.weighted("Conv", (out, c, 3, 3), c * 9, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
                self.node("Relu")
                c = out
            self.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            h, w = h // 2, w // 2
        return c, h, w
