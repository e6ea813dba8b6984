"""Meshes with explicit axes, which is what `jax.make_mesh` makes: doors work on the same devices with automatic axes.

Explicit axes put an array's sharding into its type, and each operation has to say how it shards what it returns. XLA knows that already of
every program here, and of the user's network; so nothing moves but the type, and the caller gets back the type that he works with.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ._struct import Struct

P = ParamSpec("P")
T = TypeVar("T")


class Meshes:
    """Takes arrays off their explicit meshes, and puts what was made of them back. No number moves or is copied."""

    def __init__(self) -> None:
        self._given: dict[Mesh, Mesh] = {}

    def automatic(self, tree: T) -> T:
        """The tree with every concrete array's mesh automatic; whatever else it holds stays the same object."""
        if not any(explicit(v) for v in jax.tree.leaves(tree)):
            return tree

        def one(v: Any) -> Any:
            if not explicit(v):
                return v
            mesh = _automatic(v.sharding.mesh)
            self._given[mesh] = v.sharding.mesh
            return _placed(v, mesh)

        return jax.tree.map(one, tree)

    def back(self, tree: T) -> T:
        """The tree on the meshes that `automatic` met."""

        def one(v: Any) -> Any:
            if not isinstance(v, jax.Array) or not isinstance(v.sharding, NamedSharding):
                return v
            mesh = self._given.get(v.sharding.mesh)  # pyright: ignore[reportArgumentType]
            return v if mesh is None else _placed(v, mesh)

        return jax.tree.map(one, tree) if self._given else tree


def on_any_mesh(door: Callable[P, T]) -> Callable[P, T]:
    """A door that takes arrays of explicit meshes as well, or is called where `jax.set_mesh` set one.

    What it returns lies on the mesh of its arguments, rows sharded as the rows that were given. Called while tracing, it is traced once
    more for the shapes of that.
    """

    @functools.wraps(door)
    def on_its_devices(*args: P.args, **kwargs: P.kwargs) -> T:
        given = (args, kwargs)
        leaves = jax.tree.leaves(given)
        if any(isinstance(v, Tracer) for v in leaves):
            return _traced(door, given) if any(map(explicit, leaves)) and not in_shard_map() else door(*args, **kwargs)
        with automatic_axes():
            meshes = Meshes()
            placed: Any = [meshes.automatic(a) for a in args], {name: meshes.automatic(a) for name, a in kwargs.items()}
            return meshes.back(door(*placed[0], **placed[1]))  # pyright: ignore[reportCallIssue]

    return on_its_devices


@contextlib.contextmanager
def automatic_axes() -> Iterator[None]:
    """Where the caller set a mesh with explicit axes, the same with automatic ones."""
    mesh = None
    if AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types:
        with contextlib.suppress(ValueError):  # inside a program, which is not ours to move
            mesh = jax.sharding.get_mesh()
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(_automatic(mesh)):
        yield


def explicit(v: Any) -> bool:
    """Whether an array's type, or a traced value's, names axes of a mesh."""
    return isinstance(v, jax.Array) and AxisType.Explicit in jax.typeof(v).sharding.mesh.axis_types


def in_shard_map() -> bool:
    """Whether a `shard_map` is being traced, where the caller says what lies where."""
    return AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types


def whole(v: jax.Array) -> jax.Array:
    """The array itself, or all of it on every device of its explicit mesh."""
    if not explicit(v) or not any(jax.typeof(v).sharding.spec):
        return v
    mesh: Any = jax.typeof(v).sharding.mesh if isinstance(v, Tracer) else v.sharding.mesh  # pyright: ignore[reportAttributeAccessIssue]
    return jax.sharding.reshard(v, NamedSharding(mesh, PartitionSpec()))


def _automatic(mesh: Any) -> Any:
    kinds = tuple(AxisType.Auto if kind == AxisType.Explicit else kind for kind in mesh.axis_types)
    if isinstance(mesh, AbstractMesh):
        return AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=kinds)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)


def _placed(v: jax.Array, mesh: Mesh) -> jax.Array:
    assert isinstance(v.sharding, NamedSharding)
    return jax.device_put(v, NamedSharding(mesh, v.sharding.spec, memory_kind=v.sharding.memory_kind))


def _traced(door: Callable[..., T], given: tuple[tuple[Any, ...], dict[str, Any]]) -> T:
    leaves, tree = jax.tree.flatten(given)
    arrays = {i: v for i, v in enumerate(leaves) if isinstance(v, jax.Array)}
    bare = [v for v in jax.tree.leaves(given, is_leaf=lambda v: isinstance(v, Struct)) if not isinstance(v, Struct)]  # no weights
    placed = [v for v in bare if explicit(v)] or [v for v in arrays.values() if explicit(v)]
    rows = max(map(jax.typeof, placed), key=lambda t: (any(t.sharding.spec), t.ndim))

    def run(*values: Any) -> T:
        mine = dict(zip(arrays, values, strict=True))
        args, kwargs = jax.tree.unflatten(tree, [mine.get(i, v) for i, v in enumerate(leaves)])
        return door(*args, **kwargs)

    def spec(out: Any) -> PartitionSpec:
        if out.shape == rows.shape:
            return rows.sharding.spec
        return PartitionSpec(rows.sharding.spec[0]) if out.shape[:1] == rows.shape[:1] else PartitionSpec()

    with jax.sharding.use_abstract_mesh(_automatic(rows.sharding.mesh)):
        shapes = jax.eval_shape(run, *(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in arrays.values()))
    automatic: Any = jax.sharding.auto_axes(run, out_sharding=jax.tree.map(spec, shapes))
    with jax.sharding.use_abstract_mesh(rows.sharding.mesh):  # whose axes they are
        return automatic(*arrays.values())
