"""What a terminal shows while a property is decided: a bar over the list, and how far the engine is."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AFTER = 1.0  # seconds without a bar: most properties are decided by then
COLOURS = {"unsat": "green", "sat": "red", "timeout": "yellow", "unknown": "yellow", "error": "magenta"}


class Watch:
    """Gets told of each property as it begins and ends, and of the engine's events; here it shows nothing."""

    def begin(self, name: str) -> None:
        pass

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        pass

    def end(self, verdict: str) -> None:
        pass


class Bar(Watch):
    """On a terminal, `total` properties; None for a single one."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        name, state = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[state]}", markup=False)
        listed = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[counts]}"), TimeElapsedColumn(), TimeRemainingColumn())
        columns = (SpinnerColumn(), name, TimeElapsedColumn(), state) if total is None else (*listed, name, state)
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=total, state="", counts="")
        self._counts: Counter[str] = Counter()
        self._wait = AFTER if total is None else 0.0
        self._begun = time.monotonic()
        self._shown = False

    def begin(self, name: str) -> None:
        self._bar.update(self._task, description=name, state="")
        self._show()

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        if kind == "bound":
            state = f"{facts['method']}: {facts['open']} open, {facts['done']} done, bound {facts['bound']:.4g}"
            self._bar.update(self._task, state=state)
        self._show()

    def end(self, verdict: str) -> None:
        self._counts[verdict] += 1
        counts = " ".join(f"[{COLOURS[v]}]{v} {self._counts[v]}[/]" for v in COLOURS if self._counts[v])
        self._bar.update(self._task, advance=1, counts=counts)

    def _show(self) -> None:
        if not self._shown and time.monotonic() - self._begun >= self._wait:
            self._bar.start()
            self._shown = True

    def stop(self) -> None:
        if self._shown:
            self._bar.stop()


@contextmanager
def watching(total: int | None, quiet: bool) -> Iterator[Watch]:
    """A bar on a terminal; nothing where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield Watch()
        return
    bar = Bar(total)
    try:
        yield bar
    finally:
        bar.stop()
