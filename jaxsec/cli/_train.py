"""`jaxsec train`: trains a network by a recipe and leaves a folder that `jaxsec audit` takes."""

from pathlib import Path
from typing import Annotated

import typer

from ._options import (
    Data,
    DivideBy,
    LabelColumn,
    Labels,
    Layout,
    Limit,
    Quiet,
    Range,
    Seed,
    StoredLayout,
    TrainEps,
    TrainThreat,
    XKey,
    YKey,
)


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="How to train, such as trades or trades+awp; --list explains each recipe.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    threat: TrainThreat = None,
    eps: TrainEps = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="A folder for the model, its checkpoints and metrics. [default: run]")
    ] = None,
    net: Annotated[
        str | None,
        typer.Option(
            "--net",
            metavar="NET",
            help="linear, mlp, cnn or cnn-large, or an .onnx file to train further. [default: cnn for images of at least 8x8, digits "
            "too, else mlp]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the recipe, such as beta=3; may be given again. See --list."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="MODEL", help="The model to distil: an .onnx file or a folder of jaxsec train.")
    ] = None,
    epochs: Annotated[str | None, typer.Option("--epochs", metavar="N", help="Passes over the data, at least 1. [default: 30]")] = None,
    batch_size: Annotated[
        str | None, typer.Option("--batch-size", metavar="N", help="Rows per update, at most all. [default: 128]")
    ] = None,
    learning_rate: Annotated[
        str | None, typer.Option("--learning-rate", metavar="RATE", help="The largest of the schedule (AdamW, cosine). [default: 0.002]")
    ] = None,
    weight_decay: Annotated[str | None, typer.Option("--weight-decay", metavar="RATE", help="Decoupled weight decay. [default: 0]")] = None,
    average: Annotated[
        str | None,
        typer.Option("--average", metavar="DECAY", help="Average the weights with this decay below 1; 0: no. [default: 0.999]"),
    ] = None,
    warm_up: Annotated[
        str | None,
        typer.Option("--warm-up", metavar="SHARE", help="The share of training over which eps grows from 0; 0: none. [default: 0.3]"),
    ] = None,
    shift: Annotated[
        str | None, typer.Option("--shift", metavar="PIXELS", help="Move images by up to so many pixels at random. [default: 0]")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror images at random; not for digits.")] = False,
    validation: Annotated[
        str | None,
        typer.Option("--validation", metavar="SHARE", help="Rows that choose the epoch whose weights are kept; 0: none. [default: 0.1]"),
    ] = None,
    hold_out: Annotated[
        str | None,
        typer.Option(
            "--hold-out",
            metavar="SHARE",
            help="Rows that training never sees, kept in FOLDER/test.npz for the audit; 0: none. [default: 0.2]",
        ),
    ] = None,
    patience: Annotated[
        str | None, typer.Option("--patience", metavar="N", help="Stop after so many epochs without a more robust one. [default: never]")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard into FOLDER/tensorboard.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where the folder holds a run.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Explain each recipe: what it does, its cost, its source, its settings.")] = False,
    labels: Labels = None,
    label_column: LabelColumn = None,
    x_key: XKey = None,
    y_key: YKey = None,
    layout: Layout = None,
    stored_layout: StoredLayout = None,
    divide_by: DivideBy = None,
    range: Range = None,
    limit: Limit = None,
    seed: Seed = None,
    quiet: Quiet = False,
) -> int:
    """Train a network to be robust, and leave a model that 'jaxsec audit FOLDER' takes.

    A run that is killed goes on where it was when the same command runs again. FOLDER holds model.onnx, test.npz (rows that were held
    out), train.json (what was done), metrics.jsonl (a line per epoch) and checkpoints.

    Exit codes: 0 done, 2 a mistake in the call or the data, 3 a defect of jaxsec, 130 interrupted.
    """
    from ._train_asked import Asked
    from ._train_list import show_list
    from ._train_run import run

    if list_:
        show_list()
        return 0
    source = {
        "data": data,
        "labels": labels,
        "label_column": label_column,
        "x_key": x_key,
        "y_key": y_key,
        "layout": layout,
        "stored_layout": stored_layout,
        "divide_by": divide_by,
        "range": range,
        "limit": limit,
    }
    asked = Asked(
        recipe=recipe,
        threat=threat,
        eps=eps,
        out=Path("run") if out is None else out,
        net=net,
        settings=tuple(settings or ()),
        teacher=teacher,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        average=average,
        warm_up=warm_up,
        shift=shift,
        flip=flip,
        validation=validation,
        hold_out=hold_out,
        patience=patience,
        tensorboard=tensorboard,
        fresh=fresh,
        seed=seed,
        quiet=quiet,
    )
    run(asked, source)
    return 0
