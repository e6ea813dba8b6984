"""A model and a property as the engine works on them; counterexamples replayed."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bound import IBP, bound
from ..bound._run import unknown
from ..core._batch import pad_rows
from ..core._model import Model, ModelInfo
from ..io import Property
from ._cases import BesideInputs, cases_of, mixed

# The bound's own rounding where it is not tracked (`sound=False`): a form counts as proved above 0 by this share of its magnitude.
TOLERANCE = 4e-6
# Outputs of the float32 model and of a float64 replay may differ by this share before a counterexample is doubted.
_REPLAY = 1e-5


class Question:
    """A model and a property, with all that is compiled for them."""

    def __init__(self, model: Model, prop: Property):
        shape = model.info.input_shape or (prop.n_inputs,)
        if math.prod(shape) != prop.n_inputs:
            raise ValueError(f"the network takes {math.prod(shape)} inputs (rows of shape {shape}), the property declares {prop.n_inputs}.")
        self.shape, self.prop = tuple(shape), prop
        self.runs = model.replace(info=ModelInfo())  # names must not decide what is compiled
        # what is attacked and bounded: where rows mix both, inputs are outputs too
        self.model = self.runs.replace(apply=BesideInputs(self.runs.apply)) if mixed(prop) else self.runs
        n = outputs_of(self.runs, self.shape)
        if n != prop.n_outputs:
            raise ValueError(f"the network has {n} outputs, the property declares {prop.n_outputs}.")
        self.cases = cases_of(prop, self._most)

    def _most(self, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        found = bound(self.model, (lo.reshape(1, *self.shape), hi.reshape(1, *self.shape)), method=IBP(), sound=True)
        return np.asarray(jnp.maximum(jnp.abs(found.lo), jnp.abs(found.hi)), np.float64).reshape(-1)

    def unknown(self) -> Any:
        """Ranges of the layers, [1, ...] each, before anything has been bounded; new arrays."""
        return jax.tree.map(np.asarray, _unknown(self.model, self.shape, jnp.float32))

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """[N, K] of the model as it runs, for float32 rows [N, n]."""
        x = np.asarray(x, np.float32)
        padded = x[pad_rows(np.arange(len(x)), 1 << max(len(x) - 1, 0).bit_length())]  # few sizes, few programs
        return np.asarray(_outputs(self.runs, padded, self.shape))[: len(x)]

    def counterexample(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The first of the points [N, n] that violates the property, on the running model and again in float64; (x, y) in float64."""
        x = np.asarray(x, np.float32)
        y = self.outputs(x)
        points, row = self._inside(x)
        for point in points[self.prop.violated(points, y[row])] if len(row) else ():
            again = self.outputs(point[None])[0]
            exact = self.replayed(point)
            loose = _REPLAY * max(1.0, float(np.max(np.abs(exact))))
            if self.prop.violated(point, again) and self.prop.violated(point, exact, tolerance=loose):
                return point, np.asarray(again, np.float64)
        return None

    def replayed(self, x: np.ndarray) -> np.ndarray:
        """[K] of the same network in float64."""
        with jax.enable_x64(True):
            params = jax.tree.map(lambda p: np.asarray(p, np.float64) if np.asarray(p).dtype == np.float32 else p, self.runs.params)
            wide = self.runs.replace(params=params)
            return np.asarray(wide(jnp.asarray(x.reshape(1, *self.shape), jnp.float64))).reshape(-1)

    def _inside(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(points, which row each is of): rows moved into the nearest cases' boxes in float64, since the float32 boxes are an ulp wider."""
        wide = x.astype(np.float64)
        boxes = np.stack([np.clip(wide, c.lo, c.hi) for c in self.prop.cases])
        with np.errstate(invalid="ignore"):  # where a box has no end
            distance = np.where(boxes == wide, 0, np.abs(boxes - wide)).max(-1)
        # boxes may overlap, and differ by less than float32 tells apart; a point that is no number is in none
        case, row = np.nonzero(distance <= distance.min(0) + np.finfo(np.float32).eps * np.abs(wide).max(-1))
        return boxes[case, row], row


_unknown = jax.jit(unknown, static_argnums=(1, 2))


def differentiable(model: Model, shape: tuple[int, ...]) -> bool:
    """Whether reverse-mode derivatives pass through the model, as they do not through `lax.while_loop`."""
    try:
        _slope.eval_shape(model, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    except ValueError:
        return False
    return True


@jax.jit
def _slope(model: Model, x: jax.Array) -> jax.Array:
    return jax.grad(lambda x: jnp.sum(model(x)))(x)


def outputs_of(model: Model, shape: tuple[int, ...]) -> int:
    """How many outputs a row of that shape has; traced once for each model."""
    return _outputs.eval_shape(model, jax.ShapeDtypeStruct((1, math.prod(shape)), jnp.float32), shape).shape[1]


@functools.partial(jax.jit, static_argnums=2)
def _outputs(model: Model, x: jax.Array, shape: tuple[int, ...]) -> Any:
    return model(x.reshape(len(x), *shape)).reshape(len(x), -1)
