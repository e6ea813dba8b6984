"""The probe of the smoothed classifier: what sampling certifies of it, for every radius, and what an attack on it breaks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._batch import take_leaves
from ..smooth import SmoothAdv, Smoothing, attack_smoothed, certify_smoothed
from ._statistics import share
from ._subject import Outcome, Progress, Subject, Unable

JUDGES = 1000  # samples that judge an attacked input, at most
CURVE_POINTS = 128
MOST_ROWS = 20  # named in the report of those on which the sides disagree


def smoothed(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """Certified radii of all rows, then SmoothAdv at every budget of the curve, from small to large, on the rows that still stand.

    Cost: `smooth_samples` forward passes a row; for each budget `smooth_steps * smooth_noises` forward and backward ones.
    """
    plan, multiples = subject.plan, np.array(sorted({1.0, *subject.plan.sweep} - {0.0}), np.float64) if subject.eps else np.zeros(0)
    if subject.model.stochastic:
        raise Unable("the model draws random numbers, and smoothing adds its own to a fixed one")
    method = Smoothing(sigma=plan.smooth_sigma, n=plan.smooth_samples, alpha=plan.smooth_alpha)
    attack = SmoothAdv(steps=plan.smooth_steps, noises=plan.smooth_noises)
    key, total = subject.key_for("smooth"), len(multiples) + 1

    def part(at: int) -> Any:
        return lambda stage, fraction, live: report(stage, (at + fraction) / total, live)

    threat = subject.threat.replace(eps=0.0)  # radii do not depend on it, and must not be found again for another
    found = certify_smoothed(subject.model, subject.x, subject.y, threat=threat, method=method, key=key, progress_to=part(0), state=state)
    broken, standing = np.zeros((len(multiples), len(subject.y)), bool), np.arange(len(subject.y))
    for i, multiple in enumerate(multiples):
        broken[i] = broken[i - 1] if i else False
        if not len(standing):
            continue
        ball = jax.tree.map(np.asarray, subject.threat.replace(eps=float(multiple) * subject.eps).canonical(jnp.asarray(subject.x)))
        judged = method.replace(n=min(JUDGES, method.n))
        own = take_leaves(ball, standing, len(subject.y))
        x, y, how = subject.x[standing], subject.y[standing], {"method": judged, "attack": attack, "progress": part(i + 1)}
        hit = attack_smoothed(subject.model, x, y, threat=own, key=key, row_ids=standing, **how).success
        broken[i, standing] = np.asarray(hit)
        standing = np.flatnonzero(~broken[i])
    arrays = {
        "radius": np.asarray(found.radius), "predict": np.asarray(found.predict), "samples": np.asarray(found.samples),
        "eps": multiples * subject.eps, "multiple": multiples, "broken": broken,
    }  # fmt: skip
    settings = {
        "method": method.name, "sigma": float(plan.smooth_sigma or 0), "n": method.n, "n0": method.n0, "alpha": method.alpha,
        "attack": "SmoothAdv", "steps": attack.steps, "noises": attack.noises, "judges": min(JUDGES, method.n),
    }  # fmt: skip
    return Outcome(arrays, settings)


def smoothed_numbers(subject: Subject, outcome: Outcome) -> dict[str, Any]:
    """Both sides at each budget, the certified accuracy at every radius, and rows on which the sides disagree."""
    a, c = outcome.arrays, subject.plan.confidence
    right, radius = a["predict"] == subject.y, a["radius"]
    wrong = (a["predict"] >= 0) & ~right
    certified = right & (radius >= 0)
    points, against = [], np.zeros(len(subject.y), bool)
    for eps, multiple, broken in zip([0.0, *a["eps"]], [0.0, *a["multiple"]], [wrong, *a["broken"]], strict=True):
        proved, fallen = certified & (radius >= eps), broken | wrong
        against |= proved & fallen
        points.append({"eps": float(eps), "multiple": float(multiple), "certified": share(proved, c), "attacked": share(~fallen, c)})
    kept = np.where(certified, radius, 0.0)
    return {
        "settings": outcome.settings,
        "points": points,
        "curve": _curve(radius[certified], len(subject.y)),
        "average_certified_radius": float(kept.mean()),
        "abstained": share(a["predict"] < 0, c),
        "samples_per_row": float(a["samples"].mean()),
        "contradictions": {"count": int(against.sum()), "rows": subject.ids[against][:MOST_ROWS].tolist()},
    }


def _curve(radii: np.ndarray, n: int) -> list[list[float]]:
    """[radius, share of rows certified at it], falling: the share holds up to and with the radius."""
    if not len(radii):
        return []
    ends = np.sort(radii)
    at = np.unique(np.linspace(0, len(ends) - 1, min(CURVE_POINTS, len(ends))).round().astype(int))
    return [[float(r), float(np.sum(ends >= r) / n)] for r in np.unique(ends[at])]
