"""From an ONNX file to a plain graph of names and arrays; nothing in the file is executed, and no path in it may leave its folder."""

import dataclasses
import gzip
import math
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

_AGAIN = "Export the model again, or copy the whole file again."
_LIMIT = 2**31  # protobuf itself stops at 2 GiB; larger models keep their weights in external files


@dataclasses.dataclass
class Node:
    """One node of the file, with names for its values."""

    op: str
    domain: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Port:
    """A declared input or output: `dims` has None for a free length and is None where the file does not say; `kind` is f, i, s or seq."""

    name: str
    kind: str
    dims: tuple[int | None, ...] | None


@dataclasses.dataclass
class Graph:
    """A file's graph: nodes in order, its arrays by name, and which of them are literals (scalars that belong to the program)."""

    nodes: list[Node]
    arrays: dict[str, np.ndarray]
    literals: set[str]
    inputs: list[Port]
    outputs: list[Port]
    opsets: dict[str, int]
    producer: str


def read(path: str | os.PathLike[str]) -> Graph:
    """Reads `.onnx` or gzipped `.onnx.gz`; see `load` for what it raises."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("reading ONNX files needs the onnx package: pip install 'jaxsec[onnx]'.") from error
    path = Path(path)
    data = _content(path)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError has no public home that is stable across versions
        raise ValueError(f"{path} is not an ONNX file, or it is damaged: {str(error).rstrip('.')}. {_AGAIN}") from None
    if not model.graph.output or not model.opset_import:
        raise ValueError(f"{path} is not an ONNX file, or it is damaged: it has no graph output or no opset. {_AGAIN}")
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    if model.graph.sparse_initializer:
        raise ValueError(f"{path} has sparse initialisers, which are not supported; export dense weights.")
    return _graph(model, path)


def _content(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"no ONNX file at {path} (working folder: {Path.cwd()}).")
    if path.is_file() and path.stat().st_size > _LIMIT:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, above {_LIMIT}, the limit of the ONNX format; keep the weights in external data."
        )
    if not path.is_file():
        raise ValueError(f"{path} is a folder; give the .onnx or .onnx.gz file in it.")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as stream:
                data = stream.read(_LIMIT + 1)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is gzipped, but damaged: {error}. {_AGAIN}") from None
        if len(data) > _LIMIT:
            raise ValueError(f"{path} unpacks to more than {_LIMIT} bytes, the limit of the ONNX format; this is no model file.")
    if not data:
        raise ValueError(f"{path} is empty. {_AGAIN}")
    return data


def _graph(model: Any, path: Path) -> Graph:
    arrays: dict[str, np.ndarray] = {}
    literals: set[str] = set()
    for proto in model.graph.initializer:
        name = _text(proto.name, path)
        arrays[name] = _array(proto, path)
        if arrays[name].ndim == 0:
            literals.add(name)
    nodes = []
    for proto in model.graph.node:
        attrs = {_text(a.name, path): _attribute(a, path) for a in proto.attribute}
        domain = "" if proto.domain == "ai.onnx" else _text(proto.domain, path)
        sources, results = ([_text(v, path) for v in names] for names in (proto.input, proto.output))
        if not results:
            raise ValueError(f"{path}: the node {proto.name or proto.op_type!r} has no output; the file is damaged.")
        if proto.op_type == "Constant" and not domain:
            name = results[0]
            arrays[name] = _constant(attrs, path, name)
            if arrays[name].size == 1:
                literals.add(name)
            continue
        nodes.append(Node(_text(proto.op_type, path), domain, _text(proto.name, path), sources, results, attrs))
    inputs = [_port(v, path) for v in model.graph.input if v.name not in arrays]
    outputs = [_port(v, path) for v in model.graph.output]
    opsets = {"" if o.domain == "ai.onnx" else _text(o.domain, path): int(o.version) for o in model.opset_import}
    return Graph(nodes, arrays, literals, inputs, outputs, opsets, model.producer_name)


def _text(value: Any, path: Path) -> str:
    """A name of the file; protobuf hands over bytes where they are no UTF-8."""
    if not isinstance(value, str):
        raise ValueError(f"{path}: the name {value!r} is no UTF-8 text; the file is damaged.")
    return value


def _constant(attrs: dict[str, Any], path: Path, name: str) -> np.ndarray:
    for key, dtype in (
        ("value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if key in attrs:
            return np.asarray(attrs[key], dtype)
    raise ValueError(f"{path}: the Constant node {name!r} has a value of kind {sorted(attrs)}; allowed are numbers and dense tensors.")


def _attribute(proto: Any, path: Path) -> Any:
    from onnx import AttributeProto

    kind = proto.type
    if kind == AttributeProto.TENSOR:
        return _array(proto.t, path)
    if kind == AttributeProto.STRING:
        return proto.s.decode("utf-8", "replace")
    if kind == AttributeProto.STRINGS:
        return tuple(s.decode("utf-8", "replace") for s in proto.strings)
    for code, field, cast in (
        (AttributeProto.FLOAT, "f", float),
        (AttributeProto.INT, "i", int),
        (AttributeProto.FLOATS, "floats", tuple),
        (AttributeProto.INTS, "ints", tuple),
    ):
        if kind == code:
            return cast(getattr(proto, field))
    return "<subgraph or other attribute>"  # only ops outside the table carry these, and they are refused by name


def _array(proto: Any, path: Path) -> np.ndarray:
    """A tensor of the file as NumPy; every float becomes float32."""
    from onnx import TensorProto, numpy_helper

    if proto.data_location == TensorProto.EXTERNAL:
        inline = TensorProto()
        inline.CopyFrom(proto)
        inline.raw_data = _external(proto, path)
        inline.data_location = TensorProto.DEFAULT
        del inline.external_data[:]
        proto = inline
    try:
        if proto.HasField("raw_data") and proto.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64):
            size = 4 if proto.data_type == TensorProto.FLOAT else 8
            if len(proto.raw_data) != size * math.prod(proto.dims):
                raise ValueError(f"{len(proto.raw_data)} bytes for shape {tuple(proto.dims)}")
        array = numpy_helper.to_array(proto)
    except Exception as error:  # damaged tensors fail in many ways inside onnx; all of them mean the same to the caller
        raise ValueError(f"{path}: the tensor {proto.name!r} is damaged: {error}.") from None
    # Asked of JAX, because NumPy calls bfloat16 and the 8-bit floats "void".
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != np.float32 else array


def _external(proto: Any, path: Path) -> bytes:
    """The bytes of a tensor that is kept beside the model; a location outside the model's folder is refused."""
    entries = {e.key: e.value for e in proto.external_data}
    location = entries.get("location", "")
    folder = path.resolve().parent
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ValueError(f"{path}: the tensor {proto.name!r} points to {location!r}, outside the model's folder; this is refused.")
    if not file.is_file():
        raise FileNotFoundError(f"{path}: the weights {proto.name!r} are kept in {file}, which is missing; put that file beside the model.")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        raise ValueError(f"{path}: the tensor {proto.name!r} has offset or length that is no number: {entries}.") from None
    size = file.stat().st_size
    if offset < 0 or offset > size or (length >= 0 and offset + length > size):
        raise ValueError(f"{path}: the tensor {proto.name!r} wants bytes {offset} to {offset + length} of {file}, which has {size}.")
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length if length >= 0 else size - offset)


def _port(value: Any, path: Path) -> Port:
    from onnx import TensorProto

    name = _text(value.name, path)
    if not value.type.HasField("tensor_type"):
        return Port(name, "seq" if value.type.WhichOneof("value") else "f", None)
    kind = value.type.tensor_type
    if kind.elem_type == TensorProto.STRING:
        letter = "s"
    else:
        floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.UNDEFINED)
        letter = "f" if kind.elem_type in floats else "i"
    if not kind.HasField("shape"):
        return Port(name, letter, None)
    # A symbolic, unknown, or nonsensical length is free.
    dims = tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
    return Port(name, letter, dims)
