"""Certified <= true robustness <= attacked: both sides for each budget, the rows between them, and rows on which the sides disagree."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._statistics import share
from ._subject import Outcome, Subject

MOST_ROWS = 20  # named in the report of those on which the sides disagree


def wrong_clean(subject: Subject, outcome: Outcome) -> np.ndarray:
    """[N] rows that are wrong as they are; a row whose logits are not finite counts as wrong."""
    return (outcome.arrays["predicted"] != subject.y) | ~outcome.arrays["finite"]


def broken_within(subject: Subject, outcomes: Mapping[str, Outcome], eps: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """[N] rows that any attack broke within `eps` (rows wrong before included), and the same by probe; noise is no attack."""
    by: dict[str, np.ndarray] = {}
    if "attack" in outcomes and subject.eps <= eps:
        by["attack"] = outcomes["attack"].arrays["success"]
    if "sweep" in outcomes:
        a = outcomes["sweep"].arrays
        within = a["eps"] <= eps
        if within.any():
            by["sweep"] = a["broken"][within].any(axis=0)
    if "blackbox" in outcomes and subject.eps <= eps:
        by["blackbox"] = outcomes["blackbox"].arrays["success"]
    if "distance" in outcomes:
        by["distance"] = outcomes["distance"].arrays["distance"] <= eps
    if "certify" in outcomes and "beta-crown" in outcomes["certify"].settings["methods"]:  # it attacks and branches: both find inputs
        a = outcomes["certify"].arrays
        by["certify"] = a["broken"][a["eps"] <= eps].any(axis=0)
    broken = wrong_clean(subject, outcomes["clean"])
    for hit in by.values():
        broken = broken | hit
    return broken, by


def sandwich_of(subject: Subject, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """The numbers of the probe `certify`. A row on which the sides disagree is not called certified; `contradictions` counts it."""
    outcome, c = outcomes["certify"], subject.plan.confidence
    a, names = outcome.arrays, outcome.settings["methods"]
    points, against = [], {}
    for eps, multiple, robust, method in zip(a["eps"], a["multiple"], a["robust"], a["method"], strict=True):
        broken, by = broken_within(subject, outcomes, float(eps))
        refuted = {"clean": wrong_clean(subject, outcomes["clean"])} | by | _noise(subject, outcomes, float(eps))
        for name, hit in refuted.items():
            against[name] = against.get(name, False) | (hit & robust)
        proved = robust & ~np.any(list(refuted.values()), axis=0)
        points.append(
            {
                "eps": float(eps),
                "multiple": float(multiple),
                "certified": share(proved, c),
                "attacked": share(~broken, c),
                "undecided": share(~broken & ~proved, c),
                "by": {name: int(np.sum(proved & (method == i))) for i, name in enumerate(names)},
            }
        )
    rows = np.any(list(against.values()), axis=0)
    return {
        "methods": names,
        "note": outcome.settings["note"],
        "precision": outcome.settings["precision"],
        "points": points,
        "contradictions": {
            "count": int(rows.sum()),
            "rows": subject.ids[rows][:MOST_ROWS].tolist(),
            "by_probe": {name: int(hit.sum()) for name, hit in against.items() if hit.any()},
        },
    }


def _noise(subject: Subject, outcomes: Mapping[str, Outcome], eps: float) -> dict[str, np.ndarray]:
    """Noise is no attack, but its points are in the set: a certified row must stand there too."""
    return {"noise": outcomes["noise"].arrays["wrong"].any(axis=0)} if "noise" in outcomes and subject.eps <= eps else {}
