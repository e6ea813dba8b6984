"""What `jaxsec train` does with its words: data split, network made or read, recipe run, folder written."""

import contextlib
import dataclasses
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ._train_asked import ASKED, Asked, read
from ._train_folder import nothing_lost, whole_or_absent, without_remains
from ._train_recipe import augment_of, recipe_of
from ._train_rows import prepared, split
from ._trained import ABOUT, MODEL, ROWS
from ._values import least, part, positive, seed_of, whole, writable


def run(asked: Asked, words: dict[str, Any]) -> None:
    """Trains and writes the folder."""
    import jax

    from .. import __version__
    from ..io import load, save
    from ..train import default_optimizer, fit
    from ._cache import keep_programs
    from ._inputs import Source
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
    keep_programs()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells of every folder that it finds; what is wrong with one is said here
    with (
        without_remains(out if new else None),
        interruptible(out / "checkpoints"),
        _warnings_as_lines(),
        _going_on(asked.quiet),
        tempfile.TemporaryDirectory() as made_here,
    ):
        rows, initial, net = prepared(asked.net, Source(**words), start, Path(made_here))
        train_rows, test_rows = split(rows, held, start)
        if validation and not 1 <= round(len(train_rows) * validation) < len(train_rows):
            raise ValueError(f"--validation is a share of {validation:g} of {len(train_rows)} rows; give more data, or --validation 0.")
        if patience is not None and not validation:
            raise ValueError(f"--patience is {patience}, and --validation 0 leaves no rows to tell epochs apart by; leave one of them out.")
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
            "batch size": min(batch, int(len(train_rows) * (1 - validation))),
            "learning rate": rate,
            "weight decay": decay,
            "average": average,
            "validation": validation,
        }
        going_on = not asked.fresh and any((out / "checkpoints").glob("[0-9]*"))
        before = None if going_on else asked.keep(words)
        if not asked.quiet:
            _begin(asked, about, rows)
        try:
            made = fit(
                model,
                (train_rows.x, train_rows.y),
                recipe=recipe,
                key=jax.random.key(start),
                optimizer=_Optimizer(rate, decay) if (rate, decay) != (2e-3, 0.0) else default_optimizer,
                epochs=epochs,
                batch_size=about["batch size"],
                augment=augment_of(asked, rows.layout),
                average=average or None,
                validation=validation or None,
                patience=patience,
                out=out,
                resume=not asked.fresh,
                tensorboard=asked.tensorboard,
                progress=False if asked.quiet else None,
            )
        except FloatingPointError as error:
            raise UserError(f"{error} Here that is --learning-rate.") from None
        except ValueError as error:
            if before:  # nothing was trained, so what the folder holds is what it was
                (out / ASKED).write_text(before)
            said = str(error).replace("resume=False", "--fresh")
            if "holds a run that differs in" in said:
                changed = asked.differing(words) or "what it was asked for is not known here; was it jaxsec.fit that wrote there?"
                said = f"--out {out} holds another run ({changed}); pass the same arguments, another folder, or --fresh to begin anew."
            raise ValueError(said) from None
        # only now, so that a call that cannot go on with what the folder holds leaves it as it is; while these are written none counts
        (out / ABOUT).unlink(missing_ok=True)
        save(made.model, initial, out / MODEL)
        if test_rows is not None:
            np.savez_compressed(out / ROWS, x=test_rows.x, y=test_rows.y)
        if said := _learned_nothing(made, train_rows.y, validation):
            print(f"jaxsec: warning: {said}", file=sys.stderr)
        best = {k: v for k, v in made.history[made.best_epoch].items() if not isinstance(v, float) or np.isfinite(v)}
        about |= {"asked": read(out), "best": best, "stopped": made.stopped, "rollbacks": made.rollbacks, "epochs done": len(made.history)}
        whole_or_absent(out / ABOUT, json.dumps(about, indent=2) + "\n")
    if not asked.quiet:
        _summary(made, out, test_rows is not None, None if recipe.noise is None else float(np.asarray(recipe.noise)))


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """What training warns of, as every command says it."""

    def line(message: Any, *_: Any, **__: Any) -> None:
        print(f"jaxsec: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=RuntimeWarning, module="jaxsec")
        warnings.showwarning = line
        yield


@contextlib.contextmanager
def _going_on(quiet: bool) -> Iterator[None]:
    """Says what training tells once it has read the run that it goes on with."""
    from rich.console import Console

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            Console(highlight=False).print(record.getMessage(), soft_wrap=True, markup=False)

    logger, handler = logging.getLogger("jaxsec.train"), Said()
    before = logger.level, logger.propagate
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


def _begin(asked: Asked, about: dict[str, Any], rows: Any) -> None:
    """One line on what is trained on what."""
    from rich.console import Console

    console = Console(highlight=False)
    ball = "" if about["eps"] is None else f", {about['threat']} eps {asked.eps or format(about['eps'], '.6g')}"
    console.print(
        f"{asked.recipe}{ball}: {about['data']['rows']} rows of {about['data']['source']}, {about['data']['held out']} held out; "
        f"{rows.n_classes} classes; {about['net']}, {_epochs(about['epochs'])}, {about['batch size']} rows an update",
        soft_wrap=True,
        markup=False,
    )


@dataclasses.dataclass(frozen=True)
class _Optimizer:
    """`default_optimizer` with other rates; compares by them."""

    rate: float
    decay: float

    def __call__(self, total: int) -> Any:
        from ..train import default_optimizer

        return default_optimizer(total, self.rate, self.decay)


def _range(value_range: tuple[Any, Any]) -> str | None:
    lo, hi = value_range
    return f"{float(lo):.9g},{float(hi):.9g}" if np.ndim(lo) == np.ndim(hi) == 0 else None


def _epochs(n: int) -> str:
    return f"{n} epoch" if n == 1 else f"{n} epochs"


def _learned_nothing(made: Any, labels: np.ndarray, validation: float) -> str | None:
    """What to say of a net that is no better than the commonest class by two deviations, such as after steps that were too large."""
    clean = made.history[made.best_epoch].get("validation_clean")
    common = float(np.bincount(labels).max() / len(labels))
    if clean is None or clean > common + 2 * np.sqrt(common * (1 - common) / (validation * len(labels))):
        if made.history[made.best_epoch].get("validation_certified") != 0:
            return None
        return (
            "none of the validation rows is certified at the whole eps: the bounds have not become tight enough. Try more --epochs, a "
            "smaller --eps, or an earlier end of the ramp (--set ramp=0.3)."
        )
    return (
        f"the net gets {clean:.1%} of the validation rows right, and the commonest class alone is {common:.1%} of the rows: it learned "
        "nothing. Try a smaller --learning-rate, a smaller --eps, or more --epochs."
    )


def _summary(made: Any, out: Path, held: bool, noise: float | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    row = made.history[made.best_epoch]
    said = [
        f"{name.removeprefix('validation_')} {row[name]:.1%}"
        for name in ("validation_clean", "validation_noisy", "validation_robust", "validation_certified")
        if name in row
    ]
    console.print(
        f"{_epochs(len(made.history))}, {made.stopped}"
        + (f"; kept as it was after {_epochs(made.best_epoch + 1)}: {', '.join(said)} of the validation rows" if said else ""),
        soft_wrap=True,
    )
    console.print(f"model: {out / MODEL}", soft_wrap=True)
    if held:
        smoothed = "" if noise is None else f" --threat l2 --eps {2 * noise:.4g} --smooth-sigma {noise:.6g}"
        console.print(f"next: jaxsec audit {out}{smoothed}   (on the rows held out in {out / ROWS})", soft_wrap=True, markup=False)
