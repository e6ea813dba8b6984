"""`jaxsec certify`: proves row by row that no input of a threat set changes the class, and counts the rows for each eps."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import (
    MODEL,
    Data,
    DivideBy,
    LabelColumn,
    Labels,
    Layout,
    Limit,
    Mean,
    Quiet,
    Range,
    Seed,
    Std,
    StoredLayout,
    Threat,
    XKey,
    YKey,
)
from ._values import methods, npz_file, number, seconds_of, seed_of, whole

SMOOTHING = ("smoothing", "sequential-smoothing")


def certify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    data: Data = None,
    threat: Threat = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(
            "--eps",
            metavar="EPS",
            help="The largest change allowed, at least 0, in the units of the data: 0.03 or 8/255 for data in [0, 1], 8 for 0 to 255. "
            "Several with commas, or --eps again. [default: what a folder of 'jaxsec train' was trained for, in its norm; else 8/255 for "
            "linf, 0.5 for l2 (and smoothing), none for l1]",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="METHODS",
            help="ibp, crown-ibp, forward (for few inputs), crown, alpha-crown or beta-crown, from cheap and loose to dear and tight; "
            "several with commas, each for the rows that those before it left open. beta-crown (linf) attacks, bounds and branches. "
            "Or, alone: smoothing, or sequential-smoothing, which stops sampling a row once eps is decided; both certify the smoothed "
            "classifier.",
        ),
    ] = "ibp,crown",
    sigma: Annotated[
        str | None, typer.Option("--sigma", metavar="S", help="Of smoothing: standard deviation of the noise, in the units of the data.")
    ] = None,
    samples: Annotated[
        str | None, typer.Option("--samples", metavar="N", help="Of smoothing: samples of each row, at most. [default: 100000]")
    ] = None,
    alpha: Annotated[
        str | None, typer.Option("--alpha", metavar="A", help="Of smoothing: the probability of a wrong certificate. [default: 0.001]")
    ] = None,
    seed: Seed = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout",
            metavar="S",
            help="Seconds of work for each row that beta-crown works on, above 0; compilation is not counted. [default: 60]",
        ),
    ] = None,
    sound: Annotated[
        bool, typer.Option("--sound", help="Count all rounding of floating point, of the model and of the bounds; about twice the work.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="MIB", help="MiB for the bounds' working arrays, at least 1; less is slower. [default: 1024]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="An .npz file for the result of every row. [default: no file]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    labels: Labels = None,
    label_column: LabelColumn = None,
    x_key: XKey = None,
    y_key: YKey = None,
    layout: Layout = None,
    stored_layout: StoredLayout = None,
    divide_by: DivideBy = None,
    range: Range = None,
    mean: Mean = None,
    std: Std = None,
    limit: Limit = None,
    quiet: Quiet = False,
) -> int:
    """Prove row by row that no input of the threat set changes the class.

    Certified accuracy is the share of rows that are right and proved to stay so, with its 95 % interval (Clopper-Pearson); true robust
    accuracy on these rows is at least that, what attack prints is at most that of an attack. A row is open where no method proved it,
    which does not mean that an adversarial input exists; broken where beta-crown found one.

    With --out, a killed run goes on where it was when the same command runs again; until it is done, its state is in a hidden folder
    beside the file. An existing FILE is replaced.

    The .npz holds eps [E], names (of the methods), y [N], and for each eps and row [E, N]: robust, margin (the best lower bound of the
    label's logit less any other; 0 where beta-crown proved that it is above 0 and no more), method (an index into names, -1 for none)
    and status; and about, a JSON text: threat, model, data, versions, what the numbers of status mean. Of smoothing it holds robust,
    radius, predict (-1: it abstains), p_lower, samples and status [E, N], counts [E, N, K], eps, y and about.

    Exit codes: 0 done, 2 a mistake in the call or the data, or a model with an operation that cannot be bounded, 3 a defect of jaxsec,
    130 interrupted.
    """
    if method.strip().lower() in SMOOTHING:
        given = {"--timeout": timeout, "--sound": sound or None, "--budget": budget}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{wrong[0]} is an option of bounds; {method.strip().lower()} takes --sigma, --samples, --alpha and --seed.")
        return _smoothed(
            method.strip().lower(), model, threat, _several(eps), (sigma, samples, alpha, seed), out, json, quiet,
            data=data, labels=labels, label_column=label_column, x_key=x_key, y_key=y_key, layout=layout, stored_layout=stored_layout,
            divide_by=divide_by, range=range, mean=mean, std=std, limit=limit,
        )  # fmt: skip
    names = methods(method, "--method", f"; or, alone, {' or '.join(SMOOTHING)}")
    for name, value in (("--sigma", sigma), ("--samples", samples), ("--alpha", alpha), ("--seed", seed)):
        if value is not None:
            raise ValueError(f"{name} is {value!r}, which smoothing alone reads; say --method smoothing, or leave it out.")
    seconds = seconds_of(timeout, "--timeout", 60)
    if seconds is not None and "beta-crown" not in names:
        raise ValueError(f"--timeout is {timeout!r}, which beta-crown alone reads; say --method {method},beta-crown, or leave it out.")
    given = _several(eps)
    mib = whole(budget, "--budget", 1, 2**20) or 1024
    if out is not None:
        npz_file(out, model, data, labels)

    from ..bound import BetaCROWN, by_name
    from ._about import about_certify
    from ._cache import keep_programs
    from ._certify_run import certified
    from ._certify_show import save, show_json, show_table
    from ._inputs import Source, threat_of
    from ._interrupt import interruptible
    from ._state import state_beside
    from ._subject import model_and_data
    from ._trained import threat_for, trained

    keep_programs()
    source = Source(
        data=data,
        labels=labels,
        label_column=label_column,
        x_key=x_key,
        y_key=y_key,
        layout=layout,
        stored_layout=stored_layout,
        divide_by=divide_by,
        range=range,
        mean=mean,
        std=std,
        limit=limit,
    )
    ladder = by_name(names)
    if seconds is not None:
        ladder = [m.replace(timeout=seconds) if isinstance(m, BetaCROWN) else m for m in ladder]
    state = None if out is None else state_beside(out)
    with interruptible(state):
        net, rows = model_and_data(model, source, 0)
        run = trained(model)
        balls = [threat_of(*threat_for(run, threat, value, rows), rows) for value in given]
        results = certified(net, rows, balls, ladder, sound=sound, budget=mib * 2**20, out=out, quiet=quiet, silent=json or quiet)
        about = about_certify(net, rows, ladder, balls, sound=sound)
        if out is not None:
            save(out, results, names, rows.y, about)
    if state is not None:
        shutil.rmtree(state, ignore_errors=True)
    if json:
        show_json(results, names, about, model)
    elif not quiet:
        show_table(results, names, about, out, sound=sound)
    return 0


def _smoothed(
    method: str, model: str, threat: str | None, eps: list[str | None], options: tuple[str | None, ...], out: Path | None, json: bool,
    quiet: bool, **source: Any,
) -> int:  # fmt: skip
    """The command with a smoothing method; l2 is the norm unless another is named."""
    from ._certify_smooth import method_of, save, show_json, show_table, smoothed, warn_of_few

    sigma, samples, alpha, seed = options
    chosen, start = method_of(method, sigma, samples, alpha), seed_of(seed, "--seed")
    if out is not None:
        npz_file(out, model, source["data"], source["labels"])

    from ._about import about_certify
    from ._cache import keep_programs
    from ._inputs import Source, threat_of, warn_of_noise
    from ._interrupt import interruptible
    from ._state import state_beside
    from ._subject import model_and_data
    from ._trained import threat_for, trained

    keep_programs()
    state = None if out is None else state_beside(out)
    with interruptible(state):
        net, rows = model_and_data(model, Source(**source), 0)
        run = trained(model)
        balls = [threat_of(*threat_for(run, threat, value, rows, usual="l2"), rows) for value in eps]
        warn_of_noise("--sigma", float(chosen.sigma), balls[0])
        warn_of_few(chosen, balls, rows.x.shape[1:])
        results = smoothed(net, rows, balls, chosen, start, out=out, quiet=quiet, silent=json or quiet)
        about = about_certify(net, rows, [chosen], balls, sound=False, seed=start)
        if out is not None:
            save(out, results, about)
    if state is not None:
        shutil.rmtree(state, ignore_errors=True)
    if json:
        show_json(results, about, model)
    elif not quiet:
        show_table(results, chosen, about, out)
    return 0


def _several(given: list[str] | None) -> list[str | None]:
    """`--eps 0.1,0.2 --eps 8/255` -> three words; [None] for the default. Whether each is a number is asked where the threat is made."""
    if not given:
        return [None]
    words = [word.strip() for text in given for word in text.split(",")]
    if "" in words:
        raise ValueError(f"--eps is {','.join(given)!r}; a number is missing beside a comma: --eps 0.01,0.02.")
    wanted = "a finite number of at least 0 is needed, in the units of the data: 0.03, or a fraction such as 8/255"
    values: list[float] = []
    for word in words:
        value = number(word, "--eps", wanted)
        if value in values:
            raise ValueError(f"--eps has {word!r} twice; each budget is certified once: leave one out.")
        values.append(value)
    return list(words)
