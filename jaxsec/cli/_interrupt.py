"""What an interrupt (Ctrl-C) leaves: one line says whether the work is kept, and how to go on."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core._files import entries

TEMPORARY = "orbax-checkpoint-tmp"  # what a kill leaves of a checkpoint that was being written
NOTHING_KEPT = "interrupted; nothing is kept: the same command begins anew."


class Interrupted(Exception):
    """An interrupt with its line; no `KeyboardInterrupt`, which the parser would turn into a silent exit code."""


@contextmanager
def interruptible(state: Path | None = None, *, fresh: bool = False) -> Iterator[None]:
    """Turns an interrupt into `Interrupted`. `state` is the folder in which the work is kept, None where nothing is; `fresh`: the command
    said to begin anew, and said again it would drop that work."""
    was = entries(state) if fresh and state is not None else {}
    try:
        yield
    except KeyboardInterrupt:
        if was and state is not None and entries(state) == was:
            raise Interrupted(f"interrupted before anything was begun anew; what {state} holds is as it was.") from None
        if state is not None and any(TEMPORARY not in name for name in entries(state)):
            again = "the same command without --fresh goes on." if fresh else "run the same command again to go on."
            raise Interrupted(f"interrupted; what was done is kept in {state}: {again}") from None
        raise Interrupted(NOTHING_KEPT) from None


@contextmanager
def never_lost() -> Iterator[None]:
    """Repeats an interrupt that fell where Python ignores exceptions, such as the garbage collector's callback that JAX installs."""
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if issubclass(found.exc_type, KeyboardInterrupt):
            # a moment later: at once, it would be raised in this hook and be ignored again
            threading.Timer(0.05, _press_again).start()
        else:
            before(found)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _press_again() -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)  # wakes a sleeping main thread, which interrupt_main does not
    else:
        _thread.interrupt_main()
