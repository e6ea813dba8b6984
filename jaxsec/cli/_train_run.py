"""What `jaxsec train` does with its words: data split, network made or read, recipe run, folder written."""

import contextlib
import dataclasses
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ._trained import ABOUT, MODEL, ROWS
from ._values import number, seed_of, share, whole, writable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The command's options as they were typed, None where they were not."""

    recipe: str | None
    threat: str | None
    eps: str | None
    out: Path
    net: str | None
    settings: tuple[str, ...]
    teacher: str | None
    epochs: str | None
    batch_size: str | None
    learning_rate: str | None
    weight_decay: str | None
    average: str | None
    warm_up: str | None
    shift: str | None
    flip: bool
    validation: str | None
    hold_out: str | None
    patience: str | None
    tensorboard: bool
    fresh: bool
    seed: str | None
    quiet: bool


def show_list() -> None:
    """A line for each recipe and for what goes around one, and its settings below."""
    import dataclasses

    from rich.console import Console

    from ..train import RECIPES, WRAPPERS, settings_of

    console = Console(highlight=False)
    width = max(map(len, [*RECIPES, *WRAPPERS])) + 2

    def shown(name: str, value: Any) -> str:
        return f"{name}=?" if value is dataclasses.MISSING else f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, soft_wrap=True, markup=False)

    for title, entries in (("Recipes", RECIPES), ("Around a recipe, after a +", WRAPPERS)):
        line(f"{title}: what it does; backward passes an update; source", "bold")
        for name, cls in entries.items():
            line(f"{name:{width}}{cls.summary}; {cls.cost}; {cls.source}")
            if settings := " ".join(shown(*pair) for pair in settings_of(name).items()):
                line(" " * width + settings, "dim")
        line("")
    line("Settings are given by --set, those with ? must be: --recipe trades+awp --set beta=3 --set awp.gamma=0.01")


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
    rate = _positive(asked.learning_rate, "--learning-rate", 2e-3)
    decay = number("0" if asked.weight_decay is None else asked.weight_decay, "--weight-decay")
    patience = whole(asked.patience, "--patience", 1)
    average, held = _part(asked.average, "--average", 0.999), _part(asked.hold_out, "--hold-out", 0.2)
    validation = _part(asked.validation, "--validation", 0.1)
    writable(out, "a folder for the model")
    keep_programs()
    with interruptible(out / "checkpoints"), _warnings_as_lines(), tempfile.TemporaryDirectory() as made_here:
        rows, initial = _prepared(asked, Source(**words), start, Path(made_here))
        train_rows, test_rows = _split(rows, held, start)
        if validation and not 1 <= round(len(train_rows) * validation) < len(train_rows):
            raise ValueError(f"--validation is a share of {validation:g} of {len(train_rows)} rows; give more data, or --validation 0.")
        if patience is not None and not validation:
            raise ValueError(f"--patience is {patience}, and --validation 0 leaves no rows to tell epochs apart by; leave one of them out.")
        recipe, ball = _recipe(asked, rows)
        model = load(initial)
        about = {
            "jaxsec": __version__,
            "recipe": asked.recipe,
            "settings": list(asked.settings),
            "threat": None if ball is None else ball.norm,
            "eps": None if ball is None else float(ball.eps),
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
        }
        try:
            made = fit(
                model,
                (train_rows.x, train_rows.y),
                recipe=recipe,
                key=jax.random.key(start),
                optimizer=_Optimizer(rate, decay) if (rate, decay) != (2e-3, 0.0) else default_optimizer,
                epochs=epochs,
                batch_size=min(batch, int(len(train_rows) * (1 - validation))),
                augment=_augment(asked, rows.layout),
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
            raise ValueError(str(error).replace("resume=False", "--fresh")) from None
        # only now, so that a call that cannot go on with what the folder holds leaves it as it is
        save(made.model, initial, out / MODEL)
        if test_rows is not None:
            np.savez_compressed(out / ROWS, x=test_rows.x, y=test_rows.y)
        best = {k: v for k, v in made.history[made.best_epoch].items() if not isinstance(v, float) or np.isfinite(v)}
        about |= {"best": best, "stopped": made.stopped, "rollbacks": made.rollbacks, "epochs done": len(made.history)}
        (out / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    if not asked.quiet:
        _summary(made, out, test_rows is not None)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """What training warns of, as every command says it."""

    def line(message: Any, *_: Any, **__: Any) -> None:
        print(f"jaxsec: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=RuntimeWarning, module="jaxsec")
        warnings.showwarning = line
        yield


def _positive(text: str | None, name: str, default: float) -> float:
    value = default if text is None else number(text, name)
    if value <= 0:
        raise ValueError(f"{name} is {text!r}; a number above 0 is needed, such as {default}.")
    return value


def _part(text: str | None, name: str, default: float) -> float:
    value = share(text, name)
    if value is None:
        return default
    if value >= 1:
        raise ValueError(f"{name} is {text!r}; a share below 1 is needed, such as {default}.")
    return value


@dataclasses.dataclass(frozen=True)
class _Optimizer:
    """`default_optimizer` with other rates; compares by them."""

    rate: float
    decay: float

    def __call__(self, total: int) -> Any:
        from ..train import default_optimizer

        return default_optimizer(total, self.rate, self.decay)


def _prepared(asked: Asked, source: Any, seed: int, folder: Path) -> tuple[Any, Path]:
    """(the rows, the .onnx file that training starts from; one that is made here goes to `folder`)."""
    from ..core import Model, ModelInfo
    from ..io import NETWORKS, load, new_network
    from ._inputs import data_of

    net = asked.net
    if net is not None and net not in NETWORKS:
        path = Path(net)
        if not (path.name.endswith((".onnx", ".onnx.gz")) and path.is_file()):
            raise ValueError(f"--net is {net!r}; allowed: {', '.join(NETWORKS)}, or an .onnx file that exists.")
        return data_of(source, load(path)), path
    rows = data_of(source, Model(params=(), apply=_nothing, info=ModelInfo()))
    shape = rows.x.shape[1:]
    if net is None:
        net = "cnn" if rows.layout in ("NCHW", "NHWC") and min(shape[1:] if rows.layout == "NCHW" else shape[:2]) >= 8 else "mlp"
    path = folder / "initial.onnx"
    new_network(net, shape, max(rows.n_classes, 2), path, seed=seed, layout=rows.layout)
    return rows, path


def _nothing(params: Any, x: Any) -> Any:
    """The program of a model that is not made yet."""
    raise AssertionError("the network is made once the data are known")


def _split(rows: Any, held: float, seed: int) -> tuple[Any, Any]:
    """(rows to train on, rows that are held out or None)."""
    count = round(len(rows) * held)
    if not count:
        return rows, None
    order = np.random.default_rng(seed).permutation(len(rows))
    if len(rows) - count < 2:
        raise ValueError(f"--hold-out leaves {len(rows) - count} of {len(rows)} rows to train on; give more data, or a smaller share.")
    return rows.rows(np.sort(order[count:])), rows.rows(np.sort(order[:count]))


def _recipe(asked: Asked, rows: Any) -> tuple[Any, Any]:
    """(the recipe, its threat or None)."""
    from ..train import Curriculum, recipe_named, takes
    from ..train._catalogue import parts_of
    from ._inputs import DEFAULT_EPS, DIGITS_EPS, model_of, threat_of
    from ._trained import of_run

    settings = {}
    for word in asked.settings:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--set is {word!r}; a setting and its value are needed, such as --set beta=3.")
        if name.strip() in settings:
            raise ValueError(f"--set gives {name.strip()} twice, {settings[name.strip()]} and {value.strip()}; give it once.")
        settings[name.strip()] = value.strip()
    name, teacher = str(asked.recipe), None
    if takes(name, "teacher") and asked.teacher is None:
        raise ValueError(f"--teacher is missing; the recipe {name} learns from another model's answers, such as --teacher teacher.onnx.")
    if asked.teacher is not None:
        from ._inputs import Source

        teacher = model_of(str(of_run(asked.teacher, Source(data=""))[0]))
    ball = None
    if takes(name, "threat"):
        norm = "l2" if "lipschitz" in parts_of(name) else "linf"
        ball = threat_of(
            norm if asked.threat is None else asked.threat, asked.eps, rows, DIGITS_EPS if rows.source == "digits" else DEFAULT_EPS
        )
    elif asked.threat is not None or asked.eps is not None:
        given = "--threat" if asked.threat is not None else "--eps"
        raise ValueError(f"{given} was given, and the recipe {name} has no threat; leave it out, or choose another recipe.")
    if teacher is not None and not takes(name, "teacher"):
        raise ValueError(f"--teacher was given, and the recipe {name} has none; leave it out, or choose ard or rslad.")
    recipe = recipe_named(name, threat=ball, teacher=teacher, settings=settings)
    warm = _part(asked.warm_up, "--warm-up", 0.3)
    scheduled = ball is not None and recipe.grows and not takes(name, "shape")
    if asked.warm_up is not None and not scheduled:
        raise ValueError(f"--warm-up was given, and the recipe {name} has no eps that grows with it; leave it out, or see --list.")
    if scheduled and warm:
        recipe = Curriculum(recipe=recipe, end=warm)
    return recipe, ball


def _augment(asked: Asked, layout: str) -> Any:
    from ..train import Chain, Flip, Shift

    pixels = whole(asked.shift, "--shift", 0) or 0
    if (pixels or asked.flip) and layout not in ("NCHW", "NHWC"):
        raise ValueError(
            f"{'--shift' if pixels else '--flip'} needs images, and the rows are {layout or 'of unknown layout'}; say --layout."
        )
    parts = [Shift(pixels, layout)] if pixels else []
    parts += [Flip(layout)] if asked.flip else []
    return Chain(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None


def _range(value_range: tuple[Any, Any]) -> str | None:
    lo, hi = value_range
    return f"{float(lo):.9g},{float(hi):.9g}" if np.ndim(lo) == np.ndim(hi) == 0 else None


def _summary(made: Any, out: Path, held: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    row = made.history[made.best_epoch]
    said = [
        f"{name.removeprefix('validation_')} {row[name]:.1%}"
        for name in ("validation_clean", "validation_noisy", "validation_robust")
        if name in row
    ]
    console.print(
        f"{len(made.history)} epochs, {made.stopped}"
        + (f"; epoch {made.best_epoch}: {', '.join(said)} of the validation rows" if said else "")
    )
    console.print(f"model: {out / MODEL}", soft_wrap=True)
    if held:
        console.print(f"next: jaxsec audit {out}   (on the rows held out in {out / ROWS})", soft_wrap=True)
