"""From numbers to findings: each rule states its threshold in the message, so that a reader can disagree with it."""

import itertools
from collections.abc import Sequence
from typing import Any

from ._finding import Finding, ordered
from ._judge_sandwich import sandwich_findings
from ._judge_smoothed import smoothed_findings
from ._statistics import interval_of

HARDEN = "Train against the same threat (adversarial or certified training), then audit again."
RULE = "severity: high from 50% of correctly classified rows broken, medium from 20%, low from 5%"
# Flags whose value is a share of rows; the others measure something else, or nothing.
_SHARES = {
    "nonfinite-logits",
    "infeasible",
    "unverified",
    "nonfinite-gradients",
    "zero-gradients",
    "incomplete-optimisation",
    "black-box-beats-white-box",
    "chance-accuracy",
    "unbounded-attack-fails",
    "more-steps-help",
    "noise-beats-attack",
    "unstable-predictions",
}
_FLAG_SEVERITY = {"error": "high", "warning": "medium", "info": "info"}


def findings_of(
    numbers: dict[str, Any],
    flags: list[dict[str, Any]],
    *,
    eps: float,
    norm: str,
    plan: Any,
    n_classes: int,
    more: Sequence[Finding] = (),
) -> list[Finding]:
    """All findings, worst first. `flags` are those of the attack, as dicts; `more` are findings that no number gave."""
    if nothing := nothing_attacked(numbers, eps):
        found = [_nothing(nothing)]
    else:
        found = [*_evasion(numbers, eps, norm), *_control(numbers), *_curve(numbers), *_uneven(numbers)]
    found += _ordinary(numbers, n_classes)
    found += sandwich_findings(numbers, eps, norm) + smoothed_findings(numbers, eps, norm)
    found += [*more, *(_flag(f) for f in flags)]
    if plan.reduced and "attack" in numbers:
        text = (
            f"AutoAttack ran with {plan.attack_steps} steps, {plan.attack_targets} targets and, on images, "
            f"{plan.attack_queries} Square queries; AutoAttack as published has 100, 9 and 5000. Robust accuracy may be overstated."
        )
        found.append(
            Finding(
                id="JSX-VAL-001",
                family="evaluation",
                severity="low",
                title="Reduced attack",
                message=text,
                remedy="Use --preset standard or full.",
            )
        )
    return ordered(found)


def _rate(share: dict[str, Any]) -> dict[str, Any]:
    return {"value": share["value"], "unit": "share", "n": share["n"], "interval": tuple(share["interval"])}


def _graded(value: float | None) -> str:
    v = value or 0.0
    return "high" if v >= 0.5 else "medium" if v >= 0.2 else "low" if v >= 0.05 else "info"


def _evasion(numbers: dict[str, Any], eps: float, norm: str) -> list[Finding]:
    found = []
    entries = (
        ("worst_case", "JSX-EVA-001", "evasion-white-box", "White-box evasion", "an adversary who knows the model"),
        ("blackbox", "JSX-EVA-002", "evasion-black-box", "Black-box evasion", "an adversary who sees only scores"),
    )
    for name, id, family, title, who in entries:
        if name not in numbers:
            continue
        rate = numbers[name]["success_rate"]
        text = f"{who} broke {rate['count']} of {rate['n']} correctly classified rows within {norm} distance {eps:.6g} ({RULE})."
        if name == "blackbox" and numbers[name]["median_queries"] is not None:
            text += f" The median broken row took {numbers[name]['median_queries']:.0f} queries."
        severity = _graded(rate["value"])
        remedy = HARDEN if name == "worst_case" else HARDEN + " Limit and watch queries per client; give labels instead of scores."
        if not rate["count"]:
            remedy = "Nothing was broken at this eps; audit at a larger one to find where the model yields."
        found.append(
            Finding(id=id, family=family, severity=severity, title=title, message=text[0].upper() + text[1:], remedy=remedy, **_rate(rate))
        )
    return found


def _control(numbers: dict[str, Any]) -> list[Finding]:
    """Noise must hurt less than the attack; where noise alone hurts, no adversary is needed."""
    if "noise" not in numbers:
        return []
    found, noise, clean = [], numbers["noise"], numbers["clean"]["accuracy"]
    if "worst_case" in numbers:
        robust = numbers["worst_case"]["robust"]
        if noise["all_draws"]["count"] < robust["count"]:
            text = (
                f"Under {noise['draws']} draws of uniform noise {noise['all_draws']['count']} of {robust['n']} rows stay right, "
                f"under attack {robust['count']}: the attack is weaker than chance and its number must not be quoted."
            )
            remedy = "Look for masked gradients or randomness in the model; raise the attack's steps."
            title = "Noise hurts more than the attack"
            found.append(
                Finding(
                    id="JSX-VAL-002",
                    family="evaluation",
                    severity="high",
                    title=title,
                    message=text,
                    remedy=remedy,
                    **_rate(noise["all_draws"]),
                )
            )
    drop = (clean["value"] or 0.0) - (noise["one_draw"]["value"] or 0.0)
    severity = "medium" if drop >= 0.05 else "info"
    every = "" if noise["draws"] == 1 else f", {noise['all_draws']['count']} at all of {noise['draws']} such points"
    text = (
        f"{clean['count']} of {clean['n']} rows are right as they are, {noise['one_draw']['count']} also at one point drawn uniformly from "
        f"the ball of eps around them{every}. "
        f"The single point costs {100 * drop:.1f} points of accuracy (medium from 5: then no adversary is needed)."
    )
    found.append(
        Finding(
            id="JSX-EVA-003", family="evaluation", severity=severity, title="Random noise control", message=text, **_rate(noise["one_draw"])
        )
    )
    return found


def _curve(numbers: dict[str, Any]) -> list[Finding]:
    """Robust accuracy at a larger budget cannot truly be higher; where the attack says so, the attack failed."""
    if "sweep" not in numbers:
        return []
    points = numbers["sweep"]["points"]
    worst, at = 0, points[0]
    for a, b in itertools.pairwise(points):
        if b["alone"]["count"] - a["alone"]["count"] > worst:
            worst, at = b["alone"]["count"] - a["alone"]["count"], b
    n = points[0]["robust"]["n"]
    if worst <= max(2, 0.01 * n):
        return []
    text = f"PGD breaks {worst} rows fewer at eps {at['eps']:.6g} than at the budget before: "
    text += "more room cannot help the model, so the attack loses its way."
    remedy = "Raise sweep_steps and sweep_restarts in the plan; look for masked gradients."
    title = "The curve does not fall"
    return [
        Finding(
            id="JSX-VAL-003",
            family="evaluation",
            severity="medium",
            title=title,
            message=text,
            value=float(worst),
            unit="rows",
            n=n,
            remedy=remedy,
        )
    ]


def _uneven(numbers: dict[str, Any]) -> list[Finding]:
    classes = [c for c in numbers.get("classes", []) if c["robust"]["n"] >= 5]
    if len(classes) < 2:
        return []
    worst = min(classes, key=lambda c: (c["robust"]["value"], c["class"]))
    mean = numbers["worst_case"]["robust"]["value"]
    # the worst of K classes was picked, so its interval is widened for K looks (Bonferroni)
    share = worst["robust"]
    _, high = interval_of(share["count"], share["n"], 1 - (1 - share["confidence"]) / len(classes))
    apart = high < mean
    few = " (of the classes with at least 5 rows)" if len(classes) < len(numbers["classes"]) else ""
    text = f"Class {worst['class']}{few} keeps {worst['robust']['value']:.1%} under attack, all rows together {mean:.1%}"
    text += (
        "; below the mean even after correction for picking the worst class (medium)."
        if apart
        else "; no more than chance explains (info)."
    )
    severity, title = "medium" if apart else "info", "Weakest class"
    remedy = "Give the class more data or weight in robust training."
    return [
        Finding(
            id="JSX-EVA-004",
            family="evasion-white-box",
            severity=severity,
            title=title,
            message=text,
            remedy=remedy,
            **_rate(worst["robust"]),
        )
    ]


def _ordinary(numbers: dict[str, Any], n_classes: int) -> list[Finding]:
    clean = numbers["clean"]["accuracy"]
    text, severity = f"{clean['count']} of {clean['n']} rows are right without any attack", "info"
    majority = numbers["clean"]["majority_share"]
    against = ((1 / n_classes, "high", "guessing"), (majority, "medium", "always answering the most frequent class"))
    reached = [a for a in against if clean["n"] and clean["interval"][0] <= a[0] < 1]
    if worse := next((a for a in reached if clean["value"] <= a[0]), None):
        text, severity = f"{text}: no better than {worse[2]}; check labels, normalisation and layout", worse[1]
    elif reached:
        text, severity = f"{text}: too few to tell whether that is better than {reached[0][2]}; audit more rows", "low"
    text += "."
    found = [Finding(id="JSX-MDL-001", family="evaluation", severity=severity, title="Clean accuracy", message=text, **_rate(clean))]
    present = numbers["clean"]["classes_present"]
    if present < n_classes:
        rest = "the other" if n_classes - present == 1 else "the others"
        text = f"Rows of {present} of the model's {n_classes} classes occur among the {clean['n']}; of {rest} nothing is said here."
        remedy = "Audit rows of every class: more of them, or drawn at random where the file is sorted by class."
        severity = "medium" if present == 1 else "low" if clean["n"] >= 5 * n_classes else "info"
        found.append(
            Finding(
                id="JSX-VAL-007", family="evaluation", severity=severity, title="Classes without rows", message=text, remedy=remedy,
                value=float(present), unit=f"of {n_classes} classes", n=clean["n"],
            )
        )  # fmt: skip
    return found


def _flag(flag: dict[str, Any]) -> Finding:
    value = float(flag["value"])
    return Finding(
        id=f"JSX-FLG-{flag['name']}",
        family="evaluation",
        severity=_FLAG_SEVERITY[flag["severity"]],
        title="Flag: " + flag["name"].replace("-", " "),
        message=flag["message"][0].upper() + flag["message"][1:] + ".",
        value=value if value == value and abs(value) != float("inf") else None,
        unit="share" if flag["name"] in _SHARES else "",
        n=int(flag["n"]),
        remedy="Read this before the robust accuracy." if flag["severity"] != "info" else "",
    )


def nothing_attacked(numbers: dict[str, Any], eps: float) -> str:
    """Why no row was attacked although attacks ran; "" where some were."""
    if "worst_case" not in numbers:
        return ""
    if eps == 0:
        return "eps is 0, so no input could be changed"
    none = numbers["worst_case"]["success_rate"]["n"] == 0
    return "no row was right as it is, so there was none to attack" if none else ""


def _nothing(why: str) -> Finding:
    text = f"{why[0].upper()}{why[1:]}: the robust accuracy is no measurement."
    return Finding(id="JSX-VAL-008", family="evaluation", severity="high", title="Nothing was attacked", message=text)


def verdict_of(
    numbers: dict[str, Any], findings: list[Finding], fail_under: float | None, *, nothing: str = "", reduced: bool = False
) -> dict[str, Any]:
    """Within the limit, or not, or no limit given. An evaluation that must not be quoted cannot pass (fails closed), but it can fail.

    `nothing` says why no row was attacked; `reduced` that the attack was weaker than AutoAttack as published.
    """
    robust = numbers.get("worst_case", {}).get("robust")
    measured = None if robust is None else robust["value"]
    broken = [f.id for f in findings if f.family == "evaluation" and f.severity == "high"]
    base = {"fail_under": fail_under, "measured": measured, "unreliable": broken}
    if fail_under is None:
        return base | {"state": "none", "reason": "without --fail-under the robust accuracy is measured and not judged"}
    if measured is None:
        return base | {"state": "fail", "reason": "no attack ran, so the limit cannot be checked"}
    if measured < fail_under:  # an attack gives an upper bound, so this holds however weak it was
        return base | {"state": "fail", "reason": f"robust accuracy {measured:.1%} is below the limit {fail_under:.1%}"}
    if nothing:
        return base | {"state": "fail", "reason": f"{nothing}: the limit cannot be checked"}
    if broken:
        return base | {
            "state": "fail",
            "reason": f"the evaluation is unreliable ({', '.join(broken)}), so its {measured:.1%} cannot show that the limit is kept",
        }
    weak = ", measured by a reduced attack, which may overstate it" if reduced else ""
    return base | {"state": "pass", "reason": f"robust accuracy {measured:.1%} is at or above the limit {fail_under:.1%}{weak}"}
