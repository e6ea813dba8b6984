"""`save`: the ONNX file that a model was read from, with the weights that the model has now."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Model
from ._onnx_program import Program
from ._onnx_read import _content


def save(model: Model, like: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Writes `model`, which `load(like)` made and training changed, as an ONNX file.

    Guarantee: graph, opset, input and output are those of `like`, a final Softmax included; only weights differ, each in its own dtype. The
      file is whole or not there at all.
    Args: like: the file that the model was read from, `.onnx` or `.onnx.gz`. path: where to write, `.onnx` or `.onnx.gz`.
    Raises: TypeError: the model does not come from an ONNX file. ValueError: the file has no weight of such a name and shape, as where
      scikit-learn's converter keeps them in the attributes of a node.

    Example:
      >>> import tempfile, pathlib, jax, numpy as np, jaxsec.io
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> jaxsec.io.new_network("mlp", (4,), 3, folder / "net.onnx", seed=0)
      >>> model = jaxsec.io.load(folder / "net.onnx")
      >>> jaxsec.io.save(model.replace(params=jax.tree.map(lambda w: 0 * w, model.params)), folder / "net.onnx", folder / "zero.onnx")
      >>> jaxsec.io.load(folder / "zero.onnx")(np.ones((1, 4), np.float32)).tolist()
      [[0.0, 0.0, 0.0]]
    """
    import onnx
    from onnx import inliner

    if not isinstance(model.apply, Program):
        raise TypeError(f"the model comes from {model.info.source or 'a function'}, not from an ONNX file, so there is no graph to write.")
    like = Path(like)
    proto = onnx.load_model_from_string(_content(like))
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    arrays = {name: np.asarray(value) for name, value in model.params.items()}
    left = set(arrays)
    for tensor in proto.graph.initializer:
        if tensor.name in left:
            _replace(tensor, arrays[tensor.name], like)
            left.discard(tensor.name)
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.output[0] in left:
            (value,) = node.attribute
            if value.HasField("t"):
                _replace(value.t, arrays[node.output[0]], like)
            else:
                value.CopyFrom(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(arrays[node.output[0]])))
            left.discard(node.output[0])
    if left:
        raise ValueError(f"{like} has no tensor called {sorted(left)[0]!r}, a weight of the model; export it with plain initialisers.")
    _write(proto.SerializeToString(), Path(path))


def _replace(tensor: Any, array: np.ndarray, path: Path) -> None:
    """The tensor with another value, in its own dtype; external data come into the file."""
    from onnx import helper, numpy_helper

    if tuple(tensor.dims) != array.shape:
        raise ValueError(f"{path}: the weight {tensor.name!r} has the shape {tuple(tensor.dims)}, the model's has {array.shape}.")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), name))


def _write(content: bytes, path: Path) -> None:
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
