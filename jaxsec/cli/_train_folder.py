"""The folder of a `jaxsec train` run: nothing of the user's is lost to it, and nothing of it remains where it came to nothing."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core._files import digest_of, entries
from ._train_asked import ASKED, Asked
from ._trained import ABOUT, MODEL, ROWS
from ._values import same_file

LOG = "metrics.jsonl"


def nothing_lost(out: Path, read: dict[str, str | None]) -> None:
    """ValueError where the run would write over a file that no run wrote, or that it reads."""
    from ..train._checkpoint import SEAL

    written = [out / name for name in (MODEL, ROWS, ABOUT, LOG)]
    for option, word in read.items():
        if word and any(same_file(path, word) for path in written):
            raise ValueError(f"{option} is {word}, which training would write over in --out {out}; give another folder.")
    steps = [out / "checkpoints" / name for name in checkpoints_of(out)]
    run = (out / "checkpoints").is_dir() and ((out / ASKED).is_file() or any((step / SEAL).is_file() for step in steps))
    if not run and (found := next((p for p in (*written, *steps) if p.exists()), None)):
        held = found.relative_to(out)
        raise ValueError(f"--out is {out}, which holds {held} and no run of 'jaxsec train'; give another folder, or move the file.")


def nothing_replaced(out: Path, asked: Asked, words: dict[str, Any]) -> None:
    """ValueError where the folder holds another finished run, whose checkpoints somebody removed, and nobody said --fresh."""
    if not asked.fresh and (out / ABOUT).is_file() and not checkpoints_of(out) and (changed := asked.differing(words)):
        raise ValueError(f"--out {out} holds another run, whose checkpoints are gone ({changed}); give another folder, or --fresh.")


@contextlib.contextmanager
def without_remains(folder: Path | None) -> Iterator[None]:
    """A folder that this call made does not stay where it comes to nothing."""
    try:
        yield
    except BaseException:
        if folder is not None and not checkpoints_of(folder):
            for name in (ASKED, LOG, ".lock"):
                (folder / name).unlink(missing_ok=True)
            for empty in (folder / "checkpoints", folder):
                with contextlib.suppress(OSError):
                    empty.rmdir()
        raise


def checkpoints_of(folder: Path) -> dict[str, int]:
    """The whole checkpoints of a run, and when each was written."""
    return {name: when for name, when in entries(folder / "checkpoints").items() if name.isdigit()}


@contextlib.contextmanager
def begun(out: Path, keep: Callable[[], object]) -> Iterator[None]:
    """While a run begins and trains: `keep` writes what it was asked for, and no other run is the finished one.

    What stood there is put back where the run ends before it has touched a checkpoint, such as one that is refused.
    """
    before = {name: (out / name).read_text() for name in (ASKED, ABOUT, LOG) if (out / name).is_file()}
    were = checkpoints_of(out)
    keep()
    (out / ABOUT).unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        if checkpoints_of(out) == were:
            for name, text in before.items():
                (out / name).write_text(text)
        raise


def finished(out: Path, about: dict[str, Any], typed: dict[str, Any], model: Callable[[Path], object], rows: Any) -> None:
    """Writes what the other commands read of a run; while these files change places the folder holds no finished run.

    Args: typed: what the run was asked for. model: writes it to a path. rows: those held out, or None.
    """
    parts = {MODEL: out / f"part.{MODEL}", ASKED: out / f"part.{ASKED}", ABOUT: out / f"part.{ABOUT}"}
    model(parts[MODEL])
    if rows is not None:
        parts = {ROWS: out / f"part.{ROWS}"} | parts
        np.savez_compressed(parts[ROWS], x=rows.x, y=rows.y)
    parts[ASKED].write_text(json.dumps(typed, indent=2) + "\n")
    about = about | {"asked": typed, "model sha256": digest_of(parts[MODEL])}
    about |= {"rows sha256": digest_of(parts[ROWS])} if rows is not None else {}
    parts[ABOUT].write_text(json.dumps(about, indent=2) + "\n")
    for name in (ABOUT, ROWS):
        (out / name).unlink(missing_ok=True)
    for name, part in parts.items():
        part.replace(out / name)
