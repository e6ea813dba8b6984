"""Progress of long attacks: a rich bar on a terminal, or the caller's own function."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, float, int], None]


@contextmanager
def progress(choice: bool | Report | None, word: str = "standing") -> Iterator[Report]:
    """Yields `report(stage, fraction done, rows still robust)`.

    Args:
      choice: a function gets every report; True shows a bar; None shows one on a terminal once 3 s have passed; False none.
      word: what the rows that a report counts are.
    """
    if callable(choice):
        yield choice
        return
    if choice is False or (choice is None and not sys.stderr.isatty()):
        yield lambda stage, fraction, live: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError as error:
        if choice:
            raise ImportError("progress=True needs the package rich; install it or pass your own function.") from error
        yield lambda stage, fraction, live: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.fields[live]}} {word}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("attack", total=1.0, live="")
    begun, shown = time.monotonic(), [False]

    def report(stage: str, fraction: float, live: int) -> None:
        if not shown[0] and (choice or time.monotonic() - begun > 3):
            bar.start()
            shown[0] = True
        bar.update(task, completed=fraction, description=stage, live=live)

    try:
        yield report
    finally:
        if shown[0]:
            bar.stop()
