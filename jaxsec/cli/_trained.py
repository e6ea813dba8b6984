"""What `jaxsec train` leaves in its folder, and how the other commands find it there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ._inputs import Source

MODEL, ROWS, ABOUT = "model.onnx", "test.npz", "train.json"


def trained(spec: str | None) -> dict[str, Any] | None:
    """What the run in the folder `spec` was; None where that is no folder of a finished run."""
    folder = Path(spec or "")
    if spec and (folder / "checkpoints").is_dir() and not (folder / ABOUT).is_file():
        raise ValueError(f"{spec} holds a run that is not finished; run the same 'jaxsec train' again to go on with it.")
    if not spec or not (folder / ABOUT).is_file():
        return None
    if not (folder / MODEL).is_file():
        raise ValueError(f"{spec} holds {ABOUT} of a run and no {MODEL}; run the same 'jaxsec train' again, which writes it.")
    try:
        return json.loads((folder / ABOUT).read_text())
    except ValueError as error:
        raise ValueError(f"{folder / ABOUT} is damaged ({error}); train again, or give {folder / MODEL} and --data.") from None


def how(run: dict[str, Any]) -> str:
    """One line for reports, of what `train.json` holds."""
    data, best = run.get("data", {}), run.get("best", {})
    ball = f" against {run['threat']} eps {run.get('eps typed') or format(run['eps'], '.6g')}" if run.get("threat") else ""
    settings = f" with {' '.join(run['settings'])}" if run.get("settings") else ""
    shares = {name: best.get(f"validation_{name}") for name in ("clean", "noisy", "robust", "certified")}
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share is not None)
    return (
        f"trained by 'jaxsec train' {run.get('jaxsec', '')}: {run.get('recipe')}{settings}{ball}, {run.get('epochs done')} epochs, seed "
        f"{run.get('seed')}, {data.get('rows', 0) - data.get('held out', 0)} rows of {data.get('source')}"
        + (f"; on its own validation rows {told}" if told else "")
    )


def of_run(spec: str | None, source: Source) -> tuple[str | None, Source, str | None]:
    """(the model's file, the data, `how` it was trained): of a run, its model and, where no data were named, the rows that it held out."""
    run = trained(spec)
    if run is None:
        return spec, source, None
    folder = Path(str(spec))
    if source.data is None:
        if not (folder / ROWS).is_file():
            raise ValueError(f"{spec} was trained on all its rows (--hold-out 0); name others with --data.")
        source = dataclasses.replace(
            source, data=str(folder / ROWS), range=source.range or run["range"], layout=source.layout or run["layout"]
        )
    return str(folder / MODEL), source, how(run)
