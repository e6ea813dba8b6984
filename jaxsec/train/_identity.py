"""What a run is, in a form that a new process finds again: a folder that holds another run is not gone on with."""

import dataclasses
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from ..core import as_key
from ._batches import Batches
from ._recipe import Recipe
from ._step import Setting, TrainState

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity_of(recipe: Recipe, batches: Batches, key: Any, state: TrainState, setting: Setting, x: jax.Array) -> dict[str, Any]:
    """JSON of the recipe, the data, the net with its first weights, the optimizer, the key and the step's settings.

    The net, the optimizer and the augmentation are functions: their traced programs are compared, with the numbers and arrays in them (an
    architecture, a learning rate, a table of them), and so is the JAX version, whose programs may be written otherwise.
    """
    fields = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}  # pyright: ignore[reportArgumentType]
    keys = jax.random.split(jax.random.key(0), len(x))
    gradient = jax.eval_shape(lambda p: p, state.params)
    return {
        "recipe": recipe.name,
        **{f"recipe's {name}": _said(value) for name, value in fields.items()},
        "net": [_said((state.params, state.state)), _traced(setting.program.train, state.params, state.state, x, keys)],
        "optimizer": [_said(state.optimizer), _traced(setting.optimizer.update, gradient, state.optimizer, state.params)],
        "jax": jax.__version__,
        "key": np.asarray(jax.random.key_data(as_key(key))).tolist(),
        "accumulate": setting.accumulate,
        "dtype": str(setting.dtype),
        "augment": "none" if setting.augment is None else _traced(setting.augment, keys, x),
        **batches.identity,
    }


def _said(value: Any) -> Any:
    """A tree by the bytes of its arrays, its numbers and its structure."""
    leaves, tree = jax.tree.flatten(value)
    total, numbers = 0, []
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if np.size(leaf) == 1:
            numbers.append(repr(np.asarray(leaf).item()))
        elif not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            total = zlib.crc32(np.asarray(leaf).tobytes(), zlib.crc32(repr(np.shape(leaf)).encode(), total))
    text = _named(tree)
    return [type(value).__name__, numbers, total, text if len(text) <= 2000 else f"{text[:2000]}... {zlib.crc32(text.encode())}"]


def _traced(fn: Any, *args: Any) -> int:
    """The program's text, which shows scalars, and the arrays in it, which the text only names."""
    closed = jax.make_jaxpr(fn)(*args)
    return zlib.crc32(repr([_said(c)[1:3] for c in _constants(closed)]).encode(), zlib.crc32(_named(closed).encode()))


def _constants(value: Any) -> list[Any]:
    if isinstance(value, jex.ClosedJaxpr | jex.Jaxpr):  # from JAX 0.12 on one class, whose `jaxpr` is itself
        program: Any = getattr(value, "jaxpr", value)
        return [*getattr(value, "consts", ()), *(c for eqn in program.eqns for v in eqn.params.values() for c in _constants(v))]
    return [c for v in value for c in _constants(v)] if isinstance(value, tuple | list) else []


def _named(value: Any) -> str:
    """Its text, without the addresses that functions show, which differ from process to process."""
    return _ADDRESS.sub("", str(value))
