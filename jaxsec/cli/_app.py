"""The commands. Each parses its words, calls one verb, and prints."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="jaxsec",
    help="Attack and audit machine-learning models. "
    "Exit codes: 0 done, 1 below --fail-under, 2 usage or input error, 3 internal, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[str | None, typer.Option("--data", help="digits, .npz, .npy, IDX, CIFAR-10 binary, .csv (each also .gz where usual).")]
Labels = Annotated[str | None, typer.Option("--labels", help="Label file of .npy and IDX inputs.")]
Layout = Annotated[str | None, typer.Option("--layout", help="How the model wants rows: flat, NCHW or NHWC.")]
Range = Annotated[str | None, typer.Option("--range", help="Lowest and highest valid value, e.g. 0,1.")]
Mean = Annotated[str | None, typer.Option("--mean", help="Per-channel mean that the model expects to be taken off, e.g. 0.49,0.48,0.45.")]
Std = Annotated[str | None, typer.Option("--std", help="Per-channel deviation that the model expects to be divided by.")]
LabelColumn = Annotated[
    str | None, typer.Option("--label-column", help="Label column of a CSV: its name, or its position without a header.")
]
Limit = Annotated[int | None, typer.Option("--limit", help="The first rows only.", min=1)]
Threat = Annotated[str | None, typer.Option("--threat", help="linf, l2 or l1. [default: linf]")]
Eps = Annotated[
    str | None,
    typer.Option(
        "--eps", help="Budget in input units, e.g. 0.03 or 8/255. [default: 8/255 for linf (0.1 for the embedded digits), 0.5 for l2]"
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random. [default: 0]", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"jaxsec {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of every command."""


@app.command()
def audit(
    model: Annotated[
        str | None, typer.Argument(help=".onnx, or file.py:attribute (which runs the file). Without it: the embedded digits model.")
    ] = None,
    data: Data = None,
    threat: Threat = None,
    eps: Eps = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("report"),
    preset: Annotated[str | None, typer.Option("--preset", help="quick, standard or full. [default: standard]")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="TOML file with single settings.")] = None,
    fail_under: Annotated[
        float | None, typer.Option("--fail-under", help="Least robust accuracy, 0 to 1; below it the exit code is 1.")
    ] = None,
    labels: Labels = None,
    layout: Layout = None,
    range: Range = None,
    mean: Mean = None,
    std: Std = None,
    label_column: LabelColumn = None,
    limit: Limit = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> int:
    """Measure a model's robustness and write report.json, .html, .md and .sarif.

    Without --data and MODEL, audits a small network that it trains on scikit-learn's digits. The keys of a --plan file are the fields of
    jaxsec.audit.Plan, and seed, threat and eps. A killed audit goes on where it was
    when the same command runs again; its state is in OUT/.state until the report is written.
    """
    import jax

    from ..audit import Plan, read_plan
    from ..audit import audit as run_audit
    from ._cache import keep_programs
    from ._inputs import DEFAULT_EPS, DIGITS_EPS, threat_of
    from ._show import audit_summary
    from ._subject import model_and_data

    chosen, run = read_plan(plan, preset=preset) if plan else (Plan.preset_of(preset or "standard"), {})
    if fail_under is not None:
        if not 0 <= fail_under <= 1:
            hint = f"; did you mean {fail_under / 100:g}?" if 1 < fail_under <= 100 else "."
            raise ValueError(f"--fail-under is {fail_under:g}; a share from 0 to 1 is needed{hint}")
        chosen = chosen.replace(fail_under=fail_under)
    _writable(out, "a folder for the report")
    keep_programs()
    seed = _seed(run.get("seed", 0)) if seed is None else seed
    net, rows = model_and_data(model, data, labels, layout, range, mean, std, label_column, limit, seed)
    ball = threat_of(
        str(threat or run.get("threat", "linf")), run.get("eps") if eps is None else eps, rows, DIGITS_EPS if model is None else DEFAULT_EPS
    )
    state = out / ".state"
    report = run_audit(
        net,
        rows,
        threat=ball,
        key=jax.random.key(seed),
        plan=chosen,
        progress=False if quiet else None,
        state=state,
        context={
            "seed": seed,
            "eps": str(eps or run.get("eps") or "default"),
            "model": model or "embedded digits model",
            "data": data or "embedded digits",
            "plan file": str(plan or ""),
        },
    )
    report.save(out)
    shutil.rmtree(state, ignore_errors=True)
    if not quiet:
        audit_summary(report, out)
    return 0 if report.passed else 1


@app.command()
def attack(
    model: Annotated[str, typer.Argument(help=".onnx, or file.py:attribute (which runs the file).")],
    data: Data = None,
    method: Annotated[str, typer.Option("--method", help="apgd, pgd, fgsm, bim, fab, square or autoattack.")] = "apgd",
    threat: Threat = None,
    eps: Eps = None,
    out: Annotated[Path, typer.Option("--out", help="NPZ file for the adversarial inputs.")] = Path("adv.npz"),
    steps: Annotated[int | None, typer.Option("--steps", help="Iterations, or queries of square.", min=1)] = None,
    restarts: Annotated[int | None, typer.Option("--restarts", help="Independent runs.", min=1)] = None,
    labels: Labels = None,
    layout: Layout = None,
    range: Range = None,
    mean: Mean = None,
    std: Std = None,
    label_column: LabelColumn = None,
    target: Annotated[
        int | None,
        typer.Option("--target", help="The class to reach; without it, any wrong class counts. Rows of that class are left out.", min=0),
    ] = None,
    limit: Limit = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> int:
    """Run one attack and save its inputs: x (adversarial), x_clean, y, row (its number in the data), success, distance, queries, status."""
    import jax
    import numpy as np

    from ..attack import attack as run_attack
    from ..core._check import n_classes_of
    from ._cache import keep_programs
    from ._inputs import away_from, method_of, threat_of
    from ._show import attack_summary
    from ._subject import model_and_data

    _writable(out.parent, "an NPZ file in a folder")
    if out.suffix != ".npz":
        raise ValueError(f"--out is {str(out)!r}; a name that ends in .npz is needed.")
    keep_programs()
    seed = 0 if seed is None else seed
    net, rows = model_and_data(model, data, labels, layout, range, mean, std, label_column, limit, seed)
    if target is not None and target >= (k := n_classes_of(net, rows.x)):
        raise ValueError(f"--target is {target}; the model has {k} classes, so 0 to {k - 1} are allowed.")
    ball = threat_of(threat or "linf", eps, rows)
    chosen = method_of(method, steps=steps, restarts=restarts, layout=rows.layout)
    kept = away_from(target, rows)
    x, y = rows.x[kept], rows.y[kept]
    goal = y if target is None else np.full_like(y, target)
    found = run_attack(
        net,
        x,
        goal,
        threat=ball,
        method=chosen,
        key=jax.random.key(seed),
        targeted=target is not None,
        row_ids=kept,
        progress=False if quiet else None,
    )
    fields = ("x", "success", "distance", "queries", "gradients", "first_step", "stage", "status")
    arrays: dict[str, Any] = {name: np.asarray(getattr(found, name)) for name in fields}
    np.savez_compressed(out, x_clean=x, y=y, row=kept, **arrays)
    if not quiet:
        attack_summary(found, out, target)
    return 0


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder with a report.json.")], quiet: Quiet = False) -> int:
    """Render report.html, .md and .sarif again from report.json."""
    from ..audit import Report

    read = Report.load(folder)
    paths = read.render(folder if folder.is_dir() else folder.parent)
    if not quiet:
        for path in paths:
            typer.echo(str(path))
    return 0


@app.command()
def version() -> int:
    """Print the versions of jaxsec and of what it computes with."""
    from .. import __version__
    from ..audit._environment import environment

    env = environment()
    typer.echo(f"jaxsec {__version__}")
    for name, text in env["packages"].items():
        typer.echo(f"{name} {text}")
    typer.echo(f"python {env['python']} on {env['platform']}, {env['backend']}: {env['devices']} x {env['device']}")
    return 0


def _seed(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"seed is {value!r}; a whole number of at least 0 is needed.")
    return value


def _writable(folder: Path, wanted: str) -> None:
    """Finds out before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".jaxsec-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"--out: cannot write in {str(folder)!r} ({error.strerror}); name {wanted} that you may write to.") from error
