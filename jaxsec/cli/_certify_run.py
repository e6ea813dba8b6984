"""The work of `jaxsec certify`: one certificate for each eps; what is done is kept beside the file that will hold it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from .. import __version__
from ..attack._checkpoint import fingerprint
from ..attack._progress import progress
from ..audit._clock import Clock
from ..certify import certify
from ._certify_show import Rows
from ._state import held_beside, state_beside


def certified(
    model: Any, data: Any, balls: Sequence[Any], ladder: Sequence[Any], *, sound: bool, budget: int,
    out: Path | None, quiet: bool, silent: bool,
) -> list[Rows]:  # fmt: skip
    """All rows under each threat. Batches are kept in the state beside `out`, from which a killed run goes on.

    `quiet` shows no progress, `silent` prints nothing.
    """
    state = None if out is None else state_beside(out)
    results = []
    with held_beside(out), progress(False if quiet else None, "open") as report:
        clock = Clock(state, fingerprint(model, data.x, data.y, list(ladder), repr((__version__, balls[0].norm, sound))))
        if clock.resumed and not silent:
            Console(highlight=False).print(f"going on where the last run stopped, after {clock.wall_s:.1f} s of work", soft_wrap=True)
        for i, ball in enumerate(balls):
            name = f"eps {float(ball.eps):.6g}"

            def inner(stage: str, fraction: float, live: int, i: int = i, name: str = name) -> None:
                clock.tick()
                report(f"{name}: {stage}", (i + fraction) / len(balls), live)

            with clock.probe(name):
                found = certify(
                    model, data.x, data.y, threat=ball, method=list(ladder), sound=sound, budget=budget, progress=inner,
                    state=None if state is None else state / "rows",
                )  # fmt: skip
            arrays = {field: np.asarray(getattr(found, field)) for field in ("robust", "margin", "method", "status")}
            results.append(Rows(eps=float(ball.eps), seconds=clock.of(name), **arrays))
    return results
