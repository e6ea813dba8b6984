"""A property as the engine works on it: float32 boxes that contain the given ones, clauses as forms, counterexamples replayed."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bound._run import unknown
from ..core._batch import pad_rows
from ..core._model import Model, ModelInfo
from ..io import Property

# The bound's own rounding where it is not tracked (`sound=False`): a form counts as proved above 0 by this share of its magnitude.
TOLERANCE = 4e-6
# Outputs of the float32 model and of a float64 replay may differ by this share before a counterexample is doubted.
_REPLAY = 1e-5


@dataclasses.dataclass(frozen=True)
class Case:
    """One input box. Unsafe iff for some clause all rows of `spec[c] y + at[c] <= 0`; clauses are padded by repeating a row."""

    lo: np.ndarray  # [n] float32, rounded outward
    hi: np.ndarray
    free: np.ndarray  # which inputs vary: all others are one number, even where float32 has none so exact
    spec: np.ndarray  # [C, m, K] float32
    at: np.ndarray  # [C, m] float32


def cases_of(prop: Property) -> list[Case]:
    """Raises ValueError: a constraint mixes inputs and outputs."""
    found = []
    for case in prop.cases:
        m = max((len(c.d) for c in case.clauses), default=0)
        if any(c.Cx is not None and np.any(c.Cx) for c in case.clauses):
            raise ValueError(
                "a constraint of the property mixes inputs and outputs (X and Y in one inequality), which the verifier does not bound; "
                "allowed are bounds on single inputs and inequalities among outputs."
            )
        spec = np.zeros((len(case.clauses), max(m, 1), prop.n_outputs))
        at = np.full((len(case.clauses), max(m, 1)), -1.0)  # a clause without rows: its whole box is unsafe, -1 <= 0 says so
        for i, clause in enumerate(case.clauses):
            rows = [j if j < len(clause.d) else 0 for j in range(m)]
            if len(clause.d):
                spec[i], at[i] = clause.Cy[rows], -clause.d[rows]
        if not np.all(case.lo <= case.hi):
            i = int(np.flatnonzero(~(case.lo <= case.hi))[0])
            raise ValueError(
                f"input {i} of a box goes from {case.lo[i]} to {case.hi[i]}; its lower end must be a number and not above the upper."
            )
        with np.errstate(over="ignore"):  # beyond float32 there is no end
            lo, hi = case.lo.astype(np.float32), case.hi.astype(np.float32)
        lo = np.where(lo.astype(np.float64) > case.lo, np.nextafter(lo, np.float32(-np.inf)), lo)
        hi = np.where(hi.astype(np.float64) < case.hi, np.nextafter(hi, np.float32(np.inf)), hi)
        found.append(Case(lo, hi, np.flatnonzero(case.lo < case.hi), spec.astype(np.float32), at.astype(np.float32)))
    return found


class Question:
    """A model and a property, with all that is compiled for them."""

    def __init__(self, model: Model, prop: Property):
        shape = model.info.input_shape or (prop.n_inputs,)
        if math.prod(shape) != prop.n_inputs:
            raise ValueError(f"the network takes {math.prod(shape)} inputs (rows of shape {shape}), the property declares {prop.n_inputs}.")
        self.shape, self.prop = tuple(shape), prop
        self.model = model.replace(info=ModelInfo())  # names must not decide what is compiled
        n = outputs_of(self.model, self.shape)
        if n != prop.n_outputs:
            raise ValueError(f"the network has {n} outputs, the property declares {prop.n_outputs}.")
        self.cases = cases_of(prop)

    def unknown(self) -> Any:
        """Ranges of the layers, [1, ...] each, before anything has been bounded; new arrays."""
        return jax.tree.map(np.asarray, _unknown(self.model, self.shape, jnp.float32))

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """[N, K] of the model as it runs, for float32 rows [N, n]."""
        x = np.asarray(x, np.float32)
        padded = x[pad_rows(np.arange(len(x)), 1 << max(len(x) - 1, 0).bit_length())]  # few sizes, few programs
        return np.asarray(_outputs(self.model, padded, self.shape))[: len(x)]

    def counterexample(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The first of the points [N, n] that violates the property, on the running model and again in float64; (x, y) in float64."""
        x = np.asarray(x, np.float32)
        y = self.outputs(x)
        for i in np.flatnonzero(self.prop.violated(self._inside(x), y)):
            point = self._inside(x[i : i + 1])[0]
            again = self.outputs(point[None])[0]
            exact = self.replayed(point)
            loose = _REPLAY * max(1.0, float(np.max(np.abs(exact))))
            if self.prop.violated(point, again) and self.prop.violated(point, exact, tolerance=loose):
                return point, np.asarray(again, np.float64)
        return None

    def replayed(self, x: np.ndarray) -> np.ndarray:
        """[K] of the same network in float64."""
        with jax.enable_x64(True):
            params = jax.tree.map(lambda p: np.asarray(p, np.float64) if np.asarray(p).dtype == np.float32 else p, self.model.params)
            wide = self.model.replace(params=params)
            return np.asarray(wide(jnp.asarray(x.reshape(1, *self.shape), jnp.float64))).reshape(-1)

    def _inside(self, x: np.ndarray) -> np.ndarray:
        """Rows moved into the nearest case's box in float64: the float32 box is an ulp wider."""
        wide = x.astype(np.float64)
        boxes = [np.clip(wide, c.lo, c.hi) for c in self.prop.cases]
        with np.errstate(invalid="ignore"):  # where a box has no end
            distance = np.stack([np.abs(b - wide).max(-1) for b in boxes])
        return np.stack(boxes)[distance.argmin(0), np.arange(len(wide))]


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
