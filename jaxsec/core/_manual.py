"""Inside `shard_map` an array is marked by the mesh axes over which it differs; constants that enter a loop must be marked alike."""

from typing import Any

import jax
import jax.numpy as jnp


def _axes(v: Any) -> frozenset[str]:
    kind = jax.typeof(v)
    marks = getattr(kind, "manual_axis_type", None)  # JAX 0.10; `vma` before, and neither where arrays are not marked
    return frozenset(marks.varying if marks is not None else getattr(kind, "vma", ()))


def marked_like(tree: Any, like: Any) -> Any:
    """The same tree, every array marked as differing wherever an array of `like` does; nothing changes outside `shard_map`."""
    wanted = frozenset[str]().union(*(_axes(v) for v in jax.tree.leaves(like)))
    if not wanted:
        return tree

    def mark(v: Any) -> Any:
        missing = wanted - _axes(v)
        return jax.lax.pcast(jnp.asarray(v), tuple(sorted(missing)), to="varying") if missing else v

    return jax.tree.map(mark, tree)
