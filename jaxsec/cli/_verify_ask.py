"""One question to the engine: a network and a property in, an answer out."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..certify._verify import Verification
from ..core import Model
from ..io import load_vnnlib
from ._inputs import model_of


@dataclasses.dataclass(frozen=True)
class Net:
    """A model with the number of its inputs and outputs; None where the model does not say."""

    model: Model
    n_inputs: int | None
    n_outputs: int | None


def network(spec: Path) -> Net:
    """The model whose outputs a property speaks of: those of the file, so a final Softmax or Sigmoid stays."""
    model = model_of(str(spec), keep_softmax=True)
    if model.stochastic:
        raise ValueError(f"MODEL {str(spec)!r} draws random numbers; a property is about one function: bind it without stochastic=True.")
    shape = model.info.input_shape
    if shape is None:
        return Net(model, None, None)
    try:
        out = jax.eval_shape(model, jax.ShapeDtypeStruct((1, *shape), np.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(f"MODEL {str(spec)!r} says that its rows have the shape {shape}, but does not take one: {error}") from error
    return Net(model, math.prod(shape), math.prod(out.shape[1:]))


def ask(net: Net, vnnlib: Path, *, timeout: float, seed: int, sound: bool, on_event: Callable[[str, dict[str, Any]], None]) -> Verification:
    """Asks whether the network violates the property; with `sound`, "unsat" counts only if it was rounded outward."""
    from ..certify import verify

    prop = load_vnnlib(vnnlib, n_inputs=net.n_inputs, n_outputs=net.n_outputs)
    answer = verify(net.model, prop, timeout=timeout, key=jax.random.key(seed), on_event=on_event, sound=sound)
    if sound and answer.verdict == "unsat" and answer.precision != "sound":
        said = f"{answer.method} proved unsat without rounding outward, which --sound does not count"
        return dataclasses.replace(answer, verdict="unknown", note=f"{answer.note}; {said}" if answer.note else said)
    return answer
