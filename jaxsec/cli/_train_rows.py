"""The rows that `jaxsec train` learns from and holds out, and the network that it starts from."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def prepared(net: str | None, source: Any, seed: int, folder: Path) -> tuple[Any, Path, str]:
    """(the rows, the .onnx file that training starts from; one that is made here goes to `folder`, and which net it is)."""
    from ..core import Model, ModelInfo
    from ..io import NETWORKS, load, new_network
    from ._inputs import data_of

    if net is not None and net not in NETWORKS:
        path = Path(net)
        if not (path.name.endswith((".onnx", ".onnx.gz")) and path.is_file()):
            raise ValueError(f"--net is {net!r}; allowed: {', '.join(NETWORKS)}, or an .onnx file that exists.")
        return data_of(source, load(path)), path, net
    if source.data == "digits" and source.layout is None and net != "mlp":
        source = dataclasses.replace(source, layout="NCHW")  # images, which a black-box attack can be tried on
    rows = data_of(source, Model(params=(), apply=_nothing, info=ModelInfo()))
    _check_classes(rows)
    shape = rows.x.shape[1:]
    if net is None:
        net = "cnn" if rows.layout in ("NCHW", "NHWC") and min(shape[1:] if rows.layout == "NCHW" else shape[:2]) >= 8 else "mlp"
    path = folder / "initial.onnx"
    new_network(net, shape, rows.n_classes, path, seed=seed, layout=rows.layout)
    return rows, path, net


def _check_classes(rows: Any) -> None:
    """ValueError where no network can be made for the classes; a warning where some never occur."""
    present = np.unique(rows.y)
    if len(present) < 2:
        raise ValueError(f"--data has rows of class {present[0]} only; at least two classes are needed to train.")
    if rows.n_classes > len(rows):
        at = int(np.argmax(rows.y))
        raise ValueError(
            f"--data has label {present[-1]} in row {at}, which makes {rows.n_classes} classes of {len(rows)} rows, and {len(present)} "
            "occur; is it a class? Number classes from 0."
        )
    if len(present) < rows.n_classes:
        missing = np.setdiff1d(np.arange(rows.n_classes), present)
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        warnings.warn(
            f"no row is of class {shown}: {len(present)} of {rows.n_classes} classes occur, and the network answers all", RuntimeWarning, 2
        )


def _nothing(params: Any, x: Any) -> Any:
    """The program of a model that is not made yet."""
    raise AssertionError("the network is made once the data are known")


def split(rows: Any, held: float, seed: int) -> tuple[Any, Any]:
    """(rows to train on, rows that are held out or None)."""
    count = round(len(rows) * held)
    if not count:
        return rows, None
    order = np.random.default_rng(seed).permutation(len(rows))
    if len(rows) - count < 2:
        raise ValueError(f"--hold-out leaves {len(rows) - count} of {len(rows)} rows to train on; give more data, or a smaller share.")
    return rows.rows(np.sort(order[count:])), rows.rows(np.sort(order[:count]))
