"""A whole list of properties: each line once, its result kept at once, and a summary over all of them."""

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax

from ..certify._verify import Verification
from ..io import Instance
from ._interrupt import Interrupted, interruptible
from ._main import UserError, line_of
from ._values import no_input
from ._verify_ask import Net, ask, network
from ._verify_expected import compared, truth_of
from ._verify_list import instances_of, name_of, selected, there
from ._verify_progress import Watch, watching
from ._verify_results import Results, Row, identity_of
from ._verify_show import show_family, show_faults, show_going_on
from ._words import MISTAKES

NETS = 64  # kept in memory: lists come back to a network many times, in any order
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), 30_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line asks of a list."""

    listed: Path
    out: Path
    timeout: float | None
    limit: int | None
    sample: int | None
    shard: str | None
    fresh: bool
    expected: Path | None
    seed: int
    sound: bool


def run_family(wanted: Wanted, shown: str, *, failing: set[str], quiet: bool) -> int:
    """Asks every line that is not in the results yet; the exit code."""
    with interruptible():
        listed = there(wanted.listed, "list of --instances", "a .csv file")
        table = None if wanted.expected is None else there(wanted.expected, "table of --expected", "a .csv file")
        no_input(wanted.out, listed, table)
        everything = instances_of(listed, wanted.timeout)
        chosen = selected(everything, limit=wanted.limit, sample=wanted.sample, seed=wanted.seed, shard=wanted.shard)
        truth = None if table is None else truth_of(table, [name_of(i, listed.parent) for i in chosen])
        results = Results(wanted.out)
        with results.held():
            identity = identity_of(listed, everything, timeout=wanted.timeout, seed=wanted.seed, sound=wanted.sound)
            results.begin(identity, fresh=wanted.fresh)
            done = results.done(everything, listed.parent)
            results.keep_to(identity, [instance for instance in everything if instance.line in done])
            rows = _rows(wanted, chosen, results, done, quiet)
    found = None if truth is None else compared(rows, truth)
    if not quiet or shown != "text":
        show_family(rows, found, wanted.out, shown)
    else:
        show_faults(rows, found, wanted.out)
    return 1 if (found is not None and found.wrong) or any(row.verdict in failing for row in rows) else 0


def _rows(wanted: Wanted, chosen: list[Instance], results: Results, done: dict[int, Row], quiet: bool) -> list[Row]:
    """The rows of the lines that were chosen, in the order of the list; those that `done` lacks are asked now."""
    load = functools.lru_cache(maxsize=NETS)(network)
    kept = sum(instance.line in done for instance in chosen)
    if kept and not quiet:
        show_going_on(kept, len(chosen), wanted.out)
    try:
        with watching(len(chosen), quiet) as watch:
            for instance in chosen:
                if (row := done.get(instance.line)) is None:
                    watch.begin(instance.vnnlib.name)
                    row = _asked(instance, load, wanted, results, watch)
                    results.add(row)
                    done[instance.line] = row
                    kept += 1
                    _drop_programs()
                watch.end(row.verdict)
    except KeyboardInterrupt:
        if not kept:
            raise
        again = "the same command without --fresh goes on." if wanted.fresh else "run the same command again to go on."
        raise Interrupted(f"interrupted; {kept} of {len(chosen)} lines are done and kept in {wanted.out}: {again}") from None
    return [done[instance.line] for instance in chosen]


def _asked(instance: Instance, load: Callable[[Path], Net], wanted: Wanted, results: Results, watch: Watch) -> Row:
    """The row of one line; what goes wrong is its verdict, and the next line is asked."""
    begun = time.monotonic()
    try:
        net = load(instance.onnx)
        answer = ask(net, instance.vnnlib, timeout=instance.timeout, seed=wanted.seed, sound=wanted.sound, on_event=watch.event)
        results.keep(answer, instance.line)
    except Exception as error:
        said = line_of(error) if isinstance(error, (*MISTAKES, UserError)) else f"{type(error).__name__}: {error}"
        said, seconds = said[:1000], time.monotonic() - begun
        answer = Verification("error", None, None, seconds, "", 0, math.nan, "", said)
    onnx, vnnlib = name_of(instance, wanted.listed.parent)
    return Row(
        onnx=onnx,
        vnnlib=vnnlib,
        timeout=instance.timeout,
        verdict=answer.verdict,
        seconds=float(answer.seconds),
        method=answer.method,
        branches=int(answer.branches),
        margin=float(answer.margin),
        note=" ".join(answer.note.split()),
    )


def _drop_programs() -> None:
    """Each compiled program holds dozens of memory maps; beyond the kernel's limit (65,530 in a process) XLA crashes while it compiles."""
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()
