"""What the report states besides its numbers: data, threat, plan, what was and was not tested, what the numbers mean."""

import dataclasses
from typing import Any

import numpy as np

from ..threat import Ball
from ._environment import hash_of
from ._finding import Finding
from ._plan import Plan
from ._standards import FAMILIES
from ._subject import Subject

LIMITS = (
    "Robust accuracy found by attacks is an upper bound: a better attack can only lower it. Only a certificate gives a lower bound.",
    "It holds for this threat set, these rows and this model with these weights; another norm, budget or data set is another question.",
    "Intervals cover which rows were drawn. They do not cover a shift of the data, mislabelled rows or attacks that were not run.",
    "A family marked NOT TESTED was not looked at; nothing follows about it.",
    "Evidence relevant to Article 15(5) of the EU AI Act for the families tested; no statement of compliance.",
)

CERTIFIED = (
    "Certified accuracy is a lower bound: no input of the threat set turns a certified row. That holds up to float32 "
    "rounding (precision highest), or with all rounding counted (precision sound). An undecided row was neither broken nor proved, and "
    "may be either."
)


SMOOTHED = (
    "Certified accuracy by smoothing is about the smoothed classifier, the class that most noised copies of an input get: another "
    "classifier than the model, which must be served for the number to mean anything. Each row's certificate fails with the stated "
    "probability."
)


def data_facts(data: Any, x: np.ndarray, y: np.ndarray, subject: Subject) -> dict[str, Any]:
    """The data set and the rows drawn from it, by hash."""
    name = getattr(data, "name", "") or "arrays"
    return {
        "name": str(name),
        "labels": str(getattr(data, "labels", "")),
        "available": max(getattr(data, "available", 0), len(y)),
        "rows": len(y),
        "audited": len(subject.ids),
        "shape": list(x.shape[1:]),
        "layout": subject.layout,
        "range": [float(x.min()), float(x.max())],
        "sha256": hash_of((x, y)),
        "audited_sha256": hash_of((subject.x, subject.y)),
        "notes": [str(n) for n in getattr(data, "notes", ()) or ()],
        "class_names": [str(c) for c in getattr(data, "class_names", ()) or ()],
    }


def _bound(v: Any) -> float | str:
    """A side of the box: a number, or words for one that is infinite or differs by value."""
    a = np.asarray(v, np.float64)
    if a.size == 1:
        return float(a.reshape(())) if np.isfinite(a).all() else str(float(a.reshape(())))
    return f"array of shape {a.shape}, {a.min():.6g} to {a.max():.6g}"


def threat_facts(threat: Ball) -> dict[str, Any]:
    return {"norm": threat.norm, "eps": float(np.asarray(threat.eps)), "lo": _bound(threat.lo), "hi": _bound(threat.hi)}


def plan_facts(plan: Plan) -> dict[str, Any]:
    return dataclasses.asdict(plan) | {"reduced": plan.reduced}


def coverage(names: list[str], skipped: dict[str, str], findings: list[Finding], nothing: str = "") -> list[dict[str, Any]]:
    """Every family of the standards table, tested or not; no family is ever passed by silence. `nothing`: why no row was attacked."""
    tested = {
        "evasion-white-box": [n for n in ("attack", "sweep", "distance") if n in names],
        "evasion-black-box": [n for n in ("blackbox",) if n in names],
    }
    reasons = {
        "evasion-black-box": skipped.get("blackbox", "the plan left the probe out"),
        "evasion-white-box": "the plan left the probes out",
    }
    out = []
    for family in FAMILIES:
        ran = tested.get(family.key, [])
        probes = [] if nothing else ran
        hits = [f for f in findings if f.family == family.key]
        out.append(
            {
                "family": family.key,
                "title": family.title,
                "status": "TESTED" if probes else "NOT TESTED",
                "probes": probes,
                "reason": "" if probes else nothing if ran else reasons.get(family.key, "this version has no probe for it"),
                "worst": hits[0].severity if hits and probes else None,
                "ai_act": family.ai_act,
                "standards": family.ids(),
            }
        )
    return out


def plain(value: Any) -> Any:
    """JSON types only; a number that is not finite becomes null, because JSON has no other word for it."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
