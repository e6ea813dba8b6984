"""`Clock`: the time of an audit over all the processes that it took, the killed ones included."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._environment import now

_EVERY = 5.0  # seconds between writes while a probe runs: a kill loses no more


class Clock:
    """When the audit first started, how long its processes ran, together and in each probe, and how often it went on.

    Args: folder: where former processes wrote and this one writes; None counts this process alone. identity: that of the probes' files.
    """

    def __init__(self, folder: Path | None, identity: str):
        self._path = None if folder is None else folder / f"clock-{identity[:16]}.json"
        before = self._read()
        self.started: str = before.get("started", now())
        self.resumed: int = before["runs"] if before else 0
        self._wall: float = before.get("wall_s", 0.0)
        self._probes: dict[str, float] = before.get("probes", {})
        self._begun = self._written = time.monotonic()

    @property
    def wall_s(self) -> float:
        """Seconds of all processes."""
        return self._wall + time.monotonic() - self._begun

    def of(self, probe: str) -> float:
        """Seconds of all processes in one probe."""
        return self._probes.get(probe, 0.0)

    @contextmanager
    def probe(self, name: str) -> Iterator[None]:
        """Counts the time in the block to a probe; what was counted is written whatever ends the block."""
        self._running, self._since, self._before = name, time.monotonic(), self.of(name)
        try:
            yield
        finally:
            self.tick(every=0.0)

    def tick(self, every: float = _EVERY) -> None:
        """Counts the time so far, and writes it where the last write is longer ago than `every` seconds."""
        t = time.monotonic()
        self._probes[self._running] = self._before + t - self._since
        if self._path is None or t - self._written < every:
            return
        self._written = t
        state = {"started": self.started, "runs": self.resumed + 1, "wall_s": self.wall_s, "probes": self._probes}
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a full disk must not end an audit for its clock
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(state), encoding="utf-8")
            os.replace(temporary, self._path)

    def _read(self) -> dict[str, Any]:
        try:
            read = {} if self._path is None else json.loads(self._path.read_text(encoding="utf-8"))
            known = {"started": str, "runs": int, "wall_s": float, "probes": dict}
            return read if all(isinstance(read.get(key), kind) for key, kind in known.items()) else {}
        except (OSError, ValueError, AttributeError):
            return {}
