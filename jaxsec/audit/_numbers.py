"""From the probes' arrays to the numbers that the report prints: shares with intervals, curves, classes, confusion."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._sandwich import broken_within, sandwich_of, wrong_clean
from ._smoothed import smoothed_numbers
from ._statistics import share
from ._subject import Outcome, Subject

CURVE_POINTS = 128
MOST_CLASSES = 50


def numbers_of(subject: Subject, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """One entry per probe that ran, and "worst_case", "classes" over all of them. Everything is JSON."""
    c = subject.plan.confidence
    wrong = wrong_clean(subject, outcomes["clean"])
    out: dict[str, Any] = {"clean": {"accuracy": share(~wrong, c), "nonfinite_rows": int((~outcomes["clean"].arrays["finite"]).sum())}}
    out["clean"]["majority_share"] = float(np.bincount(subject.y).max() / len(subject.y))
    out["clean"]["classes_present"] = len(np.unique(subject.y))
    broken, by = broken_within(subject, outcomes, subject.eps)
    if "noise" in outcomes:
        hits = outcomes["noise"].arrays["wrong"]
        out["noise"] = {"one_draw": share(~(hits[0] | wrong), c), "all_draws": share(~(hits.any(axis=0) | wrong), c), "draws": len(hits)}
    if "sweep" in outcomes:
        out["sweep"] = {"points": _sweep(subject, outcomes["sweep"], wrong)}
    if "attack" in outcomes:
        out["attack"] = _attack(subject, outcomes["attack"], wrong)
    if "blackbox" in outcomes:
        a = outcomes["blackbox"].arrays
        fallen = (a["success"] & ~wrong)[~wrong]
        queries = a["queries"][~wrong]
        out["blackbox"] = {
            "robust": share(~(a["success"] | wrong), c),
            "success_rate": share(fallen, c),
            "median_queries": float(np.median(queries[fallen])) if fallen.any() else None,
            "curve": cdf(np.where(fallen, queries, np.inf)),
        }
    if "distance" in outcomes:
        d = outcomes["distance"].arrays["distance"][~wrong]
        median = float(np.median(d)) if len(d) else float("inf")
        out["distance"] = {
            "within_eps": share(d <= subject.eps, c),
            "found": share(np.isfinite(d), c),
            "median": median if np.isfinite(median) else None,
            "curve": cdf(d),
        }
    if "certify" in outcomes:
        out["certify"] = sandwich_of(subject, outcomes)
    if "smooth" in outcomes:
        out["smooth"] = smoothed_numbers(subject, outcomes["smooth"])
    if by:
        out["worst_case"] = {
            "robust": share(~broken, c),
            "success_rate": share(broken[~wrong], c),
            "by_probe": {name: int((hit & ~wrong).sum()) for name, hit in by.items()},
        }
        out["classes"] = _classes(subject, wrong, broken)
        out["confusion"] = _confusion(subject, outcomes)
    return out


def _sweep(subject: Subject, outcome: Outcome, wrong: np.ndarray) -> list[dict[str, Any]]:
    """Each budget alone, and with what smaller budgets broke: a larger set contains the smaller, so that curve must be quoted."""
    broken, eps = outcome.arrays["broken"] | wrong, outcome.arrays["eps"]
    kept = np.logical_or.accumulate(broken, axis=0)
    c = subject.plan.confidence
    return [
        {"eps": float(e), "multiple": float(m), "robust": share(~k, c), "alone": share(~b, c)}
        for e, m, b, k in zip(eps, subject.plan.sweep, broken, kept, strict=True)
    ]


def _attack(subject: Subject, outcome: Outcome, wrong: np.ndarray) -> dict[str, Any]:
    a, c = outcome.arrays, subject.plan.confidence
    fallen = a["success"] & ~wrong
    stages = outcome.settings["stages"]
    return {
        "robust": share(~(a["success"] | wrong), c),
        "success_rate": share(fallen[~wrong], c),
        "stages": [{"name": s, "broken": int((fallen & (a["stage"] == i)).sum())} for i, s in enumerate(stages)],
        "mean_queries": float(a["queries"].mean()) if len(wrong) else None,
        "mean_gradients": float(a["gradients"].mean()) if len(wrong) else None,
        "mean_confidence_when_wrong": float(a["confidence"][fallen].mean()) if fallen.any() else None,
    }


def _classes(subject: Subject, wrong: np.ndarray, broken: np.ndarray) -> list[dict[str, Any]]:
    c = subject.plan.confidence
    return [
        {"class": int(k), "clean": share(~wrong[subject.y == k], c), "robust": share(~broken[subject.y == k], c)}
        for k in np.unique(subject.y)
    ]


def _confusion(subject: Subject, outcomes: Mapping[str, Outcome]) -> dict[str, Any] | None:
    """Counts [label][answer], clean and under the main attack; left out where there are too many classes to print."""
    if "attack" not in outcomes or subject.n_classes > MOST_CLASSES:
        return None

    def table(answers: np.ndarray) -> list[list[int]]:
        counts = np.zeros((subject.n_classes, subject.n_classes), int)
        np.add.at(counts, (subject.y, answers.astype(int)), 1)
        return counts.tolist()

    return {"clean": table(outcomes["clean"].arrays["predicted"]), "attacked": table(outcomes["attack"].arrays["predicted"])}


def cdf(values: np.ndarray) -> list[list[float]]:
    """Points [value, share of rows at or below it], at most 128; infinite values (nothing found) only lower the share."""
    n, finite = len(values), np.sort(values[np.isfinite(values)]).astype(float)
    if not len(finite):
        return []
    at = np.unique(np.linspace(0, len(finite) - 1, min(CURVE_POINTS, len(finite))).round().astype(int))
    return [[float(finite[i]), float((i + 1) / n)] for i in at]
