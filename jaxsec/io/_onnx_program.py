"""The program an ONNX graph becomes: a list of steps over an op table, equal by value, with the weights outside."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._onnx_tensor import Tensor, Value, constant, rows_of, tensor

Op = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """One node: its op and what the op may ask for. `inputs` are value numbers, known arrays, or None where left out."""

    op: str
    domain: str
    opset: int
    name: str
    inputs: tuple[int | np.ndarray | None, ...]
    outputs: tuple[int, ...]
    attrs: dict[str, Any]

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute `name`, or the default of the op's specification."""
        return self.attrs.get(name, default)

    def __str__(self) -> str:
        node = f"node {self.name!r}" if self.name else "a node without a name"
        return f"{self.domain + '.' if self.domain else ''}{self.op} ({node}, opset {self.opset})"


@dataclasses.dataclass(frozen=True)
class _Entry:
    run: Op
    static: tuple[int, ...]


TABLE: dict[tuple[str, str], _Entry] = {}


def op(*names: str, domain: str = "", static: tuple[int, ...] = ()) -> Callable[[Op], Op]:
    """Registers `fn(step, *inputs)` for ops `names`; the inputs at positions `static` reach it as known arrays."""

    def register(fn: Op) -> Op:
        for name in names:
            TABLE[domain, name] = _Entry(fn, static)
        return fn

    return register


def call(step: Step, args: list[Value]) -> tuple[Tensor, ...]:
    """Runs one step; every fault names the op, the node and the opset."""
    entry = TABLE.get((step.domain, step.op))
    if entry is None:
        raise NotImplementedError(
            f"ONNX op {step} is not in jaxsec's table. Export the model with simpler ops or another opset, or open an issue with this line."
        )
    try:
        out = entry.run(step, *args)
    except (ValueError, TypeError, IndexError, KeyError, ZeroDivisionError, OverflowError) as error:
        shapes = [getattr(a, "shape", None) for a in args]
        raise ValueError(f"ONNX op {step} cannot be evaluated on inputs of shapes {shapes}: {error}") from error
    return out if isinstance(out, tuple) else (out,)


@dataclasses.dataclass(frozen=True)
class Program:
    """`params, x[B, *row] -> logits[B, K]`; two programs are equal when their graphs are, whatever the weights are.

    The digest covers ops, attributes, wiring, known arrays and parameter names, so comparing and hashing cost nothing per call.
    """

    steps: tuple[Step, ...] = dataclasses.field(compare=False, repr=False)
    params: tuple[tuple[str, int], ...] = dataclasses.field(compare=False, repr=False)
    input: int = dataclasses.field(compare=False, repr=False)
    row: tuple[int, ...] = dataclasses.field(compare=False)
    batched: bool = dataclasses.field(compare=False, repr=False)
    output: int = dataclasses.field(compare=False, repr=False)
    floating: bool = dataclasses.field(compare=False, repr=False)
    digest: str

    def __call__(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """Logits of a batch; a wrong row shape raises `ValueError` while tracing."""
        if tuple(x.shape[1:]) != self.row:
            raise ValueError(
                f"this ONNX model takes rows of shape {self.row}, got a batch of shape {tuple(x.shape)}; "
                "reshape or transpose the data (Model.preprocessed(transpose=...) swaps NHWC and NCHW)."
            )
        if self.floating and not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.float32)
        env: dict[int, Value] = {number: constant(params[name]) for name, number in self.params}
        env[self.input] = rows_of(x, (1, *self.row) if self.batched else self.row)
        for step in self.steps:
            args = [env[i] if isinstance(i, int) else i for i in step.inputs]
            env.update(zip(step.outputs, call(step, args), strict=False))
        out = tensor(env[self.output]).data
        return out if out.ndim == 2 else jnp.reshape(out, (x.shape[0], -1))


def digest_of(steps: tuple[Step, ...], *rest: Any) -> str:
    """A name of the graph without its weights; node names are left out, they only serve messages."""
    sha = hashlib.sha256(repr(rest).encode())

    def feed(value: Any) -> None:
        if isinstance(value, np.ndarray | np.generic):
            sha.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        else:
            sha.update(repr(value).encode())
        sha.update(b";")

    for step in steps:
        for part in (step.op, step.domain, step.opset, step.outputs, len(step.inputs), *step.inputs):
            feed(part)
        for key in sorted(step.attrs):
            feed(key)
            feed(step.attrs[key])
    return sha.hexdigest()
