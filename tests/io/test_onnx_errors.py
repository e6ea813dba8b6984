"""Files that must be refused, each with a message that says what to do."""

import gzip

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper
from onnx_kit import RNG, const, model_of, write

import jaxsec.io


def plain(tail=(), out="y"):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm"), *tail]
    return model_of(nodes, (1, 4), (1, 3), {"w": RNG.normal(size=(4, 3))}, out=out)


def test_unknown_op_names_itself(tmp_path):
    tail = [helper.make_node("Bernoulli", ["y"], ["q"], name="dice"), helper.make_node("Frob", ["q"], ["r"], domain="my.ops", name="f")]
    model = plain(tail, "r")
    model.opset_import.append(helper.make_opsetid("my.ops", 3))
    with pytest.raises(NotImplementedError, match=r"Bernoulli \(node 'dice', opset 17\), my\.ops\.Frob \(node 'f', opset 3\)"):
        jaxsec.io.load(write(tmp_path / "u.onnx", model))
    with pytest.raises(NotImplementedError, match=r"Bernoulli \(a node without a name, opset 17\). Export with simpler ops"):
        jaxsec.io.load(write(tmp_path / "u.onnx", plain([helper.make_node("Bernoulli", ["y"], ["q"])], "q")))


def test_missing_folder_empty_and_garbage(tmp_path):
    with pytest.raises(FileNotFoundError, match="no ONNX file at"):
        jaxsec.io.load(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="is a folder"):
        jaxsec.io.load(tmp_path)
    for content, message in [
        (b"", "is empty"),
        (b"hello, this is no model", "not an ONNX file"),
        (b"\x08\x07", "no graph output or no opset"),
        (gzip.compress(b"abc" * 100)[:-9], "gzipped, but damaged"),
        (gzip.compress(b"not a model at all"), "not an ONNX file"),
    ]:
        with pytest.raises(ValueError, match=f"{message}.*Export the model again"):
            jaxsec.io.load(write(tmp_path / "bad.onnx", content))


def test_damaged_bytes_never_escape_as_something_else(tmp_path):
    """Fuzz: cut and flipped files load, or raise one of the documented errors."""
    good = plain([helper.make_node("Softmax", ["y"], ["p"])], "p").SerializeToString()
    rng = np.random.default_rng(1)
    refused = 0
    for i in range(150):
        data = bytearray(good)
        if i % 3 == 0:
            data = data[: rng.integers(1, len(data))]
        else:
            for at in rng.integers(0, len(data), 1 + i % 4):
                data[at] = rng.integers(0, 256)
        try:
            jaxsec.io.load(write(tmp_path / "f.onnx", bytes(data)))
        except (ValueError, NotImplementedError, FileNotFoundError) as error:
            refused += 1
            assert len(str(error)) > 20
    assert refused > 50


def external(location, folder, **extra):
    model = plain()
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **extra}.items():
        tensor.external_data.add(key=key, value=str(value))
    (folder / "w.bin").write_bytes(data)
    return model


def test_external_data(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(48))
    loaded = jaxsec.io.load(write(folder / "m.onnx", external("w.bin", folder)))
    assert loaded(np.ones((2, 4))).shape == (2, 3)
    for location in ("../secret", str(tmp_path / "secret"), ""):
        with pytest.raises(ValueError, match="outside the model's folder; this is refused"):
            jaxsec.io.load(write(folder / "m.onnx", external(location, folder)))
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="outside the model's folder"):
        jaxsec.io.load(write(folder / "m.onnx", external("link", folder)))
    with pytest.raises(FileNotFoundError, match=r"kept in .*gone\.bin, which is missing"):
        jaxsec.io.load(write(folder / "m.onnx", external("gone.bin", folder)))
    with pytest.raises(ValueError, match="wants bytes 8 to 56"):
        jaxsec.io.load(write(folder / "m.onnx", external("w.bin", folder, offset=8, length=48)))
    with pytest.raises(ValueError, match="damaged"):
        jaxsec.io.load(write(folder / "m.onnx", external("w.bin", folder, length=40)))


def test_two_inputs_labels_only_and_ambiguous_outputs(tmp_path):
    two = plain([helper.make_node("Add", ["y", "x2"], ["s"])], "s")
    two.graph.input.append(helper.make_tensor_value_info("x2", 1, (1, 3)))
    with pytest.raises(ValueError, match=r"2 inputs that matter, \['x', 'x2'\]"):
        jaxsec.io.load(write(tmp_path / "m.onnx", two))
    labels = plain([helper.make_node("ArgMax", ["y"], ["label"], axis=1)], "label")
    labels.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", TensorProto.INT64, (1, 1)))
    with pytest.raises(ValueError, match=r"are labels, without scores"):
        jaxsec.io.load(write(tmp_path / "m.onnx", labels))
    both = plain([helper.make_node("Relu", ["y"], ["r"])])
    both.graph.output.append(helper.make_tensor_value_info("r", 1, (1, 3)))
    with pytest.raises(ValueError, match=r"\['y', 'r'\]; choose one with output"):
        jaxsec.io.load(write(tmp_path / "m.onnx", both))
    assert jaxsec.io.load(tmp_path / "m.onnx", output="r")(-np.ones((1, 4))).min() >= 0
    with pytest.raises(ValueError, match=r"output is 'q'; the file has"):
        jaxsec.io.load(tmp_path / "m.onnx", output="q")


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ([helper.make_node("Reshape", ["y", "five"], ["r"], name="rs")], r"Reshape \(node 'rs', opset 17\).*3 numbers of shape \(1, 3\)"),
        ([helper.make_node("Add", ["y", "ghost"], ["r"], name="ad")], r"node 'ad' reads \['ghost'\], which nothing in the file provides"),
        (
            [helper.make_node("ConstantOfShape", ["huge"], ["h"], name="cs"), helper.make_node("Add", ["y", "h"], ["r"])],
            "damaged or hostile",
        ),
        ([helper.make_node("Dropout", ["y", "", "yes"], ["r"])], "Dropout is in training mode"),
        ([helper.make_node("Identity", ["w"], ["r"])], "does not depend on any input"),
    ],
)
def test_graphs_that_cannot_be(tmp_path, tail, message):
    model = plain(tail, "r")
    for name, value in {"five": np.array([5]), "huge": np.array([10**6, 10**6]), "yes": np.array(True)}.items():
        model.graph.initializer.append(const(name, value))
    with pytest.raises(ValueError, match=message):
        jaxsec.io.load(write(tmp_path / "m.onnx", model))


def test_local_functions_are_inlined(tmp_path):
    """Functions of the file itself, which exporters write for whole modules."""
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["c"])]
    function = helper.make_function("my.fn", "Block", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    model = plain([helper.make_node("Block", ["y"], ["r"], domain="my.fn")], "r")
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("my.fn", 1))
    onnx.checker.check_model(model)
    assert jaxsec.io.load(write(tmp_path / "m.onnx", model))(np.ones((2, 4))).max() <= 0
