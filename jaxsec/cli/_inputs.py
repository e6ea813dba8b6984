"""From words on the command line to a model, data, a threat and a method."""

import dataclasses
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..attack import APGD, BIM, FAB, FGSM, PGD, AutoAttack, Square
from ..attack._square import NoImage, image_axes
from ..audit._scale import measured, odd_noise, too_large, too_small
from ..core import Model
from ..io import Dataset, load, load_data
from ..threat import Ball
from ..threat._named import named
from ._main import UserError
from ._values import divisor, number, value_range, whole
from ._words import MISTAKES, in_options

METHODS: dict[str, Any] = {"apgd": APGD, "pgd": PGD, "fgsm": FGSM, "bim": BIM, "fab": FAB, "square": Square, "autoattack": AutoAttack}
DEFAULT_EPS = {"linf": "8/255", "l2": "0.5"}
# Digits have 17 grey levels, so 0.1 is under two of them; 8/255 would be half a level.
DIGITS_EPS = {"linf": "0.1", "l2": "0.5"}


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def warn(text: str) -> None:
    """A warning as every command says it."""
    print(f"jaxsec: warning: {text}", file=sys.stderr)


def threat_of(
    norm: Any,
    eps: Any,
    data: Dataset,
    defaults: dict[str, str] = DEFAULT_EPS,
    names: tuple[str, str] = ("--threat", "--eps"),
    warn: Callable[[str], object] = warn,
) -> Ball:
    """The ball in the data's valid range. `names` are what messages call the norm and eps: options, or keys of a plan file."""
    which = str(norm).lower()
    if which not in ("linf", "l2", "l1"):
        raise ValueError(f"{names[0]} is {norm!r}; allowed: linf, l2, l1.")
    given = eps is not None
    eps = defaults.get(which) if eps is None else eps
    if eps is None:
        raise ValueError("--eps is missing; for l1 there is no usual budget, so give one, e.g. --eps 12.")
    wanted = "a finite number of at least 0 is needed, in the units of the data: 0.03, or a fraction such as 8/255"
    radius = number(eps, names[1], wanted)
    if radius < 0:
        raise ValueError(f"{names[1]} is {eps!r}; {wanted}.")
    lo, hi = data.value_range
    ball = named(which, eps=radius, lo=lo, hi=hi)
    if said := too_small(ball, data.x.shape[1:]):
        said = f"{names[1]} {said.removeprefix('eps ')}" if given else f"the default {said}"
        warn(f"{said}: give {names[1]} in the units of the data (8 of 255, not 8/255), or data in [0, 1].")
    if radius == 0:
        warn(f"{names[1]} is 0: no input can be changed.")
    if said := too_large(ball, data.x.shape[1:]):
        warn(f"{names[1]} {said.removeprefix('eps ')}")
    if not given and (said := measured(data)):
        warn(f"{said}, and eps is the default {eps}, meant for [0, 1]: give --eps in the units of the data, and --range LO,HI.")
    return ball


def warn_of_noise(option: str, sigma: float, ball: Ball) -> None:
    """Where noise of this scale does not fit the data; what the audit files as a finding."""
    if said := odd_noise(sigma, ball):
        warn(f"{option} {said.removeprefix('sigma ')}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a command's data come from: its options as they were typed, None where they were not."""

    data: str | None = None
    labels: str | None = None
    layout: str | None = None
    stored_layout: str | None = None
    range: str | None = None
    mean: str | None = None
    std: str | None = None
    divide_by: str | None = None
    label_column: str | None = None
    x_key: str | None = None
    y_key: str | None = None
    limit: str | None = None

    def given(self) -> list[str]:
        """The options that were typed, but for `--limit`, which any data take."""
        return [
            f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(self) if getattr(self, f.name) is not None and f.name != "limit"
        ]


def model_of(spec: str, *, keep_softmax: bool = False, name: str = "MODEL") -> Model:
    """`net.onnx`, or `module.py:attribute`: a `Model`, or a function without arguments that gives one. The latter runs the file.

    `keep_softmax`: an .onnx file's own outputs, not the logits. `name`: what messages call it.
    """
    file, colon, attribute = spec.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_python(Path(file), attribute)
    path = Path(spec)
    if spec.endswith(".py"):
        raise ValueError(f"{name} is {spec!r}; say what to take from the file: {spec}:model.")
    if path.is_dir() and spec:
        raise ValueError(f"{name} is {spec!r}, a folder; allowed: a .onnx file, or file.py:attribute.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {spec!r}; allowed: a .onnx file, or file.py:attribute.")
    if not path.name.removesuffix(".gz").endswith(".onnx"):
        raise ValueError(f"{name} is {spec!r}; allowed: a .onnx file (also .onnx.gz), or file.py:attribute.")
    try:
        return load(path, keep_softmax=keep_softmax)
    except MISTAKES:
        raise
    except Exception as error:  # the parser of a damaged file fails in its own classes
        raise UserError(
            f"{path} cannot be read as ONNX: {type(error).__name__}: {' '.join(str(error).split())[:300]}; export it again."
        ) from error


def _from_python(path: Path, attribute: str) -> Model:
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {str(path)!r}; MODEL is file.py:attribute, or a .onnx file.")
    spec = importlib.util.spec_from_file_location(f"jaxsec_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, attribute, module)
        _called_without_arguments(found, path, attribute)
        found = found() if callable(found) and not isinstance(found, Model) else found
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}:{attribute} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    if found is module:
        raise ValueError(
            f"{path} has no {attribute!r}; MODEL is file.py:attribute, the name of a jaxsec.Model or of a function that gives one."
        )
    if not isinstance(found, Model):
        raise ValueError(
            f"{path}:{attribute} is {type(found).__name__}; a jaxsec.Model (see jaxsec.bind) or a function that returns one is needed."
        )
    return found if found.info.name not in ("", "function") else found.noted(name=f"{path.name}:{attribute}")


def _called_without_arguments(found: Any, path: Path, attribute: str) -> None:
    """Raises where a function wants arguments, as a network `f(params, x)` does; `jaxsec.bind` makes a model of one."""
    if not inspect.isfunction(found):
        return
    needed = [p.name for p in inspect.signature(found).parameters.values() if p.default is p.empty and p.kind not in _REST]
    if needed:
        raise UserError(
            f"{path}:{attribute} is a function of ({', '.join(needed)}); a jaxsec.Model, or a function without arguments that gives one, "
            f"is needed. Write model = jaxsec.bind({attribute}, params) in the file, and give {path}:model."
        )


def data_of(source: Source, model: Model) -> Dataset:
    """The data, arranged as the model wants them where the file does not say; their notes speak of options."""
    column: Any = source.label_column
    if column is not None and column.lstrip("-").isdigit():
        column = int(column)
    wanted = model.info.input_shape
    layout = _layout(source.layout, "--layout")
    if layout is None and wanted is not None:
        layout = _fitting(wanted)
    data = load_data(
        source.data or "",
        labels=source.labels,
        layout=layout,
        stored_layout=_layout(source.stored_layout, "--stored-layout", flat=False),
        value_range=value_range(source.range),
        divide_by=divisor(source.divide_by),
        label_column=column,
        n_classes=model.info.n_classes,
        limit=whole(source.limit, "--limit", 1),
        x_key=source.x_key or "x",
        y_key=source.y_key or "y",
    )
    data = dataclasses.replace(data, notes=tuple(in_options(note) for note in data.notes))
    row = data.x.shape[1:]
    if wanted is not None and row != tuple(wanted) and [d for d in row if d != 1] == [d for d in wanted if d != 1]:
        data = data.shaped(wanted)  # axes of length 1 hold nothing
    return data


def _layout(text: str | None, name: str, *, flat: bool = True) -> Any:
    """A layout as `load_data` calls it; `flat`: whether flat rows are one."""
    if text is None:
        return None
    known = {"nchw": "NCHW", "chw": "NCHW", "nhwc": "NHWC", "hwc": "NHWC"} | ({"flat": "flat"} if flat else {})
    if text.lower() not in known:
        raise ValueError(f"{name} is {text!r}; allowed: {'flat, ' if flat else ''}NCHW, NHWC.")
    return known[text.lower()]


def _fitting(shape: tuple[int, ...]) -> Any:
    """The layout that a model's input shape tells; None where it does not."""
    if sum(d != 1 for d in shape) <= 1:
        return "flat"
    if len(shape) == 3 and (shape[0] in (1, 3, 4)) != (shape[2] in (1, 3, 4)):
        return "NCHW" if shape[0] in (1, 3, 4) else "NHWC"
    return None


def method_of(name: str, data: Dataset, *, steps: int | None, restarts: int | None) -> Any:
    """An attack by name, with those of its settings that were given, for such data."""
    if name not in METHODS:
        raise ValueError(f"--method is {name!r}; allowed: {', '.join(METHODS)}.")
    given: dict[str, Any] = {k: v for k, v in (("steps", steps), ("restarts", restarts)) if v is not None}
    if extra := set(given) - _takes(name):
        fits = ", ".join(m for m in METHODS if min(extra) in _takes(m))
        raise ValueError(f"--{min(extra)} does not apply to --method {name}; leave it out, or choose one of {fits}.")
    if name in ("square", "autoattack") and data.layout in ("NCHW", "NHWC"):
        given["layout"] = {"NCHW": "chw", "NHWC": "hwc"}[data.layout]
    if name == "square":
        _needs_images(data.x.shape[1:], given.get("layout", "auto"))
    return METHODS[name](**given)


def _takes(name: str) -> set[str]:
    return {"fgsm": set(), "bim": {"steps"}, "autoattack": {"steps"}}.get(name, {"steps", "restarts"})


def _needs_images(row: tuple[int, ...], layout: str) -> None:
    try:
        image_axes(row, layout)
    except NoImage as error:
        raise ValueError(
            f"--method square needs images, and rows of shape {row} are none that it can read; if they are, say how with --layout NCHW or "
            "NHWC, else choose another method (autoattack leaves Square out by itself)."
        ) from error


def away_from(target: int | None, data: Dataset) -> np.ndarray:
    """The numbers of the rows of other classes: a row of the class to reach is there already. All rows without a target."""
    keep = np.arange(len(data.y)) if target is None else np.flatnonzero(data.y != target)
    if not len(keep):
        raise ValueError(f"--target is {target}, and every row is of that class; nothing is left to attack.")
    return keep
