"""`jaxsec certify --method smoothing`: the run, its table, its JSON and its file."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..attack._checkpoint import fingerprint
from ..attack._progress import progress
from ..audit._clock import Clock
from ..audit._statistics import share
from ..certify import certify
from ..smooth import SequentialSmoothing, SmoothedVerdict, Smoothing, SmoothingMethod
from ._certify_show import CONFIDENCE, WIDTH, show_end, show_subject
from ._state import held_beside, state_beside
from ._values import number, whole

NAMES = (Smoothing.name, SequentialSmoothing.name)
_FIELDS = ("robust", "radius", "predict", "p_lower", "samples", "status", "counts")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmoothedRows:
    """The certificates of all rows under one eps: arrays [N] as in `SmoothedCertificate`."""

    eps: float
    seconds: float
    y: np.ndarray
    found: dict[str, np.ndarray]

    def facts(self) -> dict[str, Any]:
        """Counts, the certified accuracy with its interval, samples, and the seconds, which count compilation."""
        status, samples = self.found["status"], self.found["samples"]
        counted = {v.name.lower(): int(np.sum(status == v)) for v in SmoothedVerdict if v is not SmoothedVerdict.CERTIFIED}
        radius = self.found["radius"] * (self.found["predict"] == self.y)
        return {
            "eps": self.eps,
            "certified": share(self.found["robust"], CONFIDENCE),
            **counted,
            "average_certified_radius": float(radius.mean()) if radius.size else None,
            "samples_per_row": float(samples.mean()) if samples.size else None,
            "seconds": self.seconds,
        }


def method_of(name: str, sigma: str | None, samples: str | None, alpha: str | None) -> SmoothingMethod:
    """From the words of the options; ValueError names the one that is wrong."""
    if sigma is None:
        raise ValueError(f"--sigma is missing; {name} needs the scale of the noise, in the units of the data: 0.25 for images in [0, 1].")
    scale = number(sigma, "--sigma", "a number above 0 is needed, in the units of the data, e.g. 0.25")
    level = number(alpha, "--alpha", "a number above 0 and below 1 is needed, e.g. 0.001") if alpha is not None else 1e-3
    if scale <= 0:
        raise ValueError(f"--sigma is {sigma!r}; a number above 0 is needed, in the units of the data, e.g. 0.25.")
    if not 0 < level < 1:
        raise ValueError(f"--alpha is {alpha!r}; a number above 0 and below 1 is needed, the probability of a wrong certificate: 0.001.")
    n = whole(samples, "--samples", 1, 2**31 - 1) or 100_000
    kind = Smoothing if name == Smoothing.name else SequentialSmoothing
    return kind(sigma=scale, n=n, alpha=level)


def warn_of_few(method: SmoothingMethod, balls: Sequence[Any], row: tuple[int, ...]) -> None:
    """On stderr, for each eps that not even samples of one accord would certify."""
    n = np.array([method.n])
    for ball in balls:
        reach = method.randomizer.reach(ball, np.asarray(method.sigma, np.float64).reshape(1), row)
        if method.rule(reach.p0, reach.radius).lower(n, n)[0] < reach.p0[0]:
            text = f"--samples {method.n} cannot certify eps {float(ball.eps):g} with --sigma {float(method.sigma):g}, even if all agree"
            remedy = "a larger --sigma" if reach.p0[0] >= 1 else "more" if reach.p0[0] <= 0.5 else "more, or a larger --sigma"
            print(f"jaxsec: warning: {text}: give {remedy}.", file=sys.stderr)


def smoothed(
    model: Any, data: Any, balls: Sequence[Any], method: SmoothingMethod, seed: int, *, out: Path | None, quiet: bool, silent: bool
) -> list[SmoothedRows]:
    """All rows under each threat: a fixed number of samples answers all of them at once, a sequential test each for itself."""
    state, key = None if out is None else state_beside(out), jax.random.key(seed)
    once = isinstance(method, Smoothing)
    results: list[SmoothedRows] = []
    with held_beside(out), progress(False if quiet else None, "open") as report:
        clock = Clock(state, fingerprint(model, data.x, data.y, method, repr((__version__, balls[0].norm, seed))))
        if clock.resumed and not silent:
            Console(highlight=False).print(f"going on where the last run stopped, after {clock.wall_s:.1f} s of work", soft_wrap=True)
        for i, ball in enumerate(balls):
            name = "all eps" if once else f"eps {float(ball.eps):.6g}"

            def inner(stage: str, fraction: float, live: int, i: int = i, name: str = name) -> None:
                clock.tick()
                report(f"{name}: {stage}", fraction if once else (i + fraction) / len(balls), live)

            if once and results:
                found = dict(results[0].found)
                right = np.asarray(data.y) == found["predict"]
                found["robust"] = right & (found["radius"] >= float(ball.eps))
                status = np.where(found["robust"], SmoothedVerdict.CERTIFIED, SmoothedVerdict.OPEN)
                found["status"] = np.where(found["status"] == SmoothedVerdict.WRONG, SmoothedVerdict.WRONG, status).astype(np.int32)
            else:
                with clock.probe(name):
                    kept = None if state is None else state / "rows"
                    one = certify(model, data.x, data.y, threat=ball, method=method, key=key, progress=inner, state=kept)
                found = {field: np.asarray(getattr(one, field)) for field in _FIELDS}
            results.append(SmoothedRows(eps=float(ball.eps), seconds=clock.of(name), y=np.asarray(data.y), found=found))
    return results


def save(out: Path, results: Sequence[SmoothedRows], about: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {f: np.stack([r.found[f] for r in results]) for f in _FIELDS}
    np.savez_compressed(out, eps=np.array([r.eps for r in results]), y=results[0].y, about=np.array(json.dumps(about)), **arrays)


def show_json(results: Sequence[SmoothedRows], about: dict[str, Any], model: str) -> None:
    facts = {k: about[k] for k in ("tool", "threat", "methods", "seed", "data")}
    print(json.dumps(facts | {"model": {"path": model, **about["model"]}, "results": [r.facts() for r in results]}, indent=2))


def show_table(results: Sequence[SmoothedRows], method: SmoothingMethod, about: dict[str, Any], out: Path | None) -> None:
    """What was asked, a line for each eps, and where the rows are."""
    console = Console(highlight=False)
    sequential = isinstance(method, SequentialSmoothing)
    most = f"at most {method.n}" if sequential else f"{method.n}"
    what = f"{about['threat']['norm']}, {method.name}: {method.distribution} noise of sigma {float(method.sigma):.6g}, {most} samples, "
    what += f"each certificate wrong with a probability of at most {method.alpha:g}; seed {about['seed']}"
    console.print(what, style="dim", markup=False, soft_wrap=True)
    console.print(
        "certified is the smoothed classifier: the class most noised copies get, not the model on the input itself",
        style="dim",
        soft_wrap=True,
    )
    show_subject(console, about)
    table = Table(box=None, pad_edge=False)
    for head in (
        "eps",
        "certified",
        "rows",
        "95 %\ninterval",
        "wrong",
        *(["too\nlow"] if sequential else []),
        "open",
        "samples\na row",
        "seconds",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    facts = [r.facts() for r in results]
    for f in facts:
        certified, (low, high) = f["certified"], f["certified"]["interval"]
        line = [f"{f['eps']:.6g}", f"{100 * certified['value']:.1f} %", str(certified["count"]), f"{100 * low:.1f} to {100 * high:.1f}"]
        line += [str(f["wrong"]), *([str(f["refuted"])] if sequential else []), str(f["open"])]
        table.add_row(*line, f"{f['samples_per_row']:.0f}", f"{f['seconds']:.1f}")
    Console(highlight=False, width=max(console.width, WIDTH)).print(table)
    if not sequential:
        console.print(
            f"average certified radius {facts[0]['average_certified_radius']:.3f} (0 for rows that are wrong or open at every radius)"
        )
    show_end(console, about, out)
