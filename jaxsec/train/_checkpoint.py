"""Checkpoints of a run by Orbax: the exact state, the best weights so far and the history, and what they are checkpoints of."""

import hashlib
import json
import os
import pathlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from ._step import TrainState


class Checkpoints:
    """A folder of checkpoints, the newest `keep` of them.

    Guarantee: a checkpoint is whole or absent, also if the process is killed while it is written; one that was changed since is found by
      the digests of its files, and the one before it counts; the folder of another run is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, Any], keep: int = 2):
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            raise ImportError("checkpoints need the package orbax-checkpoint: pip install 'jaxsec[train]'.") from error
        self._ocp, self._identity = ocp, json.loads(json.dumps(identity))
        self._folder = pathlib.Path(folder).absolute()
        self._seals = self._folder.with_suffix(".json")
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, best: Any, record: dict[str, Any]) -> None:
        """Writes the state of the run; `record` is JSON."""
        args = self._ocp.args
        step, record = int(state.step), {"identity": self._identity, **record}
        self._manager.save(step, args=args.Composite(state=args.StandardSave(_stored((state, best))), record=args.JsonSave(record)))
        if jax.process_index() == 0:
            before = {k: v for k, v in self._sealed().items() if k != str(step)}
            seals = {str(k): before.get(str(k)) or _digests(self._folder / str(k)) for k in self._manager.all_steps()}
            part = self._seals.with_suffix(".part")
            part.write_text(json.dumps(seals))
            part.replace(self._seals)

    def _sealed(self) -> dict[str, dict[str, str]]:
        """Of each checkpoint the digests of its files as they were written."""
        try:
            return dict(json.loads(self._seals.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def restore(self, state: TrainState, best: Any) -> tuple[TrainState, Any, dict[str, Any]] | None:
        """(state, best, record) of the newest checkpoint that can be read, None where there is none. Args: trees like those saved.

        Raises: ValueError: the folder holds a run with another recipe, other data or another key, or only damaged checkpoints.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._read(step, (state, best))
            except _Other:
                raise
            except Exception as error:  # whatever Orbax and its storage make of files that are not as they were written
                damaged[step] = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
                continue
            for later, why in damaged.items():
                warnings.warn(
                    f"the checkpoint {self._folder / str(later)} is damaged ({why}); training goes on from update {step}.",
                    RuntimeWarning,
                    stacklevel=5,
                )
                self._manager.delete(later)
            return found
        if damaged:
            raise ValueError(
                f"no checkpoint in {self._folder} can be read ({'; '.join(f'{k}: {why}' for k, why in damaged.items())}); give another "
                "folder, or resume=False to begin anew."
            )
        return None

    def _read(self, step: int, like: tuple[TrainState, Any]) -> tuple[TrainState, Any, dict[str, Any]]:
        args = self._ocp.args
        seal, files = self._sealed().get(str(step)), _digests(self._folder / str(step))
        if seal is not None and (changed := [k for k in {**seal, **files} if seal.get(k) != files.get(k)]):
            # before Orbax reads them, whose threads print their own errors
            raise ValueError(f"{len(changed)} of {len({**seal, **files})} files are not as they were written")
        record = self._manager.restore(step, args=args.Composite(record=args.JsonRestore()))["record"]
        if differing := [k for k in sorted({*record["identity"], *self._identity}) if record["identity"].get(k) != self._identity.get(k)]:
            raise _Other(
                f"{self._folder} holds a run that differs in {', '.join(differing)}; pass the same arguments to go on with it, "
                "another folder, or resume=False to begin anew."
            )
        restored = self._manager.restore(step, args=args.Composite(state=args.StandardRestore(_stored(like))))["state"]
        return (*_unstored(restored, like), record)

    def clear(self) -> None:
        """Deletes every checkpoint of the folder."""
        for step in self._manager.all_steps():
            self._manager.delete(step)
        self._seals.unlink(missing_ok=True)

    def close(self) -> None:
        self._manager.close()


class _Other(ValueError):
    """The folder holds another run."""


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """Path in the folder -> digest of the file."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _stored(tree: Any) -> dict[str, jax.Array]:
    """Leaves by number: whatever nodes a user's trees are made of, they need not be known to Orbax. Keys as their words."""
    return {f"{i:05d}": jax.random.key_data(v) if _is_key(v) else jnp.asarray(v) for i, v in enumerate(jax.tree.leaves(tree))}


def _unstored(stored: dict[str, jax.Array], like: Any) -> Any:
    leaves, tree = jax.tree.flatten(like)
    new = [stored[f"{i:05d}"] for i in range(len(leaves))]
    return jax.tree.unflatten(tree, [jax.random.wrap_key_data(n) if _is_key(v) else n for n, v in zip(new, leaves, strict=True)])


def _is_key(v: Any) -> bool:
    return isinstance(v, jax.Array) and jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
