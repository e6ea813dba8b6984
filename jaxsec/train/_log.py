"""What a run says while it runs: a bar on a terminal, a line of JSON per epoch, curves for TensorBoard."""

import json
import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax

Report = Callable[[dict[str, Any]], None]


class Log:
    """Writes every epoch's row to `metrics.jsonl` of the folder and shows progress; of several processes the first one does.

    Args: folder: None writes nothing. tensorboard: event files too, in `folder/tensorboard`. progress: True, False, a function that gets
      every row, or None: a bar on a terminal.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, epochs: int, steps: int, *, tensorboard: bool, progress: bool | Report | None
    ):
        self._file, self._writer, self._bar = None, None, None
        self._report = progress if callable(progress) else None
        if jax.process_index():
            folder, tensorboard, progress = None, False, False
        if folder is not None:
            self._file = pathlib.Path(folder) / "metrics.jsonl"
        if tensorboard:
            if folder is None:
                raise ValueError("tensorboard=True needs a folder to write to; pass out=.")
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise ImportError("tensorboard=True needs the package tensorboardX: pip install 'jaxsec[train]'.") from error
            self._writer = SummaryWriter(str(pathlib.Path(folder) / "tensorboard"), write_to_disk=True)
        if progress is True or (progress is None and sys.stderr.isatty()):
            self._bar = _bar()
            self._task = self._bar.add_task("epoch 1", total=epochs * steps, said="")
            self._bar.start()
        self._epochs, self._steps = epochs, steps

    def begin(self, history: list[dict[str, Any]]) -> None:
        """The rows of a run that goes on: what was written after its last checkpoint is written anew."""
        if self._file is not None:
            self._write("w", history)

    def step(self, done: int, loss: float | None) -> None:
        """After some updates."""
        if self._bar is not None:
            epoch = min(done // self._steps + 1, self._epochs)
            changes: dict[str, Any] = {} if loss is None else {"said": f"loss {loss:.3f}"}
            self._bar.update(self._task, completed=done, description=f"epoch {epoch}/{self._epochs}", **changes)

    def row(self, row: dict[str, Any]) -> None:
        """After an epoch."""
        if self._file is not None:
            self._write("a", [row])
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and name not in ("epoch", "step"):
                    self._writer.add_scalar(name, value, row["step"])
        if self._report is not None:
            self._report(row)

    def _write(self, mode: str, rows: list[dict[str, Any]]) -> None:
        assert self._file is not None
        try:
            with self._file.open(mode) as file:
                file.write("".join(json.dumps(_plain(row)) + "\n" for row in rows))
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, error.strerror, str(self._file)) from None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._writer is not None:
            self._writer.close()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
