"""`jaxsec attack`: runs one attack and saves the inputs that it found."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import (
    MODEL,
    AttackEps,
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
from ._values import npz_file, seed_of, whole


def attack(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    data: Data = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="fgsm (one step), bim, pgd, apgd (no step size to choose), fab (a nearest adversarial input), square (needs scores only; "
            "images) or autoattack (the usual sequence of four, the slowest and strongest).",
        ),
    ] = "apgd",
    threat: Threat = None,
    eps: AttackEps = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="An .npz file for the adversarial inputs.")] = Path("adv.npz"),
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            metavar="N",
            help="Iterations, at least 1; for square, queries per row. Not for fgsm. [default: bim 10, pgd 40, apgd, fab and autoattack "
            "100, square 5000]",
        ),
    ] = None,
    restarts: Annotated[
        str | None,
        typer.Option(
            "--restarts",
            metavar="N",
            help="Runs from other starting points, at least 1; a row falls if any breaks it. For pgd, apgd, fab and square. [default: 1]",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="CLASS",
            help="Seek this class, from 0 to the number of classes less 1; rows of that class are left out. [default: any wrong class]",
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
    """Run one attack on every row and save what it found.

    The .npz holds, for each row: x (the adversarial input, or the strongest attempt where none was found), x_clean, y (the label), row (its
    number in the data), success, distance (between x and x_clean in the norm of --threat), queries (evaluations of the model), gradients,
    first_step, stage and status (see jaxsec.AttackResult); and about, a JSON text: method, threat, seed, model, data, versions, what the
    numbers of status and stage mean.

    Exit codes: 0 done, 2 a mistake in the call or the data, 3 a defect of jaxsec, 130 interrupted.
    """
    import json

    import jax
    import numpy as np

    from ..attack import attack as run_attack
    from ..core._check import n_classes_of
    from ._about import about_attack
    from ._cache import keep_programs
    from ._inputs import Source, away_from, method_of, threat_of
    from ._interrupt import interruptible
    from ._show import attack_summary
    from ._subject import model_and_data
    from ._trained import threat_for, trained

    npz_file(out, model, data, labels)
    start = 0 if seed is None else seed_of(seed, "--seed")
    goal_class = whole(target, "--target", 0)
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
    with interruptible():
        net, rows = model_and_data(model, source, start)
        if goal_class is not None and goal_class >= (k := n_classes_of(net, rows.x)):
            raise ValueError(f"--target is {goal_class}; the model has {k} classes, so 0 to {k - 1} are allowed.")
        ball = threat_of(*threat_for(trained(model), threat, eps, rows), rows)
        chosen = method_of(method, rows, steps=whole(steps, "--steps", 1), restarts=whole(restarts, "--restarts", 1))
        kept = away_from(goal_class, rows)
        x, y = rows.x[kept], rows.y[kept]
        goal = y if goal_class is None else np.full_like(y, goal_class)
        found = run_attack(
            net,
            x,
            goal,
            threat=ball,
            method=chosen,
            key=jax.random.key(start),
            targeted=goal_class is not None,
            row_ids=kept,
            progress=False if quiet else None,
        )
        fields = ("x", "success", "distance", "queries", "gradients", "first_step", "stage", "status")
        arrays: dict[str, Any] = {name: np.asarray(getattr(found, name)) for name in fields}
        about = about_attack(net, rows, chosen, ball, found, seed=start, target=goal_class)
        np.savez_compressed(out, x_clean=x, y=y, row=kept, about=np.array(json.dumps(about)), **arrays)
    if not quiet:
        attack_summary(found, out, about, goal_class, rows.labels)
    return 0
