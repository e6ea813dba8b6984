"""What `jaxsec train` does with its words: data split, network made or read, recipe run, folder written."""

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ._train_asked import Asked
from ._train_folder import begun, checkpoints_of, finished, nothing_lost, nothing_replaced, without_remains
from ._train_recipe import augment_of, recipe_of
from ._train_rows import prepared, split
from ._train_show import begin, going_on_said, shortcomings, summary, warnings_as_lines
from ._trained import MODEL
from ._values import least, part, positive, seed_of, whole, writable


def run(asked: Asked, words: dict[str, Any]) -> None:
    """Trains and writes the folder."""
    import jax

    from .. import __version__
    from ..io import load, save
    from ..train import default_optimizer, fit
    from ._cache import keep_programs
    from ._inputs import Source, warn
    from ._interrupt import interruptible
    from ._main import UserError

    if asked.recipe is None:
        raise ValueError("--recipe is missing; --list shows the recipes, such as --recipe trades.")
    if words["data"] is None:
        raise ValueError("--data is missing; labelled rows are needed, e.g. --data train.npz with the keys x and y, or --data digits.")
    out, start = asked.out, seed_of(0 if asked.seed is None else asked.seed, "--seed")
    epochs, batch = whole(asked.epochs, "--epochs", 1) or 30, whole(asked.batch_size, "--batch-size", 1) or 128
    rate = positive(asked.learning_rate, "--learning-rate", 2e-3)
    decay = least(asked.weight_decay, "--weight-decay", 0.0)
    patience = whole(asked.patience, "--patience", 1)
    average, held = part(asked.average, "--average", 0.999), part(asked.hold_out, "--hold-out", 0.2)
    validation = part(asked.validation, "--validation", 0.1)
    new = not out.exists()
    writable(out, "a folder for the model")
    nothing_lost(out, {"--data": words["data"], "--net": asked.net, "--teacher": asked.teacher, "--labels": words.get("labels")})
    nothing_replaced(out, asked, words)
    keep_programs()
    with (
        without_remains(out if new else None),
        interruptible(out / "checkpoints", fresh=asked.fresh),
        warnings_as_lines(),
        going_on_said(asked.quiet),
        tempfile.TemporaryDirectory() as made_here,
    ):
        rows, initial, net = prepared(asked.net, Source(**words), start, Path(made_here))
        train_rows, test_rows = split(rows, held, start)
        if validation and not 1 <= round(len(train_rows) * validation) < len(train_rows):
            raise ValueError(f"--validation is a share of {validation:g} of {len(train_rows)} rows; give more data, or --validation 0.")
        if patience is not None and not validation:
            raise ValueError(f"--patience is {patience}, and --validation 0 leaves no rows to tell epochs apart by; leave one of them out.")
        fitted = int(len(train_rows) * (1 - validation))
        if asked.batch_size and batch > fitted:
            warn(f"--batch-size {batch} is more than the {fitted} rows that are trained on; every update takes them all.")
        recipe, ball = recipe_of(asked, rows)
        model = load(initial)
        about = {
            "jaxsec": __version__,
            "recipe": asked.recipe,
            "settings": list(asked.settings),
            "threat": None if ball is None else ball.norm,
            "eps": None if ball is None else float(ball.eps),
            "eps typed": asked.eps,
            "range": _range(rows.value_range),
            "layout": rows.layout or None,
            "data": {
                "source": rows.source,
                "rows": len(rows),
                "sha256": rows.sha256,
                "held out": 0 if test_rows is None else len(test_rows),
            },
            "seed": start,
            "epochs": epochs,
            "recipe in full": repr(recipe),
            "net": net,
            "batch size": min(batch, fitted),
            "learning rate": rate,
            "weight decay": decay,
            "average": average,
            "validation": validation,
        }
        going_on = not asked.fresh and checkpoints_of(out)
        if not asked.quiet:
            begin(asked, about, rows)
        try:
            with contextlib.nullcontext() if going_on else begun(out, lambda: asked.keep(words)):
                made = fit(
                    model,
                    (train_rows.x, train_rows.y),
                    recipe=recipe,
                    key=jax.random.key(start),
                    optimizer=_Optimizer(rate, decay) if (rate, decay) != (2e-3, 0.0) else default_optimizer,
                    epochs=epochs,
                    batch_size=about["batch size"],
                    augment=augment_of(asked, rows.layout, rows.x.shape[1:]),
                    average=average or None,
                    validation=validation or None,
                    patience=patience,
                    out=out,
                    resume=not asked.fresh,
                    tensorboard=asked.tensorboard,
                    progress=False if asked.quiet else None,
                )
        except FloatingPointError as error:
            raise UserError(f"{error} Here that is --learning-rate, {rate:g} now.") from None
        except ValueError as error:
            said = str(error).replace("resume=False", "--fresh")
            if "holds a run that differs in" in said and (changed := asked.differing(words)):
                said = f"--out {out} holds another run ({changed}); pass the same arguments, another folder, or --fresh to begin anew."
                if (out / MODEL).is_file():
                    said += f" Another folder and --net {out / MODEL} train its model further."
            raise ValueError(said) from None
        for said in shortcomings(made, train_rows.y, validation, ball):
            warn(said)
        best = {k: v for k, v in made.history[made.best_epoch].items() if not isinstance(v, float) or np.isfinite(v)}
        about |= {"best": best, "stopped": made.stopped, "rollbacks": made.rollbacks, "epochs done": len(made.history)}
        # only now, so that a call that cannot go on with what the folder holds leaves it as it is
        finished(out, about, asked.typed(words), lambda path: save(made.model, initial, path), test_rows)
    if not asked.quiet:
        noise = None if recipe.noise is None or ball is not None else float(np.asarray(recipe.noise))
        summary(made, out, test_rows is not None, noise)


def _range(value_range: tuple[Any, Any]) -> str | None:
    lo, hi = value_range
    return f"{float(lo):.9g},{float(hi):.9g}" if np.ndim(lo) == np.ndim(hi) == 0 else None


@dataclasses.dataclass(frozen=True)
class _Optimizer:
    """`default_optimizer` with other rates; compares by them."""

    rate: float
    decay: float

    def __call__(self, total: int) -> Any:
        from ..train import default_optimizer

        return default_optimizer(total, self.rate, self.decay)
