"""The options that several commands share: what each is called, means, allows and is when left out."""

from typing import Annotated

import typer

MODEL = (
    "An .onnx file (also .onnx.gz), a folder of jaxsec train, or file.py:NAME, where NAME is a jaxsec.Model or a function that gives one; "
    "the file is run."
)
_CHANNELS = "one number, or one per channel as in 0.49,0.48,0.45"

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="The word digits, or a path: .npz with arrays x and y, .npy with --labels, IDX images (the format of MNIST), CIFAR-10 binary "
        "(a .bin file or its folder), .csv or .tsv with --label-column. All but .npz and .npy may be gzipped (.gz).",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Labels of .npy and IDX inputs, or of an .npz without labels: one class number (0, 1, 2, ...) per row.",
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        metavar="COLUMN",
        help="Column of a .csv that holds the labels: its name, or, in a file without header, its position (0 is the first, -1 the last).",
    ),
]
XKey = Annotated[str | None, typer.Option("--x-key", metavar="NAME", help="Name of the inputs in an .npz. [default: x]")]
YKey = Annotated[str | None, typer.Option("--y-key", metavar="NAME", help="Name of the labels in an .npz. [default: y]")]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        help="How the model takes a row: flat, NCHW (channels first) or NHWC (channels last). [default: as the model says, else as stored]",
    ),
]
StoredLayout = Annotated[
    str | None,
    typer.Option(
        "--stored-layout", metavar="LAYOUT", help="How an .npz or .npy file holds its images, NCHW or NHWC, where the sizes do not tell."
    ),
]
DivideBy = Annotated[
    str | None,
    typer.Option(
        "--divide-by",
        metavar="NUMBER",
        help="Divide the data by this number above 0, e.g. 255 for bytes; --range, --eps, --mean and --std count after it. "
        "[default: 255 for IDX and CIFAR-10, 16 for digits, else 1]",
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LO,HI",
        help="Lowest and highest valid value of the data; no attack leaves it. [default: 0,1 if all values lie in it, 0,255 if they are "
        "whole and lie in that, else the range found]",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="NUMBERS",
        help=f"Taken off the data in front of the model: {_CHANNELS}. --eps and --range stay in the units of the data. [default: 0]",
    ),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="NUMBERS", help=f"Divides the data in front of the model, after --mean: {_CHANNELS}. [default: 1]"),
]
Limit = Annotated[str | None, typer.Option("--limit", metavar="N", help="Use the first N rows of the data, N at least 1. [default: all]")]
_NORM = "How a change is measured against eps: linf (the largest change of any value), l2 (Euclidean length) or l1 (sum of all changes). "
Threat = Annotated[
    str | None,
    typer.Option(
        "--threat",
        metavar="NORM",
        help=f"{_NORM}[default: linf, or what a folder of 'jaxsec train' was trained for; l2 for smoothing]",
    ),
]
TrainThreat = Annotated[str | None, typer.Option("--threat", metavar="NORM", help=f"{_NORM}[default: linf; l2 for lipschitz]")]
_EPS = "The largest change allowed, at least 0, in the units of the data: 0.03 or 8/255 for data in [0, 1], 8 for 0 to 255. "
_OF_RUN = "[default: what a folder of 'jaxsec train' was trained for, in its norm; else "
AttackEps = Annotated[str | None, typer.Option("--eps", metavar="EPS", help=f"{_EPS}{_OF_RUN}8/255 for linf, 0.5 for l2, none for l1]")]
TrainEps = Annotated[
    str | None,
    typer.Option("--eps", metavar="EPS", help=f"{_EPS}[default: 8/255 for linf, but 0.1 for --data digits; 0.5 for l2; none for l1]"),
]
Eps = Annotated[
    str | None,
    typer.Option(
        "--eps",
        metavar="EPS",
        help=f"{_EPS}{_OF_RUN}8/255 for linf, or 0.1 without MODEL; 0.5 for l2; none for l1]",
    ),
]
Seed = Annotated[
    str | None,
    typer.Option("--seed", metavar="N", help="Seed of everything random, 0 to 4294967295; the same seed repeats the run. [default: 0]"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary; warnings and errors stay.")]
