"""Checkpoints of a run by Orbax: the exact state, the best weights so far and the history, and what they are checkpoints of."""

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from ._step import TrainState


class Checkpoints:
    """A folder of checkpoints, the newest `keep` of them.

    Guarantee: a checkpoint is whole or absent, also if the process is killed while it is written; the folder of another run is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, Any], keep: int = 2):
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            raise ImportError("checkpoints need the package orbax-checkpoint: pip install 'jaxsec[train]'.") from error
        self._ocp, self._identity = ocp, json.loads(json.dumps(identity))
        self._folder = pathlib.Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, best: Any, record: dict[str, Any]) -> None:
        """Writes the state of the run; `record` is JSON."""
        args = self._ocp.args
        step = int(state.step)
        self._manager.save(
            step,
            args=args.Composite(
                state=args.StandardSave(_stored((state, best))), record=args.JsonSave({"identity": self._identity, **record})
            ),
        )

    def restore(self, state: TrainState, best: Any) -> tuple[TrainState, Any, dict[str, Any]] | None:
        """(state, best, record) of the newest checkpoint, None where there is none. Args: trees like those saved.

        Raises: ValueError: the folder holds a run with another recipe, other data or another key.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        args = self._ocp.args
        record = self._manager.restore(step, args=args.Composite(record=args.JsonRestore()))["record"]
        if differing := [k for k in sorted({*record["identity"], *self._identity}) if record["identity"].get(k) != self._identity.get(k)]:
            raise ValueError(
                f"{self._folder} holds a run that differs in {', '.join(differing)}; pass the same arguments to go on with it, "
                "another folder, or resume=False to begin anew."
            )
        like = (state, best)
        restored = self._manager.restore(step, args=args.Composite(state=args.StandardRestore(_stored(like))))["state"]
        return (*_unstored(restored, like), record)

    def clear(self) -> None:
        """Deletes every checkpoint of the folder."""
        for step in self._manager.all_steps():
            self._manager.delete(step)

    def close(self) -> None:
        self._manager.close()


def _stored(tree: Any) -> dict[str, jax.Array]:
    """Leaves by number: whatever nodes a user's trees are made of, they need not be known to Orbax. Keys as their words."""
    return {f"{i:05d}": jax.random.key_data(v) if _is_key(v) else jnp.asarray(v) for i, v in enumerate(jax.tree.leaves(tree))}


def _unstored(stored: dict[str, jax.Array], like: Any) -> Any:
    leaves, tree = jax.tree.flatten(like)
    new = [stored[f"{i:05d}"] for i in range(len(leaves))]
    return jax.tree.unflatten(tree, [jax.random.wrap_key_data(n) if _is_key(v) else n for n, v in zip(new, leaves, strict=True)])


def _is_key(v: Any) -> bool:
    return isinstance(v, jax.Array) and jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
