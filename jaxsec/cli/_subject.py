"""The model and the data that a command works on."""

from pathlib import Path
from typing import Any

import numpy as np

from ..audit._default import default_audit
from ..io import check_data
from ._inputs import Source, data_of, model_of, warn
from ._rows import for_images
from ._trained import of_run
from ._values import deviations, numbers, whole


def model_and_data(model: str | None, source: Source, seed: int) -> tuple[Any, Any]:
    """The model and its data as the command line names them, checked against each other; without a model, the embedded pair."""
    limit = whole(source.limit, "--limit", 1)
    run = model
    model, source, training = of_run(model, source)
    if model is None:
        if stray := source.given():
            raise ValueError(f"{stray[0]} was given without MODEL; name the model, or leave both out to audit the embedded one.")
        net, rows = default_audit(seed)
        return net, rows.first(limit)
    if source.data is None:
        raise ValueError(f"--data is missing; MODEL {model!r} needs labelled inputs, e.g. --data test.npz with the keys x and y.")
    mean, std = numbers(source.mean, "--mean"), deviations(source.std)
    net = model_of(model)
    if training is not None:
        net = net.noted(training, name=Path(str(run)).resolve().name)
    rows = data_of(source, net)
    net = for_images(net, rows)
    if mean is not None or std is not None:
        net = _normalising(net, mean, std, rows.layout, rows.x.shape[1:])
    for warning in check_data(rows, net):
        warn(str(warning))
    return net, rows


def _normalising(net: Any, mean: Any, std: Any, layout: str, row: tuple[int, ...]) -> Any:
    """The model behind the normalisation, so that eps and range stay in the units of the data."""
    channels = {"NCHW": 0, "NHWC": -1}.get(layout)
    allowed = {1, *row} if channels is None else {1, row[channels]}
    for option, value in (("--mean", mean), ("--std", std)):
        if np.ndim(value) and np.size(value) not in allowed:
            sizes = " or ".join(map(str, sorted(allowed)))
            per = "one for all" if allowed == {1} else "one for all, or one per channel"
            raise ValueError(f"{option} has {np.size(value)} values; for rows of shape {row} it takes {sizes}: {per}.")
    said = f"inputs are normalised in front of the model: (x - {_said(mean, 0)}) / {_said(std, 1)}"
    mean, std = 0.0 if mean is None else mean, 1.0 if std is None else std
    if layout == "NCHW":
        mean, std = (np.reshape(v, (-1, 1, 1)) if np.ndim(v) else v for v in (mean, std))
    return net.preprocessed(mean=mean, std=std).noted(said)


def _said(value: Any, default: int) -> str:
    if value is None:
        return str(default)
    return f"{value:g}" if np.ndim(value) == 0 else f"[{', '.join(f'{v:g}' for v in np.ravel(value))}]"
