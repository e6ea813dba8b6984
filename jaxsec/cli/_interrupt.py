"""What an interrupt (Ctrl-C) leaves: one line says whether the work is kept, and how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOTHING_KEPT = "interrupted; nothing is kept: the same command begins anew."


class Interrupted(Exception):
    """An interrupt with its line; no `KeyboardInterrupt`, which the parser would turn into a silent exit code."""


@contextmanager
def interruptible(state: Path | None = None) -> Iterator[None]:
    """Turns an interrupt into `Interrupted`. `state` is the folder in which the work is kept; None where nothing is."""
    try:
        yield
    except KeyboardInterrupt:
        if state is not None and state.is_dir() and any(state.iterdir()):
            raise Interrupted(f"interrupted; what was done is kept in {state}: run the same command again to go on.") from None
        raise Interrupted(NOTHING_KEPT) from None
