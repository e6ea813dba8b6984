"""A model that takes flat rows, asked with images: the rows stay images, so that Square works and the report shows pictures."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from ..core import Model
from ..io import Dataset


def for_images(model: Model, rows: Dataset) -> Model:
    """A model of flat rows as one of the images that `rows` holds, each flattened in front of it; any other model as it is.

    Guarantee: the same answers as with rows flattened beforehand; an equal model and row shape share every compiled program.
    """
    wanted, row = model.info.input_shape, rows.x.shape[1:]
    if wanted is None or sum(d != 1 for d in wanted) > 1 or rows.layout not in ("NCHW", "NHWC") or math.prod(wanted) != math.prod(row):
        return model
    said = f"{rows.layout} images of shape {row} are flattened in front of the model, to {tuple(wanted)}"
    return model.replace(apply=_Flattened(model.apply, tuple(wanted))).noted(said, input_shape=tuple(row))


@dataclasses.dataclass(frozen=True)
class _Flattened:
    inner: Callable[..., jax.Array]
    wanted: tuple[int, ...]

    def __call__(self, params: Any, x: jax.Array, *keys: jax.Array) -> jax.Array:
        return self.inner(params, x.reshape(x.shape[0], *self.wanted), *keys)
