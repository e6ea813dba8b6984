"""What a saved attack says of itself: enough to repeat it, and what its numbers mean."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..audit._environment import environment, hash_of, model_facts, now
from ..audit._facts import plain, threat_facts
from ..audit._probes import settings_of
from ..certify._certificate import Verdict
from ..core import AttackResult, Model, Status
from ..core._check import n_classes_of
from ..io import Dataset
from ..smooth import SmoothedVerdict
from ..threat import Ball


def about_attack(
    model: Model, data: Dataset, method: Any, threat: Ball, found: AttackResult, *, seed: int, target: int | None
) -> dict[str, Any]:
    """JSON types only; the names are those of an audit's report."""
    return plain(
        {
            "tool": {"name": "jaxsec", "version": __version__},
            "started": now(),
            "method": settings_of(method),
            "threat": threat_facts(threat),
            "target": target,
            "seed": seed,
            "model": model_facts(model, n_classes_of(model, data.x)),
            "data": _data_facts(data),
            "stages": list(found.stages),
            "status": {str(int(s)): s.message for s in Status},
            "flags": [dataclasses.asdict(f) for f in found.flags],
            "environment": environment(),
        }
    )


def about_certify(
    model: Model, data: Dataset, methods: Sequence[Any], threats: Sequence[Ball], *, sound: bool, seed: int | None = None
) -> dict[str, Any]:
    """As `about_attack`; the threat's eps is a list. seed: of smoothing, whose statuses mean other things."""
    verdicts = Verdict if seed is None else SmoothedVerdict
    precision = {"precision": "sound" if sound else "highest"} if seed is None else {"seed": seed}
    return plain(
        {
            "tool": {"name": "jaxsec", "version": __version__},
            "started": now(),
            "methods": [settings_of(m) for m in methods],
            **precision,
            "threat": threat_facts(threats[0]) | {"eps": [float(t.eps) for t in threats]},
            "model": model_facts(model, n_classes_of(model, data.x)),
            "data": _data_facts(data),
            "status": {str(int(v)): v.message for v in verdicts},
            "environment": environment(),
        }
    )


def _data_facts(data: Dataset) -> dict[str, Any]:
    return {
        "name": data.name,
        "source": data.source,
        "labels": data.labels,
        "available": data.available,
        "rows": len(data),
        "sha256": hash_of((data.x, data.y)),
        "notes": list(data.notes),
    }
