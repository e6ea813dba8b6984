"""Frozen dataclasses that are pytrees: the one way this library makes its nouns."""

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_T = TypeVar("_T", bound="Struct")
_STATIC = "jaxsec_static"


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree's structure: hashable, compared by value, a change retraces."""
    return dataclasses.field(metadata={_STATIC: True}, **kwargs)


class Struct:
    """Base of every noun: gives `replace`, and a `repr` that shows arrays by their shapes."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def replace(self, **changes: Any) -> Self:
        """A copy with the named fields changed; an unknown name raises `TypeError`."""
        return dataclasses.replace(self, **changes)

    def __repr__(self) -> str:
        shown = (f"{f.name}={_shown(getattr(self, f.name))}" for f in dataclasses.fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(value: Any) -> str:
    """An array by dtype and shape, a single number by its value; trees leaf by leaf."""
    leaves = jax.tree.leaves(value, is_leaf=lambda v: isinstance(v, Struct))
    if len(leaves) > 8:
        return f"<{type(value).__name__} of {len(leaves)} leaves>"
    return repr(jax.tree.map(_leaf, value, is_leaf=lambda v: isinstance(v, Struct)))


class _Shown(str):
    __slots__ = ()
    __repr__ = str.__str__


def _leaf(v: Any) -> Any:
    if not isinstance(v, jax.Array | np.ndarray | np.generic):
        return v
    known = not isinstance(v, Tracer) and v.ndim == 0 and not jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
    return _Shown(v.item()) if known else _Shown(f"{v.dtype}[{','.join(map(str, v.shape))}]")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(static, dataclasses.field))
def struct(cls: type[_T]) -> type[_T]:
    """Makes `cls` a frozen, keyword-only dataclass whose fields are traced leaves unless made by `static()`.

    Nothing may be validated in `__post_init__`: unflattening calls it with tracers and placeholders.

    Not by `jax.tree_util.register_dataclass`: tree structures of two classes registered that way compare equal if their fields
    agree (jaxlib 0.10), and a program compiled for `L2` then answers for `L1` whenever their hashes meet in a table.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
    fields = dataclasses.fields(cls)
    data = tuple(f.name for f in fields if not f.metadata.get(_STATIC))
    meta = tuple(f.name for f in fields if f.metadata.get(_STATIC))
    paths = tuple(jax.tree_util.GetAttrKey(name) for name in data)

    def flatten(node: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple([getattr(node, name) for name in data]), tuple([getattr(node, name) for name in meta])

    def flatten_with_keys(node: Any) -> Any:
        leaves, aux = flatten(node)
        return tuple(zip(paths, leaves, strict=True)), aux

    def unflatten(aux: tuple[Any, ...], leaves: Iterable[Any]) -> Any:
        return cls(**dict(zip(data, leaves, strict=True)), **dict(zip(meta, aux, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def is_static(cls: type, name: str) -> bool:
    """Whether field `name` of the struct `cls` is static."""
    return any(f.name == name and f.metadata.get(_STATIC, False) for f in dataclasses.fields(cls))
