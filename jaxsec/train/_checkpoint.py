"""Checkpoints of a run by Orbax: the exact state, the best weights so far and the history, and what they are checkpoints of."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ..attack._checkpoint import held
from ..core._files import digest_of, replace_file
from ._step import TrainState

SEAL = "seal.json"  # in a checkpoint's folder, so that it goes where the checkpoint goes


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
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, best: Any, record: dict[str, Any]) -> None:
        """Writes the state of the run; `record` is JSON. Raises: OSError: the disk is full, or takes no more."""
        args = self._ocp.args
        step, record = int(state.step), {"identity": self._identity, **record}
        try:
            self._manager.save(step, args=args.Composite(state=args.StandardSave(_stored((state, best))), record=args.JsonSave(record)))
        except ValueError as error:  # TensorStore's, whatever the system refused
            if found := re.search(r"os_error_code='(\d+)'", str(error)):
                raise OSError(int(found[1]), os.strerror(int(found[1])), str(self._folder)) from error
            raise
        if jax.process_index() == 0:
            folder = self._folder / str(step)
            replace_file(folder / SEAL, json.dumps(_digests(folder)))

    def restore(self, state: TrainState, best: Any) -> tuple[TrainState, Any, dict[str, Any]] | None:
        """(state, best, record) of the newest checkpoint that is as it was written, None where there is none. Args: trees like those saved.

        A damaged one is moved aside, to `checkpoints.damaged`, with a warning; one without a seal, for the process was killed before it was
        written, is taken as it is.
        Raises: ValueError: the folder holds a run with another recipe, other data or another key, or checkpoints that cannot be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = self._damaged(steps)
        if not steps:
            return None
        step = steps[len(damaged)]
        args, like = self._ocp.args, (state, best)
        try:
            record = self._manager.restore(step, args=args.Composite(record=args.JsonRestore()))["record"]
            there = dict(record["identity"])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise self._unreadable(step, error) from error
        if differing := [k for k in sorted({*there, *self._identity}) if there.get(k) != self._identity.get(k)]:
            raise ValueError(
                f"{self._folder} holds a run that differs in {', '.join(differing)}; pass the same arguments to go on with it, "
                "another folder, or resume=False to begin anew."
            )
        if damaged:  # only now: a folder that is refused stays as it is
            self._move_aside(damaged, step)
        try:
            restored = self._manager.restore(step, args=args.Composite(state=args.StandardRestore(_stored(like))))["state"]
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise self._unreadable(step, error) from error
        return (*_unstored(restored, like), record)

    def _damaged(self, steps: list[int]) -> dict[int, list[str]]:
        """The newest steps, latest first, whose files are not those of their seals, and which files; one process looks.

        Raises: ValueError: all are.
        """
        damaged: dict[int, list[str]] = {}
        if jax.process_index() == 0:
            for step in steps:
                if not (changed := self._changed(step)):
                    break
                damaged[step] = changed
        if jax.process_count() > 1:
            count = int(multihost_utils.broadcast_one_to_all(np.int32(len(damaged))))
            damaged = {step: damaged.get(step, []) for step in steps[:count]}
        if steps and len(damaged) == len(steps):
            raise ValueError(
                f"every checkpoint in {self._folder} is damaged ({'; '.join(f'{k}: {_few(v)}' for k, v in damaged.items())}); give another "
                "folder, or resume=False to begin anew."
            )
        return damaged

    def _move_aside(self, damaged: dict[int, list[str]], left: int) -> None:
        if jax.process_index() == 0:
            moved = []
            for step, changed in damaged.items():
                aside = _free(self._folder.with_suffix(".damaged") / str(step))
                aside.parent.mkdir(exist_ok=True)
                (self._folder / str(step)).rename(aside)
                moved.append(f"the checkpoint of update {step} is damaged ({_few(changed)}) and was moved to {aside}")
            warnings.warn(f"{'; '.join(moved)}; training goes on from update {left}.", RuntimeWarning, stacklevel=6)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("jaxsec checkpoints moved")
        self._manager.reload()

    def _changed(self, step: int) -> list[str]:
        """Files of a checkpoint that are not as they were written; none where it has no seal, and what was added does not count."""
        folder = self._folder / str(step)
        try:
            seal = json.loads((folder / SEAL).read_text())
            return [name for name, digest in seal.items() if not (folder / name).is_file() or digest_of(folder / name) != digest]
        except FileNotFoundError:
            return []
        except (AttributeError, OSError, ValueError):
            return [SEAL]

    def _unreadable(self, step: int, error: Exception) -> ValueError:
        why = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
        return ValueError(
            f"the checkpoint {self._folder / str(step)} cannot be read ({why}); move it away to go on from the one before, give another "
            "folder, or resume=False to begin anew."
        )

    def clear(self) -> None:
        """Deletes every checkpoint of the folder."""
        for step in self._manager.all_steps():
            self._manager.delete(step)

    def close(self) -> None:
        self._manager.close()


@contextlib.contextmanager
def held_by_one(folder: pathlib.Path | None) -> Iterator[None]:
    """`held`, by the first of several processes for all of them, which share the folder.

    Raises: ValueError: another run is in it, or it is no folder; in every process.
    """
    if folder is None or jax.process_count() == 1:
        with held(folder):
            yield
        return
    with contextlib.ExitStack() as stack:
        refused = None
        if jax.process_index() == 0:
            try:
                stack.enter_context(held(folder))
            except Exception as error:
                refused = error
        # the others must not wait for one that has left
        if not multihost_utils.broadcast_one_to_all(np.bool_(refused is None)):
            raise refused or ValueError(f"{folder} cannot be used, as the process 0 says; give another folder.")
        yield


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """Path in the folder -> digest of the file."""
    return {path.relative_to(folder).as_posix(): digest_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _free(path: pathlib.Path) -> pathlib.Path:
    """The path, or the first of path.2, path.3, ... at which nothing is."""
    names = itertools.chain([path], (path.with_name(f"{path.name}.{i}") for i in itertools.count(2)))
    return next(p for p in names if not p.exists())


def _few(names: list[str]) -> str:
    return f"{names[0]} is not as it was written" if len(names) == 1 else f"{len(names)} files are not as they were written"


def _stored(tree: Any) -> dict[str, jax.Array]:
    """Leaves by number: whatever nodes a user's trees are made of, they need not be known to Orbax. Keys as their words."""
    return {f"{i:05d}": jax.random.key_data(v) if _is_key(v) else jnp.asarray(v) for i, v in enumerate(jax.tree.leaves(tree))}


def _unstored(stored: dict[str, jax.Array], like: Any) -> Any:
    leaves, tree = jax.tree.flatten(like)
    new = [stored[f"{i:05d}"] for i in range(len(leaves))]
    return jax.tree.unflatten(tree, [jax.random.wrap_key_data(n) if _is_key(v) else n for n, v in zip(new, leaves, strict=True)])


def _is_key(v: Any) -> bool:
    return isinstance(v, jax.Array) and jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
