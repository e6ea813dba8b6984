"""`jaxsec verify`: proves that a network has a property, or finds an input that violates it; one pair of files, or a whole list."""

from pathlib import Path
from typing import Annotated

import typer

from ..io._vnnlib_result import VERDICTS
from ._options import MODEL, Quiet, Seed
from ._values import no_input, seconds_of, seed_of, whole, writable

FORMATS = ("text", "json", "vnncomp")
TIMEOUT = 120.0
_LISTED = "With --instances: "


def verify(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL)] = None,
    prop: Annotated[
        Path | None,
        typer.Argument(metavar="PROPERTY", help="A .vnnlib file (also .vnnlib.gz): the outputs that are unsafe."),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="S",
            help="Seconds for each property, above 0; what is being compiled or bounded then is finished first. [default: 120; with "
            "--instances what the list says]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the result as VNN-COMP wants it, for sat with the counterexample. With --instances the .csv file of all results. "
            "[default: no file; with --instances results.csv]",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="What is printed: text, json, or vnncomp (what --out writes). [default: text]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    sound: Annotated[
        bool, typer.Option("--sound", help="Count a proof only if its arithmetic was rounded outward; without that, unsat becomes unknown.")
    ] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="VERDICTS",
            help="Exit with code 1 on one of these: sat, unsat, timeout, unknown or error, several with commas. [default: on none]",
        ),
    ] = None,
    instances: Annotated[
        Path | None,
        typer.Option(
            "--instances",
            metavar="FILE",
            help="A .csv list in place of MODEL and PROPERTY: lines onnx,vnnlib,timeout, or any columns under a header with onnx, vnnlib "
            "and timeout (or timeout_s). Paths start at the list's folder; .gz may be left out.",
        ),
    ] = None,
    limit: Annotated[str | None, typer.Option("--limit", metavar="N", help=f"{_LISTED}its first N lines, N at least 1.")] = None,
    sample: Annotated[
        str | None,
        typer.Option("--sample", metavar="N", help=f"{_LISTED}N lines drawn at random by --seed, N at least 1; after --limit."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="I/N", help=f"{_LISTED}part I of N of the lines, I from 1 to N; each part needs an --out of its own."
        ),
    ] = None,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--fresh", show_default=False, help=f"{_LISTED}skip the lines that --out has, or begin --out anew. [default: --resume]"
        ),
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            "--expected",
            metavar="FILE",
            help=f"{_LISTED}a .csv with columns onnx, vnnlib and verdict; a verdict that contradicts it is shown, and the exit code is 1.",
        ),
    ] = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> int:
    """Prove that a network has a property, or find an input that violates it.

    A property says which outputs are unsafe for which inputs (VNNLIB 1.0). Verdicts: unsat (proved: no input of the set gives an unsafe
    output), sat (an input gives one; it is printed if short and always in --out), timeout, unknown. Outputs are those of the file: a
    final Softmax stays.

    With --instances every result is in --out as soon as it is known, so that a killed run goes on where it was when the same command
    runs again; delete a line of --out to ask it again. Counterexamples lie beside, in results.witnesses/LINE.txt. A line that fails
    is recorded as error, and the run goes on; --fail-on error makes that exit code 1.

    Exit codes: 0 done, whatever the verdict; 1 a verdict of --fail-on, or one that contradicts --expected; 2 a mistake in the call or a
    file, or a network with an operation that cannot be bounded; 3 a defect of jaxsec; 130 interrupted.
    """
    seconds = seconds_of(timeout, "--timeout", 120)
    shown = _format(format, json)
    failing = _verdicts(fail_on)
    start = 0 if seed is None else seed_of(seed, "--seed")
    if instances is None:
        listed = {"--limit": limit, "--sample": sample, "--shard": shard, "--resume or --fresh": resume, "--expected": expected}
        if stray := [option for option, value in listed.items() if value is not None]:
            raise ValueError(f"{stray[0]} was given without --instances; name a list with --instances FILE, or leave it out.")
        return _one(model, prop, seconds or TIMEOUT, out, shown, sound=sound, failing=failing, seed=start, quiet=quiet)
    if model is not None:
        raise ValueError(f"MODEL {model!r} was given beside --instances {str(instances)!r}, which names the models; leave one out.")
    if shown == "vnncomp":
        raise ValueError("--format is 'vnncomp', the text of one result; with --instances allowed: text, json. Results go to --out.")
    table = Path("results.csv") if out is None else out
    if table.suffix != ".csv" or table.is_dir():
        raise ValueError(f"--out is {str(table)!r}{', a folder' if table.is_dir() else ''}; with --instances a .csv file is needed.")
    writable(table.parent, "a .csv file in a folder")

    from ._cache import keep_programs
    from ._verify_family import Wanted, run_family
    from ._verify_list import part_of

    part_of(shard)  # a mistake in it is told before the list is read

    wanted = Wanted(
        listed=instances,
        out=table,
        timeout=seconds,
        limit=whole(limit, "--limit", 1),
        sample=whole(sample, "--sample", 1),
        shard=shard,
        fresh=resume is False,
        expected=expected,
        seed=start,
        sound=sound,
    )
    keep_programs()
    return run_family(wanted, shown, failing=failing, quiet=quiet)


def _one(
    model: str | None,
    prop: Path | None,
    seconds: float,
    out: Path | None,
    shown: str,
    *,
    sound: bool,
    failing: set[str],
    seed: int,
    quiet: bool,
) -> int:
    if model is None or prop is None:
        missing = "MODEL and PROPERTY are" if model is None else "PROPERTY is"
        raise ValueError(f"{missing} missing; needed are two files, net.onnx prop.vnnlib, or a list of them: --instances FILE.")
    from ._verify_list import packed, there

    if out is not None:
        if out.is_dir():
            raise ValueError(f"--out is {str(out)!r}, a folder; the name of a file for the result is needed.")
        no_input(out, model, prop, packed(Path(model)), packed(prop))
        writable(out.parent, "a file for the result")

    from ._cache import keep_programs
    from ._interrupt import interruptible
    from ._verify_ask import ask, network
    from ._verify_progress import watching
    from ._verify_show import show_answer, write_answer

    keep_programs()
    file = there(prop, "property", "a .vnnlib file")
    with interruptible():
        net = network(packed(Path(model)))
        with watching(None, quiet) as watch:
            watch.begin(prop.name)
            answer = ask(net, file, timeout=seconds, seed=seed, sound=sound, on_event=watch.event)
        if out is not None:
            write_answer(answer, out)
    if not quiet or shown != "text":
        show_answer(answer, shown, model, prop, out, timeout=seconds, notes=net.model.info.notes)
    return 1 if answer.verdict in failing else 0


def _format(name: str | None, json: bool) -> str:
    if name is not None and name not in FORMATS:
        raise ValueError(f"--format is {name!r}; allowed: {', '.join(FORMATS)}.")
    if json and name not in (None, "json"):
        raise ValueError(f"--json and --format {name} were both given; leave one out.")
    return "json" if json else name or "text"


def _verdicts(text: str | None) -> set[str]:
    words = set() if text is None else {word.strip() for word in text.split(",")}
    if unknown := sorted(words - set(VERDICTS)):
        raise ValueError(f"--fail-on is {text!r}; {unknown[0]!r} is no verdict; allowed: {', '.join(VERDICTS)}, several with commas.")
    return words
