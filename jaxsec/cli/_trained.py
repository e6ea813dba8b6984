"""What `jaxsec train` leaves in its folder, and how the other commands find it there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..core._files import digest_of
from ..core._plural import plural
from ._inputs import Source, warn
from ._train_asked import read
from ._values import value_range

MODEL, ROWS, ABOUT = "model.onnx", "test.npz", "train.json"


def trained(spec: str | None) -> dict[str, Any] | None:
    """What the run in the folder `spec` was; None where that is no folder of a finished run."""
    folder = Path(spec or "")
    if not spec or not folder.is_dir():
        return None
    asked, unfinished = read(folder), f"{spec} holds a run that is not finished; run the same 'jaxsec train' again to go on with it."
    if not (folder / ABOUT).is_file():
        if not (folder / "checkpoints").is_dir():
            return None
        if asked is None:
            raise ValueError(
                f"{spec} holds checkpoints and no model: it was not 'jaxsec train' that wrote them. What jaxsec.fit returned is audited in "
                "Python: jaxsec.audit(fit.model, ...)."
            )
        raise ValueError(unfinished)
    if not (folder / MODEL).is_file():
        raise ValueError(f"{spec} holds {ABOUT} of a run and no {MODEL}; run the same 'jaxsec train' again, which writes it.")
    try:
        about = json.loads((folder / ABOUT).read_text())
        if missing := {"recipe", "range", "layout", "data"} - set(about):
            raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
        how(about)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / ABOUT} is damaged ({error}); train again, or give {folder / MODEL} and --data.") from None
    if asked is not None and about.get("asked", asked) != asked:
        raise ValueError(unfinished)  # begun anew over one that was
    if about.get("model sha256", digest := digest_of(folder / MODEL)) != digest:
        raise ValueError(
            f"{folder / MODEL} is not the model that {ABOUT} tells of; run the same 'jaxsec train' again, which writes it, or give "
            f"{folder / MODEL} itself and --data."
        )
    return about


def how(run: dict[str, Any]) -> str:
    """One line for reports, of what `train.json` holds."""
    data, best, done = run.get("data", {}), run.get("best", {}), plural(run.get("epochs done", 0), "epoch")
    ball = f" against {run['threat']} eps {run.get('eps typed') or format(run['eps'], '.6g')}" if run.get("threat") else ""
    settings = f" with {' '.join(run['settings'])}" if run.get("settings") else ""
    shares = {name: best.get(f"validation_{name}") for name in ("clean", "noisy", "robust", "certified")}
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share is not None)
    return (
        f"trained by 'jaxsec train' {run.get('jaxsec', '')}: {run.get('recipe')}{settings}{ball}, {done}, seed "
        f"{run.get('seed')}, {data.get('rows', 0) - data.get('held out', 0)} rows of {data.get('source')}"
        + (f"; on its own validation rows {told}" if told else "")
    )


def threat_for(run: dict[str, Any] | None, norm: Any, eps: Any, rows: Any, usual: str | None = None) -> tuple[Any, Any]:
    """(norm, eps) as asked for; what is None is as that run was trained, else "linf" and None.

    Warns where eps is the run's, and of another range than the rows'.
    Args: run: of `trained`. rows: the data. usual: the norm where none is asked for, whatever the run was trained for.
    """
    run = run or {}
    norm = usual or run.get("threat") or "linf" if norm is None else norm
    if eps is not None or str(norm).lower() != run.get("threat"):
        return norm, eps
    was, now = value_range(run["range"]), rows.value_range
    if was is not None and np.shape(now) == (2,) and not np.allclose(was, now):
        warn(
            f"eps is {run['eps']:g}, for which the model was trained on data in [{was[0]:g}, {was[1]:g}], and these are in "
            f"[{now[0]:g}, {now[1]:g}]: give --eps in their units, or --range {was[0]:g},{was[1]:g}."
        )
    return norm, run["eps"]


def of_run(spec: str | None, source: Source) -> tuple[str | None, Source, str | None]:
    """(the model's file, the data, `how` it was trained): of a run, its model and, where no data were named, the rows that it held out."""
    run = trained(spec)
    if run is None:
        if spec and source.data is None and Path(spec).is_dir():
            raise ValueError(f"{spec} is a folder without a run of 'jaxsec train' in it; name such a folder, or a model's file and --data.")
        if spec and source.data is None and ":" not in spec and not spec.endswith((".onnx", ".gz")) and not Path(spec).exists():
            raise ValueError(f"there is no {spec} (working folder: {Path.cwd()}); name the folder of a run, or a model's file and --data.")
        return spec, source, None
    folder = Path(str(spec))
    if source.data is None:
        if not (folder / ROWS).is_file():
            if run["data"].get("held out"):
                raise ValueError(
                    f"{folder / ROWS} is missing; run the same 'jaxsec train' again, which writes it, or name rows with --data."
                )
            raise ValueError(f"{spec} was trained on all its rows (--hold-out 0); name others with --data.")
        if run.get("rows sha256", digest := digest_of(folder / ROWS)) != digest:
            raise ValueError(
                f"{folder / ROWS} holds other rows than {ABOUT} tells of; run the same 'jaxsec train' again, which writes it, or name "
                "rows with --data."
            )
        source = dataclasses.replace(
            source, data=str(folder / ROWS), range=source.range or run["range"], layout=source.layout or run["layout"]
        )
    return str(folder / MODEL), source, how(run)
