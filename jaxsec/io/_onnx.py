"""`load`: an ONNX file of any framework as a differentiable, jittable, batchable `Model`.

Why an op table of our own: the existing library, jaxonnxruntime 0.3.0, imports under JAX 0.10.2 and runs plain MLPs, but it is tied to
the exported batch (the VNN-COMP ResNet of batch 1 called with 3 rows: "TypeError: dot_general requires contracting dimensions to have the
same shape, got (1536,) and (512,)") and lacks what exporters write today ("NotImplementedError: Mod is not implemented.", "ValueError:
ceil_mode = 1 is not implement yet.", "/Concat_output_0 is not constant but used as `shape` of Reshape static argument during `jax.jit`");
of 16 small nets exported by torch 2.13 it ran 3. onnx2jax and onnx-jax are not on PyPI.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp

from ..core import Model, ModelInfo
from ._onnx_classic import choose_output, lifted
from ._onnx_cut import cut, trimmed
from ._onnx_fold import FOLDABLE, fold, needed
from ._onnx_ops import TABLE
from ._onnx_program import Program, digest_of
from ._onnx_read import Graph, Port, read


def load(
    path: str | os.PathLike[str], *, input_shape: tuple[int, ...] | None = None, keep_softmax: bool = False, output: str | None = None
) -> Model:
    """Reads an ONNX file (`.onnx`, or gzipped `.onnx.gz`) as a `Model`.

    Guarantee: any batch size works, whatever batch the file was exported with, and rows never mix; the float weights are `params`, traced
    and differentiable; loading the same graph again, with the same or other weights, does not retrace. Nothing in the file is executed, and
    external weight files are read from the model's own folder only.

    Args:
      path: the file. Weights in external data files are looked for beside it.
      input_shape: one row's shape without the batch axis, where the file leaves it open. If it has as many axes as the input
        of the file, the file is read as having no batch axis (an input of rank 1 never has one).
      keep_softmax: keep a final Softmax or Sigmoid instead of going back to the logits; properties about probabilities need it.
      output: which output of the file holds the scores, where there are several.

    Returns:
      Model: `x[B, *input_shape] -> logits[B, K]`; `params` is a dict by the names in the file; `info.notes` says what was changed.
      Scalars and size-1 Constant nodes belong to the program, integers too; every other float array is a parameter, as float32.

    Raises:
      FileNotFoundError: no such file, or an external weight file is missing.
      NotImplementedError: an op outside the table; the message has the op, the node's name and the opset.
      ValueError: a damaged file, several inputs, an open input shape, no usable output, or a node that cannot be evaluated.

    Cost: one pass over the graph on the host without computing the network; weights are copied once to the default device.

    Edge cases: random ops, loops, branches and sparse tensors are refused. Half and double precision weights are computed in float32.
    A file exported with a fixed batch N > 1 is read with batch 1.

    Source: the ONNX operator specification, opsets 1 to 24.

    Example:
      >>> import onnx.helper as h, tempfile, pathlib, numpy as np, jaxsec.io
      >>> w = h.make_tensor("w", 1, (2, 3), np.arange(6.0))
      >>> ends = [h.make_tensor_value_info("x", 1, (1, 2))], [h.make_tensor_value_info("p", 1, (1, 3))]
      >>> nodes = [h.make_node("MatMul", ["x", "w"], ["z"]), h.make_node("Softmax", ["z"], ["p"])]
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.onnx"
      >>> _ = file.write_bytes(h.make_model(h.make_graph(nodes, "net", *ends, [w])).SerializeToString())
      >>> model = jaxsec.io.load(file)
      >>> model(np.ones((4, 2))).shape, model.info.notes
      ((4, 3), ('final Softmax removed: the model returns logits',))
    """
    path = Path(path)
    graph = lifted(read(path))
    name, notes = choose_output(graph, output)
    port = _input(graph, name, path)
    row, exported = _row(port, input_shape, path)
    shape = row if exported == 0 else (1, *row)
    _refuse_unknown(graph, name)
    try:
        folded = trimmed(fold(graph, port.name, name, shape, exported, port.kind == "f"))
    except ValueError as error:
        if exported < 2:
            raise
        raise ValueError(
            f"{path} was exported with a fixed batch of {exported}, which its nodes rely on; "
            f"export it with a batch of 1 or a free one. First fault: {error}"
        ) from error
    if not keep_softmax:
        folded, cuts = cut(folded)
        notes += cuts
        if not cuts and "prob" in name.lower():
            notes += (f"the output {name!r} looks like probabilities and was not cut back to logits",)
    if exported > 1:
        notes += (f"exported with a fixed batch of {exported}; read with a free batch",)
    steps = tuple(folded.steps)
    params = tuple(folded.params.items())
    digest = digest_of(steps, params, folded.input, folded.output, shape, exported > 0, port.kind)
    program = Program(steps, params, folded.input, row, exported > 0, folded.output, port.kind == "f", digest)
    arrays = {key: graph.arrays[key] for key, _ in params}
    spec = jax.ShapeDtypeStruct((1, *row), jnp.float32 if port.kind == "f" else jnp.int32)
    logits = jax.eval_shape(program, arrays, spec)
    stem = path.name.removesuffix(".gz").removesuffix(".onnx")
    info = ModelInfo(name=stem, source="onnx", input_shape=row, n_classes=logits.shape[1], notes=notes)
    return Model(params={key: jnp.asarray(a, jnp.float32) for key, a in arrays.items()}, apply=program, info=info)


def _input(graph: Graph, output: str, path: Path) -> Port:
    """The one input that the output depends on."""
    wanted = {output}
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
    used = [p for p in graph.inputs if p.name in wanted]
    if not used:
        raise ValueError(f"{path}: the output {output!r} does not depend on any input; choose another with output=...")
    if len(used) > 1:
        names = [p.name for p in used]
        many = "export one tensor input, e.g. by concatenating the columns (scikit-learn: convert with one FloatTensorType)"
        raise ValueError(f"{path} has {len(used)} inputs that matter, {names}; exactly one is supported: {many}.")
    if used[0].kind not in "fi":
        raise ValueError(f"{path}: the input {used[0].name!r} holds strings or sequences; only numeric tensors are supported.")
    return used[0]


def _row(port: Port, given: tuple[int, ...] | None, path: Path) -> tuple[tuple[int, ...], int]:
    """One row's shape, and the batch size the file was written with (1 if it is free, 0 if there is no batch axis)."""
    if given is not None:
        given = tuple(int(n) for n in given)
        if any(n < 1 for n in given):
            raise ValueError(f"input_shape is {given}; give one row's shape, every length at least 1, without the batch axis.")
    if port.dims is None:
        if given is None:
            raise ValueError(
                f"{path} does not say the shape of its input {port.name!r}; pass input_shape=(...), one row without batch axis."
            )
        return given, 1
    if given is not None and len(given) == len(port.dims):
        declared, exported = port.dims, 0
    elif len(port.dims) < 2:
        declared, exported = port.dims, 0
    else:
        declared, exported = port.dims[1:], port.dims[0] or 1
    row = declared if given is None else given
    if None in row:
        raise ValueError(f"{path} leaves the input {port.name!r} open, {port.dims}; pass input_shape=(...), one row without batch axis.")
    if len(row) != len(declared) or any(d not in (None, n) for d, n in zip(declared, row, strict=True)):
        raise ValueError(f"input_shape {row} does not fit the input {port.name!r} of {path}, whose rows are {declared} (None is free).")
    return tuple(int(n) for n in row if n is not None), exported


def _refuse_unknown(graph: Graph, output: str) -> None:
    """Names every op outside the table at once, instead of one per attempt."""
    unknown = {}
    for node in needed(graph.nodes, output):
        if (node.domain, node.op) not in TABLE and not (node.domain == "" and node.op in FOLDABLE):
            unknown.setdefault((node.domain, node.op), node.name)
    if unknown:
        listed = ", ".join(
            f"{d + '.' if d else ''}{op} ({f'node {name!r}' if name else 'a node without a name'}, opset {graph.opsets.get(d, 1)})"
            for (d, op), name in unknown.items()
        )
        raise NotImplementedError(f"ONNX ops outside jaxsec's table: {listed}. Export with simpler ops or with another opset.")


__all__ = ["load"]
