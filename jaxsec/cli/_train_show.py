"""What `jaxsec train` says: of what begins, what goes on, what went wrong, and what came of it."""

import contextlib
import logging
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core._plural import plural
from ._inputs import warn
from ._train_asked import Asked
from ._trained import MODEL, ROWS


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """What training warns of, as every command says it."""

    def line(message: Any, *_: Any, **__: Any) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=RuntimeWarning, module="jaxsec")
        warnings.showwarning = line
        yield


@contextlib.contextmanager
def going_on_said(quiet: bool) -> Iterator[None]:
    """Says what training tells once it has read the run that it goes on with."""
    from rich.console import Console

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            Console(highlight=False).print(record.getMessage(), soft_wrap=True, markup=False)

    logger, handler, orbax = logging.getLogger("jaxsec.train"), Said(), logging.getLogger("absl")
    before = logger.level, logger.propagate, orbax.level
    orbax.setLevel(logging.CRITICAL)  # it tells of every folder that it finds; what is wrong with one is said here
    if not quiet:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # Orbax may have given the root a handler of its own
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        orbax.setLevel(before[2])


def begin(asked: Asked, about: dict[str, Any], rows: Any) -> None:
    """One line on what is trained on what."""
    from rich.console import Console

    console = Console(highlight=False)
    ball = "" if about["eps"] is None else f", {about['threat']} eps {asked.eps or format(about['eps'], '.6g')}"
    console.print(
        f"{asked.recipe}{ball}: {about['data']['rows']} rows of {about['data']['source']}, {about['data']['held out']} held out; "
        f"{rows.n_classes} classes; {about['net']}, {plural(about['epochs'], 'epoch')}, {about['batch size']} rows an update",
        soft_wrap=True,
        markup=False,
    )


def shortcomings(made: Any, labels: np.ndarray, validation: float, ball: Any) -> list[str]:
    """What to say of a net that came to little: one that always answers the commonest class would be as right, or as robust, as it is.

    Args: labels: of the training rows. validation: the share of them held out. ball: the recipe's threat, or None.
    """
    row = made.history[made.best_epoch]
    common = float(np.bincount(labels).max() / len(labels))
    clean, robust, certified = (row.get(f"validation_{name}") for name in ("clean", "robust", "certified"))
    smaller = "" if ball is None or not np.max(np.asarray(ball.eps)) > 0 else "a smaller --eps, "
    if clean is not None and clean <= common + 2 * np.sqrt(common * (1 - common) / (validation * len(labels))):
        return [
            f"the net gets {clean:.1%} of the validation rows right, and the commonest class alone is {common:.1%} of the rows: it learned "
            f"nothing. Try a smaller --learning-rate, {smaller}more --epochs, or more rows."
        ]
    if certified == 0:
        return [
            "none of the validation rows is certified at the whole eps: the bounds have not become tight enough. Try more --epochs, a "
            "smaller --eps, or a shorter ramp (--set ramp=...)."
        ]
    if robust is not None and certified is None and robust < common:
        return [
            f"{robust:.1%} of the validation rows withstand the attack at the whole eps, fewer than the {common:.1%} of a net that always "
            f"answers the commonest class: it did not become robust. Try more --epochs, {smaller}or more rows."
        ]
    return []


def summary(made: Any, out: Path, held: bool, noise: float | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    row = made.history[made.best_epoch]
    said = [
        f"{name.removeprefix('validation_')} {row[name]:.1%}"
        for name in ("validation_clean", "validation_noisy", "validation_robust", "validation_certified")
        if name in row
    ]
    console.print(
        f"{plural(len(made.history), 'epoch')}, {made.stopped}"
        + (f"; kept as it was after {plural(made.best_epoch + 1, 'epoch')}: {', '.join(said)} of the validation rows" if said else ""),
        soft_wrap=True,
    )
    console.print(f"model: {out / MODEL}", soft_wrap=True)
    if held:
        smoothed = "" if noise is None else f" --threat l2 --eps {2 * noise:.4g} --smooth-sigma {noise:.6g}"
        console.print(
            f"next: jaxsec audit {shlex.quote(str(out))}{smoothed}   (on the rows held out in {out / ROWS})", soft_wrap=True, markup=False
        )
