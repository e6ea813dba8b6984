"""The hidden folder beside a file that a command writes: what is done is kept there until the file is whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..attack._checkpoint import held


def state_beside(path: Path) -> Path:
    """`out/cert.npz` -> `out/.cert.state`."""
    return path.with_name(f".{path.stem}.state")


@contextlib.contextmanager
def held_beside(path: Path | None) -> Iterator[None]:
    """Keeps other processes out of the file's state while it is in use; `ValueError` where one is in it. None holds nothing."""
    state = None if path is None else state_beside(path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(state))
        except ValueError as error:
            if state is not None and not state.is_dir():
                raise ValueError(f"{state} is needed as a folder; remove the file, or give another --out.") from error
            raise ValueError(f"{path} is in use by another run; wait until that ends, or give another --out.") from error
        yield
