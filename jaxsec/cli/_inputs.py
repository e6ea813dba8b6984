"""From words on the command line to a model, data, a threat and a method."""

import importlib.util
import math
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..attack import APGD, BIM, FAB, FGSM, PGD, AutoAttack, Square
from ..core import Model
from ..io import Dataset, load, load_data
from ..threat import Ball
from ..threat._named import named
from ._main import UserError

METHODS: dict[str, Any] = {"apgd": APGD, "pgd": PGD, "fgsm": FGSM, "bim": BIM, "fab": FAB, "square": Square, "autoattack": AutoAttack}
DEFAULT_EPS = {"linf": "8/255", "l2": "0.5"}
# Digits have 17 grey levels, so 0.1 is under two of them; 8/255 would be half a level.
DIGITS_EPS = {"linf": "0.1", "l2": "0.5"}


def number(text: Any, name: str) -> float:
    """`0.03`, `8/255` or `1e-3`; `ValueError` otherwise."""
    try:
        value = float(Fraction(str(text).strip()))
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"--{name} is {str(text)!r}; a number such as 0.03 or a fraction such as 8/255 is needed.")
    return value


def numbers(text: str | None, name: str) -> Any:
    """`0.5` -> 0.5, `0.49,0.48,0.45` -> an array, None -> None."""
    if text is None:
        return None
    parts = [number(part, name) for part in text.split(",")]
    return parts[0] if len(parts) == 1 else np.asarray(parts, np.float32)


def value_range(text: str | None) -> tuple[float, float] | None:
    """`0,1` -> (0.0, 1.0)."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError(f"--range is {text!r}; two numbers are needed, the lowest and the highest valid value: --range 0,1.")
    lo, hi = number(parts[0], "range"), number(parts[1], "range")
    if lo >= hi:
        raise ValueError(f"--range is {text!r}; the lowest value comes first and must be below the highest.")
    return lo, hi


def threat_of(norm: str, eps: Any, data: Dataset, defaults: dict[str, str] = DEFAULT_EPS) -> Ball:
    """The ball in the data's valid range."""
    eps = defaults.get(norm.lower()) if eps is None else eps
    if eps is None and norm.lower() == "l1":
        raise ValueError("--eps is missing; for l1 there is no usual budget, so give one, e.g. --eps 12.")
    if norm.lower() not in ("linf", "l2", "l1"):
        raise ValueError(f"--threat is {norm!r}; allowed: linf, l2, l1.")
    lo, hi = data.value_range
    radius = number(0 if eps is None else eps, "eps")
    if radius < 0:
        raise ValueError(f"--eps is {eps}; a radius is at least 0, in the units of the input.")
    width = float(np.max(np.asarray(hi) - np.asarray(lo)))
    if norm.lower() == "linf" and 0 < radius < 1e-3 * width < np.inf:
        said = f"--eps {radius:g} is {radius / width:.2g} of the valid range [{np.min(lo):g}, {np.max(hi):g}]"
        print(f"jaxsec: warning: {said}: give eps in the units of the data (8 of 255, not 8/255), or data in [0, 1].", file=sys.stderr)
    return named(norm, eps=radius, lo=lo, hi=hi)


def model_of(spec: str) -> Model:
    """`net.onnx`, or `module.py:attribute`: a `Model`, or a function without arguments that gives one. The latter runs the file."""
    file, colon, attribute = spec.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_python(Path(file), attribute)
    path = Path(spec)
    if spec.endswith(".py"):
        raise ValueError(f"MODEL is {spec!r}; say what to take from the file: {spec}:model.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {spec!r}; allowed: a .onnx file, or file.py:attribute.")
    if not path.name.removesuffix(".gz").endswith(".onnx"):
        raise ValueError(f"MODEL is {spec!r}; allowed: a .onnx file (also .onnx.gz), or file.py:attribute.")
    try:
        return load(path)
    except (ValueError, NotImplementedError, ImportError, OSError):
        raise
    except Exception as error:  # the parser of a damaged file fails in its own classes
        raise UserError(f"{path} cannot be read as ONNX: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def _from_python(path: Path, attribute: str) -> Model:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    spec = importlib.util.spec_from_file_location(f"jaxsec_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, attribute, None)
        found = found() if callable(found) and not isinstance(found, Model) else found
    except Exception as error:
        raise UserError(f"{path}:{attribute} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(found, Model):
        raise ValueError(
            f"{path}:{attribute} is {type(found).__name__}; a jaxsec.Model (see jaxsec.bind) or a function that returns one is needed."
        )
    return found if found.info.name not in ("", "function") else found.noted(name=f"{path.name}:{attribute}")


def data_of(
    spec: str, *, labels: str | None, layout: str | None, range: str | None, label_column: str | None, limit: int | None, model: Model
) -> Dataset:
    """The data, arranged as the model wants them where the file does not say."""
    column: Any = int(label_column) if label_column is not None and label_column.lstrip("-").isdigit() else label_column
    chosen: Any = (
        None if layout is None else {"flat": "flat", "nchw": "NCHW", "chw": "NCHW", "nhwc": "NHWC", "hwc": "NHWC"}.get(layout.lower())
    )
    if layout is not None and chosen is None:
        raise ValueError(f"--layout is {layout!r}; allowed: flat, NCHW, NHWC.")
    wanted = model.info.input_shape
    if chosen is None and wanted is not None:
        chosen = _fitting(wanted)
    data = load_data(
        spec, labels=labels, layout=chosen, value_range=value_range(range), label_column=column, n_classes=model.info.n_classes, limit=limit
    )
    row = data.x.shape[1:]
    if wanted is not None and row != tuple(wanted) and [d for d in row if d != 1] == [d for d in wanted if d != 1]:
        data = data.shaped(wanted)  # axes of length 1 hold nothing
    return data


def _fitting(shape: tuple[int, ...]) -> str | None:
    """The layout that a model's input shape tells; None where it does not."""
    if sum(d != 1 for d in shape) <= 1:
        return "flat"
    if len(shape) == 3 and (shape[0] in (1, 3, 4)) != (shape[2] in (1, 3, 4)):
        return "NCHW" if shape[0] in (1, 3, 4) else "NHWC"
    return None


def method_of(name: str, *, steps: int | None, restarts: int | None, layout: str | None) -> Any:
    """An attack by name, with those of its settings that were given."""
    if name not in METHODS:
        raise ValueError(f"--method is {name!r}; allowed: {', '.join(METHODS)}.")
    given: dict[str, Any] = {"steps": steps, "restarts": restarts}
    given = {k: v for k, v in given.items() if v is not None}
    takes = {"fgsm": set(), "bim": {"steps"}, "autoattack": {"steps"}}.get(name, {"steps", "restarts"})
    if extra := set(given) - takes:
        raise ValueError(f"--{min(extra)} does not apply to --method {name}.")
    if name in ("square", "autoattack") and layout in ("NCHW", "NHWC"):
        given["layout"] = {"NCHW": "chw", "NHWC": "hwc"}[layout]
    return METHODS[name](**given)


def away_from(target: int | None, data: Dataset) -> np.ndarray:
    """The numbers of the rows of other classes: a row of the class to reach is there already. All rows without a target."""
    keep = np.arange(len(data.y)) if target is None else np.flatnonzero(data.y != target)
    if not len(keep):
        raise ValueError(f"--target is {target}, and every row is of that class; nothing is left to attack.")
    return keep
