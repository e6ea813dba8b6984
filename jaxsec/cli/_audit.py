"""`jaxsec audit`: measures a model's robustness and writes the report."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from ._options import (
    MODEL,
    Data,
    DivideBy,
    Eps,
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
from ._values import methods, not_left_empty, number, seed_of, share, writable


def audit(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=f"{MODEL} Without MODEL and --data: a small network and scikit-learn's digits.")
    ] = None,
    data: Data = None,
    threat: Threat = None,
    eps: Eps = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of the report; an older report in it is replaced.")] = Path(
        "report"
    ),
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="How much is done: quick (200 rows, weakened attacks), standard (1000 rows, AutoAttack as published) or full (all rows, "
            "more attacks and steps). [default: standard, or that of --plan]",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="TOML file with single settings, such as rows = 500; options come before it."),
    ] = None,
    fail_under: Annotated[
        str | None,
        typer.Option(
            "--fail-under",
            metavar="SHARE",
            help="Least robust accuracy that passes, a share from 0 to 1 (0.4 is 40 %); below it the exit code is 1. [default: no limit]",
        ),
    ] = None,
    certify: Annotated[
        str | None,
        typer.Option(
            "--certify",
            metavar="METHODS",
            help="Bound methods of the certified curve, as --method of jaxsec certify: ibp, crown-ibp, forward, crown, alpha-crown or "
            "beta-crown (linf; at most 10 s for each row and budget, or certify_timeout of --plan), several with commas; none leaves the "
            "curve out; auto is ibp,crown, and ibp,crown-ibp for models on which CROWN would take longer than the attacks. "
            "[default: auto, or those of --plan]",
        ),
    ] = None,
    smooth_sigma: Annotated[
        str | None,
        typer.Option(
            "--smooth-sigma",
            metavar="S",
            help="Also certify the smoothed classifier: standard deviation of the Gaussian noise, in the units of the data; the report "
            "gains its certified accuracy against the radius, with the attacked one. 0 leaves it out. [default: that of --plan, or none]",
        ),
    ] = None,
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
    seed: Seed = None,
    quiet: Quiet = False,
) -> int:
    """Measure a model's robustness and write report.json, .html, .md and .sarif.

    Attacks bound robust accuracy from above, certificates from below; rows between the two are undecided. A model that cannot be bounded
    is attacked all the same, and the report says why it has no certified curve.

    Up to 1000 rows (200 with --preset quick) are drawn at random from the data. A killed audit goes on where it was when the same command
    runs again; its state is in the report's folder, under .state, until the report is written.

    Settings of a --plan file: preset, probes, rows, confidence, fail_under, noise_draws, sweep, sweep_steps, sweep_restarts, attack,
    attack_steps, attack_queries, attack_targets, blackbox_queries, distance_steps, certify, certify_timeout, certify_sound,
    smooth_sigma, smooth_samples, smooth_alpha, smooth_steps, smooth_noises, examples, layout, max_rows, threat, eps, seed.

    Exit codes: 0 done, 1 below --fail-under, 2 a mistake in the call or the data, 3 a defect of jaxsec, 130 interrupted.
    """
    import jax

    from ..audit import Plan, read_plan
    from ..audit import audit as run_audit
    from ..audit._plan import PRESETS
    from ._cache import keep_programs
    from ._inputs import DEFAULT_EPS, DIGITS_EPS, Source, threat_of, warn_of_noise
    from ._interrupt import interruptible
    from ._show import audit_summary, going_on
    from ._subject import model_and_data
    from ._trained import threat_for, trained

    if preset is not None and preset not in PRESETS:
        raise ValueError(f"--preset is {preset!r}; allowed: {', '.join(PRESETS)}.")
    chosen, run = read_plan(plan, preset=preset) if plan else (Plan.preset_of(preset or "standard"), {})
    if (least := share(fail_under, "--fail-under")) is not None:
        chosen = chosen.replace(fail_under=least)
    if certify is not None:
        word = certify.strip().lower()
        ladder = () if word == "none" else (word,) if word == "auto" else methods(certify, "--certify", ", or auto, or none")
        chosen = chosen.replace(certify=ladder, probes=tuple(dict.fromkeys([*chosen.probes, "certify"])))
    if smooth_sigma is not None:
        sigma = number(smooth_sigma, "--smooth-sigma", "a number of at least 0 is needed, in the units of the data, e.g. 0.25")
        if sigma < 0:
            raise ValueError(f"--smooth-sigma is {smooth_sigma!r}; a number of at least 0 is needed, in the units of the data, e.g. 0.25.")
        chosen = chosen.replace(smooth_sigma=sigma, probes=tuple(dict.fromkeys([*chosen.probes, "smooth"])))
    start = seed_of(seed, "--seed") if seed is not None else seed_of(run.get("seed", 0), f"{plan}: seed")
    new = not out.exists()
    writable(out, "a folder for the report")
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
    state = out / ".state"
    with not_left_empty(out if new else None), interruptible(state):
        net, rows = model_and_data(model, source, start)
        norm, radius = threat_for(
            trained(model), run.get("threat") if threat is None else threat, run.get("eps") if eps is None else eps, rows
        )
        names = [f"{plan}: {key}" if given is None and key in run else f"--{key}" for key, given in (("threat", threat), ("eps", eps))]
        ball = threat_of(norm, radius, rows, DIGITS_EPS if model is None else DEFAULT_EPS, (names[0], names[1]))
        warn_of_noise("--smooth-sigma" if smooth_sigma is not None else f"{plan}: smooth_sigma", chosen.smooth_sigma, ball)
        context = {
            "seed": start,
            "eps": "default" if radius is None else str(radius),
            "model": model or "embedded digits model",
            "data": data or "embedded digits",
            "plan file": str(plan or ""),
        }
        report = run_audit(
            net,
            rows,
            threat=ball,
            key=jax.random.key(start),
            plan=chosen,
            progress=False if quiet else None,
            state=state,
            resumed=None if quiet else going_on,
            context=context,
        )
        report.save(out)
    shutil.rmtree(state, ignore_errors=True)
    if all(family["status"] == "NOT TESTED" for family in report.data["coverage"]):
        print(
            "jaxsec: warning: no attack ran, so nothing was tested: name sweep, attack, blackbox or distance in the plan's probes.",
            file=sys.stderr,
        )
    if not quiet:
        audit_summary(report, out)
    return 0 if report.passed else 1
