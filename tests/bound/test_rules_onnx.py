"""The forms in which our ONNX importer writes activations, normalisations and pools are bounded, and known functions recognised in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper

import jaxsec.io
from jaxsec.bound._graph import trace
from jaxsec.bound._nodes import Curve, Product

from . import oracle

RNG = np.random.default_rng(0)
ROW, IMAGE = (4,), (2, 3, 3)
C, M = RNG.normal(size=2), RNG.normal(size=4)
ARRAYS = {
    "c": C, "d": C + 1, "v": C**2 + 0.5, "m": M, "p": np.full(4, 0.2), "s": RNG.normal(size=(4, 3)), "k": RNG.normal(size=(2, 2, 2, 2)),
    "half": np.array(0.5), "one": np.array(1.0), "root": np.array(2**0.5), "least": np.array(-0.5), "most": np.array(0.7),
    "three": np.array(3.0), "t": np.array(0.044715), "u": np.array((2 / np.pi) ** 0.5), "rows": np.array([1]),
}  # fmt: skip


def file_of(nodes, shape):
    """A model of rows [B, *shape]."""
    arrays = [numpy_helper.from_array(v.astype(np.int64 if v.dtype == int else np.float32), k) for k, v in ARRAYS.items()]
    used = {i for n in nodes for i in n.input}
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("B", *shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [a for a in arrays if a.name in used],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


def n(op, *inputs, out="y", **attributes):
    return helper.make_node(op, [*inputs], [out], **attributes)


# name -> (nodes, number of products left, the last curve)
ROWS = {
    "gelu": ([n("Gelu", "x")], 0, "gelu"), "gelu_tanh": ([n("Gelu", "x", approximate="tanh")], 0, "gelu_tanh"),
    "swish": ([n("Sigmoid", "x", out="g"), n("Mul", "x", "g")], 0, "silu"),
    "erf_gelu": ([n("Div", "x", "root", out="a"), n("Erf", "a", out="b"), n("Add", "b", "one", out="g"),
                  n("Mul", "x", "g", out="e"), n("Mul", "e", "half")], 0, "gelu"),
    "tanh_gelu": ([n("Pow", "x", "three", out="a"), n("Mul", "a", "t", out="b"), n("Add", "x", "b", out="e"), n("Mul", "e", "u", out="f"),
                   n("Tanh", "f", out="g"), n("Add", "g", "one", out="h"), n("Mul", "h", "half", out="i"), n("Mul", "i", "x")], 0, "gelu_tanh"),
    "elu": ([n("Elu", "x", alpha=0.7)], 0, "elu"), "selu": ([n("Selu", "x")], 0, "elu"), "celu": ([n("Celu", "x", alpha=1.5)], 0, "elu"),
    "softplus": ([n("Softplus", "x")], 0, "softplus"), "mish": ([n("Mish", "x")], 0, "mish"),
    "hard_swish": ([n("HardSwish", "x")], 0, "hard_silu"), "softsign": ([n("Softsign", "x")], 0, "soft_sign"),
    "leaky": ([n("LeakyRelu", "x", alpha=0.1)], 0, None), "prelu": ([n("PRelu", "x", "p")], 0, None),
    "hard_sigmoid": ([n("HardSigmoid", "x", alpha=0.25, beta=0.4)], 0, None), "clip": ([n("Clip", "x", "least", "most")], 0, None),
    "thresholded": ([n("ThresholdedRelu", "x", alpha=0.3)], 0, None), "softmax": ([n("Softmax", "x", axis=1)], 0, "reciprocal"),
    "log_softmax": ([n("LogSoftmax", "x", axis=1)], 0, "log1p"),
    "layer_norm": ([n("LayerNormalization", "x", "m", "p", axis=-1)], 1, "rsqrt"),
    "lp_norm": ([n("LpNormalization", "x", axis=1, p=2)], 1, "reciprocal"), "exp": ([n("Exp", "x", out="a"), n("Neg", "a")], 0, "exp"),
    "gemm": ([n("Gemm", "x", "s")], 0, None), "reduce_l2": ([n("ReduceL2", "x", "rows")], 0, "sqrt"),
    "lse": ([n("ReduceLogSumExp", "x", "rows")], 0, "log"), "power": ([n("Pow", "x", "three")], 0, "integer_pow"),
    "argmax": ([n("ArgMax", "x", axis=1, out="a"), n("Cast", "a", to=1)], 0, None),
    "where": ([n("Greater", "x", "half", out="a"), n("Where", "a", "x", "half")], 0, None), "sign": ([n("Sign", "x")], 0, None),
}  # fmt: skip
IMAGES = {
    "batch_norm": ([n("BatchNormalization", "x", "c", "d", "c", "v")], 0, None),
    "instance_norm": ([n("InstanceNormalization", "x", "c", "d")], 1, "rsqrt"),
    "max_pool": ([n("MaxPool", "x", kernel_shape=[2, 2], pads=[1, 0, 0, 1])], 0, None),
    "average_pool": ([n("AveragePool", "x", kernel_shape=[2, 2], pads=[1, 1, 1, 1])], 0, None),
    "global": ([n("GlobalAveragePool", "x")], 0, None), "global_max": ([n("GlobalMaxPool", "x")], 0, None),
    "lrn": ([n("LRN", "x", size=2)], 1, "pow"), "conv": ([n("Conv", "x", "k", pads=[0, 1, 1, 0])], 0, None),
    "conv_transpose": ([n("ConvTranspose", "x", "k", strides=[2, 2])], 0, None), "flatten": ([n("Flatten", "x")], 0, None),
}  # fmt: skip


@pytest.mark.parametrize(("table", "shape"), [(ROWS, ROW), (IMAGES, IMAGE)], ids=["rows", "images"])
def test_every_form(table, shape, tmp_path):
    fns = {}
    for name, (nodes, products, last) in table.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(file_of(nodes, shape))
        loaded = jaxsec.io.load(path, keep_softmax=True)
        fns[name] = lambda x, loaded=loaded: loaded.apply(loaded.params, x[None])[0]
        graph = trace(fns[name], jax.ShapeDtypeStruct(shape, jnp.float32))
        found = [graph.nodes[i] for i in graph.ancestors(graph.outputs[0].index)]
        assert sum(isinstance(v, Product) for v in found) == products, name
        curves = [v.unary.name for v in found if isinstance(v, Curve)]
        assert (curves[0] if curves else None) == last, f"{name}: {curves}"
    centre = RNG.normal(size=shape)
    plain = "gemm conv conv_transpose average_pool global flatten batch_norm exp power sign argmax softplus mish".split()
    fns = {k: f for k, f in fns.items() if k not in plain}
    oracle.check(fns, (centre - 0.4, centre + 0.4), run=oracle.compiled(fns), dtype=np.float32)
