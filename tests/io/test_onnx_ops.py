"""Every op of the table against onnxruntime: many ops as branches of one graph, so that one compilation judges them all."""

import ast
import pathlib

import jax
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_kit import RNG, model_of, relative, run_all, write

import jaxsec.io
from jaxsec.io._onnx_program import TABLE


def bundle(tmp_path, branches, shape, arrays, opset):
    """A graph whose branches `(label, nodes, last value)` are flattened and concatenated; returns the error of each branch."""
    nodes, parts = [], []
    for i, (_, inner, last) in enumerate(branches):
        nodes += [
            *inner,
            helper.make_node("Cast", [last], [f"cast_{i}"], to=1),
            helper.make_node("Reshape", [f"cast_{i}", "flat"], [f"part_{i}"]),
        ]
        parts.append(f"part_{i}")
    nodes.append(helper.make_node("Concat", parts, ["y"], axis=1))
    arrays = {**arrays, "flat": np.array([1, -1])}
    model = model_of(nodes, (1, *shape), (1, None), arrays, opset)
    # One output per branch for onnxruntime, to know where each branch starts.
    for p in parts:
        model.graph.output.append(helper.make_tensor_value_info(p, 1, (1, None)))
    path = write(tmp_path / "bundle.onnx", model)
    x = RNG.uniform(-2, 2, (3, *shape)).astype(np.float32)
    loaded = jaxsec.io.load(path, output="y", keep_softmax=True)
    got = np.asarray(jax.jit(loaded.apply)(loaded.params, x))
    errors, start = {}, 0
    for (label, _, _), want in zip(branches, run_all(path, x)[1:], strict=True):
        errors[label] = relative(got[:, start : start + want.shape[1]], want)
        start += want.shape[1]
    assert start == got.shape[1]
    return errors


def node(op, inputs, out, **attrs):
    return helper.make_node(op, inputs, [out], **attrs)


def check(errors):
    bad = {k: float(v) for k, v in errors.items() if not v < 1e-4}
    assert not bad, bad


def test_image_ops(tmp_path):
    cases = [
        ("conv", "Conv", ["x", "w", "b"], dict(kernel_shape=[3, 3], pads=[1, 0, 2, 1], strides=[2, 1])),
        ("conv dilated", "Conv", ["x", "w"], dict(dilations=[2, 2])),
        ("conv same upper", "Conv", ["x", "w", "b"], dict(auto_pad="SAME_UPPER", strides=[2, 2])),
        ("conv same lower", "Conv", ["x", "w2"], dict(auto_pad="SAME_LOWER")),
        ("conv groups", "Conv", ["x", "wg", "b"], dict(group=2)),
        ("deconv", "ConvTranspose", ["x", "wt", "b3"], dict(strides=[2, 2], pads=[1, 1, 0, 1], output_padding=[1, 0])),
        ("deconv groups", "ConvTranspose", ["x", "wt"], dict(group=2, dilations=[2, 1])),
        ("deconv same", "ConvTranspose", ["x", "wt"], dict(strides=[2, 2], auto_pad="SAME_UPPER")),
        ("deconv shape", "ConvTranspose", ["x", "wt"], dict(strides=[2, 2], output_shape=[18, 19])),
        ("max", "MaxPool", ["x"], dict(kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])),
        ("max ceil", "MaxPool", ["x"], dict(kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)),
        ("max ceil pads", "MaxPool", ["x"], dict(kernel_shape=[3, 3], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)),
        ("max dilated", "MaxPool", ["x"], dict(kernel_shape=[2, 2], dilations=[2, 3])),
        ("max same", "MaxPool", ["x"], dict(kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER")),
        ("avg", "AveragePool", ["x"], dict(kernel_shape=[2, 3], strides=[2, 1])),
        ("avg pads", "AveragePool", ["x"], dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])),
        ("avg include", "AveragePool", ["x"], dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], count_include_pad=1)),
        ("avg ceil", "AveragePool", ["x"], dict(kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)),
        (
            "avg ceil include",
            "AveragePool",
            ["x"],
            dict(kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 0], ceil_mode=1, count_include_pad=1),
        ),
        ("global avg", "GlobalAveragePool", ["x"], {}),
        ("global max", "GlobalMaxPool", ["x"], {}),
        ("batch norm", "BatchNormalization", ["x", "b4", "b4", "b4", "pos"], dict(epsilon=1e-3)),
        ("instance norm", "InstanceNormalization", ["x", "b4", "pos"], {}),
        ("lrn", "LRN", ["x"], dict(size=3, alpha=0.1, beta=0.6, bias=1.5)),
        ("mvn", "MeanVarianceNormalization", ["x"], {}),
        ("depth dcr", "DepthToSpace", ["x"], dict(blocksize=2)),
        ("depth crd", "DepthToSpace", ["x"], dict(blocksize=2, mode="CRD")),
        (
            "resize nearest",
            "Resize",
            ["x", "", "scales"],
            dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        ),
        ("resize linear", "Resize", ["x", "", "scales"], dict(mode="linear")),
        ("resize corners", "Resize", ["x", "", "", "sizes"], dict(mode="linear", coordinate_transformation_mode="align_corners")),
        ("resize half", "Resize", ["x", "", "", "sizes"], dict(mode="nearest", coordinate_transformation_mode="pytorch_half_pixel")),
        ("pad", "Pad", ["x", "pads", "half"], {}),
        ("pad crop", "Pad", ["x", "crop"], {}),
        ("pad reflect", "Pad", ["x", "pads"], dict(mode="reflect")),
        ("pad edge", "Pad", ["x", "pads"], dict(mode="edge")),
        ("transpose", "Transpose", ["x"], dict(perm=[0, 2, 3, 1])),
        ("transpose batch", "Transpose", ["x"], dict(perm=[2, 0, 3, 1])),
        ("prelu", "PRelu", ["x", "slope"], {}),
        ("softmax channel", "Softmax", ["x"], dict(axis=1)),
    ]
    arrays = {
        "w": RNG.normal(size=(6, 4, 3, 3)),
        "w2": RNG.normal(size=(2, 4, 2, 2)),
        "wg": RNG.normal(size=(6, 2, 3, 3)),
        "b": RNG.normal(size=6),
        "wt": RNG.normal(size=(4, 3, 3, 2)),
        "b3": RNG.normal(size=3),
        "b4": RNG.normal(size=4),
        "pos": RNG.uniform(0.5, 2, 4),
        "scales": np.array([1, 1, 2, 1.5], np.float32),
        "sizes": np.array([1, 4, 5, 14]),
        "pads": np.array([0, 0, 2, 1, 0, 0, 0, 3]),
        "crop": np.array([0, 0, -1, 0, 0, -1, -2, 0]),
        "half": np.float32(0.5),
        "slope": RNG.normal(size=(4, 1, 1)),
    }
    branches = [(label, [node(op, ins, f"z{i}", **kw)], f"z{i}") for i, (label, op, ins, kw) in enumerate(cases)]
    branches.append(
        (
            "space",
            [
                node("Transpose", ["x"], "sp0", perm=[0, 2, 1, 3]),
                node("Slice", ["sp0", "s0", "s8", "s2"], "sp1"),
                node("SpaceToDepth", ["sp1"], "sp2", blocksize=2),
            ],
            "sp2",
        )
    )
    arrays |= {"s0": np.array([0, 0]), "s8": np.array([4, 8]), "s2": np.array([2, 3])}
    # One spatial axis and three.
    branches.append(
        (
            "1-d",
            [
                node("Reshape", ["x", "line"], "n0"),
                node("Conv", ["n0", "w3"], "n1", pads=[1, 0], strides=[2]),
                node("MaxPool", ["n1"], "n2", kernel_shape=[2]),
                node("AveragePool", ["n2"], "n3", kernel_shape=[3]),
            ],
            "n3",
        )
    )
    branches.append(
        (
            "3-d",
            [
                node("Reshape", ["x", "cube"], "k0"),
                node("Conv", ["k0", "w5"], "k1", group=2, pads=[0, 1, 0, 0, 1, 1]),
                node("AveragePool", ["k1"], "k2", kernel_shape=[2, 3, 2]),
                node("GlobalMaxPool", ["k2"], "k3"),
            ],
            "k3",
        )
    )
    arrays |= {
        "line": np.array([1, 4, 81]),
        "w3": RNG.normal(size=(3, 4, 5)),
        "cube": np.array([1, 2, 9, 6, 3]),
        "w5": RNG.normal(size=(4, 1, 3, 3, 3)),
    }
    # A convolution whose graph batch is not the batch axis: [4, 1, 9, 9].
    branches.append(("moved conv", [node("Transpose", ["x"], "m0", perm=[1, 0, 2, 3]), node("Conv", ["m0", "w1"], "m1")], "m1"))
    arrays["w1"] = RNG.normal(size=(2, 1, 3, 3))
    check(bundle(tmp_path, branches, (4, 9, 9), arrays, 17))


UNARY = (
    "Relu Sigmoid Tanh Softplus Softsign Mish HardSwish Erf Exp Reciprocal Abs Neg Sign Floor Ceil Round Sin Cos Tan Atan Sinh Cosh "
    "Asinh IsNaN LeakyRelu ThresholdedRelu Elu Celu Selu HardSigmoid Gelu Identity Dropout Hardmax LogSoftmax ReduceSum "
    "ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ArgMax ArgMin LpNormalization"
).split()


def test_vector_ops(tmp_path):
    branches = [(op, [node(op, ["x"], f"u{i}")], f"u{i}") for i, op in enumerate(UNARY)]
    more = [
        ("gelu tanh", "Gelu", ["x"], dict(approximate="tanh")),
        ("reduce axis", "ReduceMean", ["x", "one"], dict(keepdims=0)),
        ("reduce row", "ReduceMax", ["x", "zero1"], dict(keepdims=0)),
        ("reduce noop", "ReduceSum", ["x"], dict(noop_with_empty_axes=1)),
        ("argmax axis", "ArgMax", ["x"], dict(axis=2, keepdims=0)),
        ("clip", "Clip", ["x", "lo", "hi"], {}),
        ("clip open", "Clip", ["x", "", "hi"], {}),
        ("cumsum", "CumSum", ["x", "axis2"], dict(exclusive=1, reverse=1)),
        ("layer norm", "LayerNormalization", ["x", "v6", "v6"], {}),
        ("layer norm 2", "LayerNormalization", ["x", "m56"], dict(axis=1)),
        ("add", "Add", ["x", "v6"], {}),
        ("add wide", "Add", ["x", "m56"], {}),
        ("add wider", "Mul", ["x", "t256"], {}),
        ("sub scalar", "Sub", ["lo", "x"], {}),
        ("div", "Div", ["x", "c5"], {}),
        ("square", "Pow", ["x", "two"], {}),
        ("max", "Max", ["x", "v6", "c5"], {}),
        ("min", "Min", ["x", "v6"], {}),
        ("sum", "Sum", ["x", "v6", "x"], {}),
        ("mean", "Mean", ["x", "v6", "c5"], {}),
        ("mod", "Mod", ["x", "v6"], dict(fmod=1)),
        ("matmul", "MatMul", ["x", "w"], {}),
        ("matmul vector", "MatMul", ["x", "v6"], {}),
        ("matmul left", "MatMul", ["left", "x"], {}),
        ("matmul stack", "MatMul", ["x", "stack"], {}),
        ("einsum", "Einsum", ["x", "w"], dict(equation="bij,jk->bki")),
        ("einsum pair", "Einsum", ["x", "x"], dict(equation="bij,bkj->bik")),
        ("concat", "Concat", ["x", "one56", "x"], dict(axis=1)),
        ("concat batch", "Concat", ["x", "one56"], dict(axis=0)),
        ("expand", "Expand", ["x", "shape"], {}),
        ("tile", "Tile", ["x", "times"], {}),
        ("gather", "Gather", ["x", "pick"], dict(axis=1)),
        ("gather one", "Gather", ["x", "last"], dict(axis=2)),
        ("gather batch", "Gather", ["x", "zero"], dict(axis=0)),
        ("slice", "Slice", ["x", "s", "e", "ax", "st"], {}),
        ("slice back", "Slice", ["x", "neg1", "far", "ax1", "neg2"], {}),
        ("reshape", "Reshape", ["x", "to"], {}),
        ("reshape zero", "Reshape", ["x", "to0"], {}),
        ("flatten 2", "Flatten", ["x"], dict(axis=2)),
        ("squeeze", "Squeeze", ["x", "zero1"], {}),
        ("unsqueeze", "Unsqueeze", ["x", "outer"], {}),
        ("softmax", "Softmax", ["x"], dict(axis=1)),
        ("cast", "Cast", ["x"], dict(to=7)),
        ("swish", "Swish", ["x"], dict(alpha=1.5)),
    ]
    branches += [(label, [node(op, ins, f"v{i}_", **kw)], f"v{i}_") for i, (label, op, ins, kw) in enumerate(more) if op != "Swish"]
    chains = {
        "compare": [
            node("Greater", ["x", "v6"], "a0"),
            node("LessOrEqual", ["x", "hi"], "a1"),
            node("And", ["a0", "a1"], "a2"),
            node("Not", ["a2"], "a3"),
            node("Where", ["a3", "x", "v6"], "a4"),
        ],
        "logic": [
            node("Less", ["x", "v6"], "l0"),
            node("GreaterOrEqual", ["x", "lo"], "l1"),
            node("Or", ["l0", "l1"], "l2"),
            node("Equal", ["l2", "l0"], "l3"),
            node("Xor", ["l3", "l0"], "l4"),
        ],
        "positive": [
            node("Abs", ["x"], "q0"),
            node("Sqrt", ["q0"], "q1"),
            node("Log", ["q0"], "q2"),
            node("Pow", ["q0", "v6"], "q3"),
            node("Add", ["q1", "q2"], "q4"),
            node("ReduceLogSum", ["q0"], "q5"),
            node("Add", ["q3", "q4"], "q6"),
            node("Add", ["q6", "q5"], "q7"),
        ],
        "inverse": [
            node("Tanh", ["x"], "i0"),
            node("Asin", ["i0"], "i1"),
            node("Acos", ["i0"], "i2"),
            node("Atanh", ["i0"], "i3"),
            node("Cosh", ["x"], "i4"),
            node("Acosh", ["i4"], "i5"),
            node("Sub", ["i1", "i2"], "i6"),
            node("Mul", ["i6", "i3"], "i7"),
            node("Add", ["i7", "i5"], "i8"),
        ],
        "split": [helper.make_node("Split", ["x"], ["p0_", "p1_"], axis=2, num_outputs=2), node("Mul", ["p0_", "p1_"], "p2_")],
        "split sizes": [
            helper.make_node("Split", ["x", "parts"], ["r0", "r1"], axis=1),
            node("ReduceSum", ["r0", "one"], "r2"),
            node("Mul", ["r1", "r2"], "r3"),
        ],
        "attention": [
            node("Transpose", ["x"], "t0", perm=[1, 0, 2]),
            node("Reshape", ["t0", "heads"], "t1"),
            node("Transpose", ["t1"], "t2", perm=[1, 0, 2]),
            node("Transpose", ["t2"], "t3", perm=[0, 2, 1]),
            node("MatMul", ["t2", "t3"], "t4"),
            node("Softmax", ["t4"], "t5"),
            node("MatMul", ["t5", "t2"], "t6"),
        ],
        "shape arithmetic": [
            node("Shape", ["x"], "h0"),
            node("Gather", ["h0", "zero"], "h1"),
            node("Gather", ["h0", "last"], "h2"),
            node("Unsqueeze", ["h1", "zero1"], "h3"),
            node("Unsqueeze", ["h2", "zero1"], "h4"),
            node("Concat", ["h3", "h4", "neg1"], "h5", axis=0),
            node("Reshape", ["x", "h5"], "h6"),
            node("ConstantOfShape", ["h4"], "h7"),
            node("MatMul", ["h6", "one5"], "h8"),
            node("Add", ["h8", "h7"], "h9"),
        ],
        "gemm": [
            node("Flatten", ["x"], "g0"),
            node("Gemm", ["g0", "wide", "bias"], "g1", alpha=0.5, beta=2.0, transB=1),
            node("Gemm", ["g1", "g1"], "g2", transA=1),
        ],
        "embedding": [node("Clip", ["x", "lo0", "hi"], "e0"), node("Cast", ["e0"], "e1", to=7), node("Gather", ["w", "e1"], "e2", axis=0)],
    }
    branches += [(label, nodes, nodes[-1].output[0]) for label, nodes in chains.items()]
    arrays = {
        "one": np.array([1]),
        "zero1": np.array([0]),
        "lo": np.float32(-0.5),
        "hi": np.float32(0.7),
        "lo0": np.float32(0.0),
        "axis2": np.int64(2),
        "v6": RNG.uniform(0.5, 2, 6),
        "m56": RNG.normal(size=(5, 6)),
        "t256": RNG.normal(size=(2, 5, 6)),
        "c5": RNG.uniform(0.5, 2, (5, 1)),
        "two": np.float32(2),
        "w": RNG.normal(size=(6, 3)),
        "left": RNG.normal(size=(4, 5)),
        "stack": RNG.normal(size=(2, 6, 3)),
        "one56": RNG.normal(size=(1, 5, 6)),
        "shape": np.array([2, 1, 5, 6]),
        "times": np.array([2, 1, 3]),
        "pick": np.array([[0, -1], [2, 2]]),
        "last": np.int64(-1),
        "zero": np.int64(0),
        "s": np.array([1, 0]),
        "e": np.array([2**63 - 1, -1]),
        "ax": np.array([1, -1]),
        "st": np.array([1, 2]),
        "neg1": np.array([-1]),
        "far": np.array([-(2**63) + 1]),
        "ax1": np.array([1]),
        "neg2": np.array([-2]),
        "to": np.array([3, -1]),
        "to0": np.array([0, 3, -1]),
        "outer": np.array([0, 3]),
        "parts": np.array([2, 3]),
        "heads": np.array([5, 2, 3]),
        "one5": RNG.normal(size=(5, 6)),
        "wide": RNG.normal(size=(4, 30)),
        "bias": RNG.normal(size=4),
    }
    # "split sizes" multiplies a sum of two rows with three rows, "concat batch" makes a batch of 2 out of 1: shapes the fold must follow.
    check(bundle(tmp_path, branches, (5, 6), arrays, 20))


def test_old_opsets(tmp_path):
    """Axes as attributes, softmax over a flattened tail, and the broadcast axis of opset 6."""
    eight = [
        ("softmax tail", [node("Softmax", ["x"], "a", axis=1)], "a"),
        ("squeeze", [node("Unsqueeze", ["x"], "b0", axes=[0, 2]), node("Squeeze", ["b0"], "b1", axes=[0, 2])], "b1"),
        ("clip", [node("Clip", ["x"], "c_", min=-0.5, max=0.5)], "c_"),
        ("slice", [node("Slice", ["x"], "d", axes=[2], starts=[1], ends=[-1])], "d"),
        ("pad", [node("Pad", ["x"], "e", pads=[0, 1, 0, 0, 0, 2], value=0.5)], "e"),
        ("split", [helper.make_node("Split", ["x"], ["f0", "f1"], axis=2, split=[2, 4]), node("Exp", ["f1"], "f2")], "f2"),
        ("reduce", [node("ReduceSum", ["x"], "g", axes=[-1], keepdims=0)], "g"),
        ("batch norm", [node("BatchNormalization", ["x", "v", "v", "v", "v"], "h")], "h"),
        ("upsample", [node("Unsqueeze", ["x"], "u0", axes=[1]), node("Upsample", ["u0", "scales"], "u1", mode="nearest")], "u1"),
    ]
    check(bundle(tmp_path, eight, (5, 6), {"v": RNG.uniform(0.5, 2, 5), "scales": np.array([1, 1, 2, 3], np.float32)}, 9))
    model = model_of([node("Add", ["x", "v"], "y", broadcast=1, axis=1)], (1, 5, 6), (1, 5, 6), {"v": np.arange(5.0)}, 6)
    loaded = jaxsec.io.load(write(tmp_path / "six.onnx", model))
    x = RNG.normal(size=(2, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(loaded(x), (x + np.arange(5.0)[:, None]).reshape(2, -1), rtol=1e-6)


def test_against_the_reference_of_onnx(tmp_path):
    """Ops that onnxruntime has no kernel for yet: the NumPy reference of the onnx package judges."""
    nodes = [
        node("Swish", ["x"], "a", alpha=1.5),
        node("RMSNormalization", ["a", "v"], "b", axis=-1),
        node("Attention", ["b", "b", "x"], "c", q_num_heads=2, kv_num_heads=2, is_causal=1),
        node("Unsqueeze", ["x", "two"], "d0"),
        node("Transpose", ["d0"], "d1", perm=[0, 2, 1, 3]),
        node("GroupNormalization", ["x", "five", "five"], "g", num_groups=5),
        node("Add", ["c", "g"], "y"),
    ]
    nodes = [n for n in nodes if n.output[0] not in ("d0", "d1")]
    arrays = {"v": RNG.normal(size=6), "five": RNG.normal(size=5)}
    model = model_of(nodes, (1, 5, 6), (1, 5, 6), arrays, 24)
    loaded = jaxsec.io.load(write(tmp_path / "new.onnx", model))
    x = RNG.normal(size=(2, 5, 6)).astype(np.float32)
    reference = ReferenceEvaluator(model)
    want = np.stack([reference.run(None, {"x": row[None]})[0].reshape(-1) for row in x])
    assert relative(jax.jit(loaded.apply)(loaded.params, x), want) < 1e-5


def test_nothing_in_the_table_is_untried():
    """An op added to the table must be added to a bundle: the strings of this file name it, whichever process runs which bundle."""
    tree = ast.parse(pathlib.Path(__file__).read_text())
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    tried = {word for text in texts for word in text.split()}
    ours = {name for domain, name in TABLE if domain == ""}
    assert len(ours) > 100 and ours - tried <= {"CastLike"}, ours - tried  # its code is that of Cast
