"""Small ONNX graphs by hand, and onnxruntime as the judge."""

import gzip

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

RNG = np.random.default_rng(0)


def const(name, array):
    array = np.asarray(array)
    return onnx.numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)


def model_of(nodes, shape, out_shape, arrays, opset=17, domains=(), out="y", kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, out_shape)],
        [const(k, v) for k, v in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def write(path, model):
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def run_all(path, x):
    """Every output of onnxruntime for one row at a time, whatever the batch axis of the file is: a list of `[B, ...]` flattened per row."""
    data = gzip.open(path).read() if str(path).endswith(".gz") else path.read_bytes()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    has_batch = len(port.shape) > x.ndim - 1
    repeat = port.shape[0] if has_batch and isinstance(port.shape[0], int) else 1
    found = []
    for row in x:
        outs = session.run(None, {port.name: np.repeat(row[None], repeat, 0) if has_batch else row})
        outs = [np.array(list(o[0].values())) if isinstance(o, list) else np.asarray(o) for o in outs]
        found.append([o.reshape(repeat, -1)[0] for o in outs])
    return [np.stack(rows) for rows in zip(*found, strict=True)]


def run_rows(path, x):
    """The last output: the only one of most files, the probabilities of scikit-learn's."""
    return run_all(path, x)[-1]


def relative(got, want):
    return np.abs(np.asarray(got) - want).max() / (np.abs(want).max() + 1e-30)
