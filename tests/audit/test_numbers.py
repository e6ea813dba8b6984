"""Shares, curves and judgements on numbers that can be checked by hand."""

import importlib.resources
import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from jaxsec.audit import Plan
from jaxsec.audit._examples import decode, encode
from jaxsec.audit._judge import _SHARES, findings_of, nothing_attacked, verdict_of
from jaxsec.audit._numbers import cdf
from jaxsec.audit._statistics import interval_of, share


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (970, 1000)])
def test_intervals_are_clopper_pearson(count: int, n: int) -> None:
    low, high = interval_of(count, n, 0.9)
    assert low == pytest.approx(beta.ppf(0.05, count, n - count + 1) if count else 0.0, abs=1e-9)
    assert high == pytest.approx(beta.ppf(0.95, count + 1, n - count) if count < n else 1.0, abs=1e-9)


def test_no_rows_is_no_number() -> None:
    empty = share(np.zeros(0, bool), 0.95)
    assert (empty["value"], empty["interval"]) == (None, [0.0, 1.0])


def test_a_curve_counts_rows_that_were_never_broken() -> None:
    assert cdf(np.array([3.0, np.inf, 1.0, np.inf])) == [[1.0, 0.25], [3.0, 0.5]]
    assert cdf(np.full(3, np.inf)) == []
    long = cdf(np.arange(1000.0))
    assert len(long) == 128 and long[-1] == [999.0, 1.0]


def test_pictures_survive_and_are_made_small() -> None:
    row = np.arange(3 * 130 * 130, dtype=np.float32).reshape(3, 130, 130) / 5e4
    entry = encode(row, "chw")
    assert entry["shape"] == [44, 44, 3] and entry["every"] == 3
    np.testing.assert_allclose(decode(entry), np.transpose(row, (1, 2, 0))[::3, ::3], rtol=1e-3, atol=1e-3)
    assert encode(np.ones((2, 3), np.float32), None)["shape"] == [6]


def numbers(robust: int, noise: int, alone: tuple[int, ...] = (90, 50), majority: float = 0.1) -> dict[str, Any]:
    """A hundred rows: 90 right, `robust` under attack, `noise` under all draws of noise."""

    def of(count: int, n: int = 100) -> dict[str, Any]:
        return share(np.arange(n) < count, 0.95)

    points = [{"eps": float(i), "robust": of(c), "alone": of(c)} for i, c in enumerate(alone)]
    return {
        "clean": {"accuracy": of(90), "majority_share": majority, "classes_present": 10},
        "noise": {"one_draw": of(noise), "all_draws": of(noise), "draws": 5},
        "sweep": {"points": points},
        "worst_case": {"robust": of(robust), "success_rate": of(90 - robust, 90)},
        "attack": {},
    }


def judge(values: dict[str, Any], plan: Plan | None = None, flags: list[dict[str, Any]] | None = None) -> dict[str, str]:
    found = findings_of(values, flags or [], eps=0.1, norm="linf", plan=plan or Plan(), n_classes=10)
    return {f.id: f.severity for f in found}


@pytest.mark.parametrize(("robust", "severity"), [(89, "info"), (84, "low"), (70, "medium"), (40, "high")])
def test_evasion_is_graded_by_the_share_of_right_rows_broken(robust: int, severity: str) -> None:
    assert judge(numbers(robust, 90))["JSX-EVA-001"] == severity


def test_noise_that_beats_the_attack_spoils_the_evaluation() -> None:
    assert "JSX-VAL-002" not in judge(numbers(40, 88))
    assert judge(numbers(60, 50))["JSX-VAL-002"] == "high"
    assert judge(numbers(40, 80))["JSX-EVA-003"] == "medium"


def test_a_curve_that_rises_is_found() -> None:
    assert "JSX-VAL-003" not in judge(numbers(40, 88, (90, 60, 61, 20)))
    assert judge(numbers(40, 88, (90, 50, 60, 20)))["JSX-VAL-003"] == "medium"


def test_clean_accuracy_is_compared_with_a_constant_answer() -> None:
    assert judge(numbers(40, 88))["JSX-MDL-001"] == "info"
    assert judge(numbers(40, 88, majority=0.9))["JSX-MDL-001"] == "medium"
    assert judge(numbers(40, 88, majority=1.0))["JSX-MDL-001"] == "info", "one class alone says nothing"
    guessed = numbers(40, 88) | {"clean": {"accuracy": share(np.arange(100) < 10, 0.95), "majority_share": 0.3, "classes_present": 10}}
    assert judge(guessed)["JSX-MDL-001"] == "high"
    few = {"accuracy": share(np.arange(20) < 12, 0.95), "majority_share": 0.8, "classes_present": 2}
    (found,) = (
        f for f in findings_of(numbers(40, 88) | {"clean": few}, [], eps=0.1, norm="linf", plan=Plan(), n_classes=2) if "MDL" in f.id
    )
    assert found.severity == "medium" and "no better than always answering the most frequent class" in found.message


def test_few_rows_are_not_called_no_better_than_a_constant_answer() -> None:
    found = findings_of(numbers(40, 88, majority=0.86), [], eps=0.1, norm="linf", plan=Plan(), n_classes=10)
    (clean,) = (f for f in found if f.id == "JSX-MDL-001")
    assert clean.severity == "low" and "too few to tell whether that is better than always answering" in clean.message


@pytest.mark.parametrize(("present", "severity"), [(1, "medium"), (9, "low")])
def test_classes_without_rows_are_found(present: int, severity: str) -> None:
    values = numbers(40, 88)
    assert "JSX-VAL-007" not in judge(values)
    values["clean"]["classes_present"] = present
    assert judge(values)["JSX-VAL-007"] == severity


def test_an_attack_on_nothing_cannot_pass() -> None:
    values = numbers(90, 90)
    assert nothing_attacked(values, 0.1) == "" and nothing_attacked({"clean": values["clean"]}, 0.0) == ""
    found = findings_of(values, [], eps=0.0, norm="linf", plan=Plan(), n_classes=10)
    assert {f.id: f.severity for f in found}["JSX-VAL-008"] == "high" and not [f for f in found if f.family.startswith("evasion")]
    verdict = verdict_of(values, found, 0.5, nothing=nothing_attacked(values, 0.0))
    assert verdict["state"] == "fail" and "eps is 0" in verdict["reason"]
    values["worst_case"]["success_rate"] = share(np.zeros(0, bool), 0.95)
    assert "no row was right" in nothing_attacked(values, 0.1)


def test_the_verdict_names_a_reduced_attack() -> None:
    values = numbers(60, 88)
    assert "reduced attack" in verdict_of(values, [], 0.5, reduced=True)["reason"]
    assert "reduced" not in verdict_of(values, [], 0.5)["reason"]


def test_reduced_attacks_and_flags_are_findings() -> None:
    flag = {"name": "zero-gradients", "severity": "error", "message": "dead", "value": float("nan"), "n": 3}
    found = judge(numbers(40, 88), Plan.preset_of("quick"), [flag])
    assert found["JSX-VAL-001"] == "low" and found["JSX-FLG-zero-gradients"] == "high"


def test_flags_that_count_rows_are_rates() -> None:
    attack = importlib.resources.files("jaxsec.attack")
    source = "".join((attack / name).read_text() for name in ("_flags.py", "_masking.py"))
    counting = set(re.findall(r'\bflag\("([a-z-]+)"', source)) | set(re.findall(r'Status\.[A-Z]+, "([a-z-]+)"\)', source))
    probing = set(re.findall(r'Flag\("([a-z-]+)", \S+, text, (?:rate|gain|float\(\w+\.mean\(\)\))', source))
    assert len(counting) == 8 and probing and counting | probing == _SHARES
    for name, unit in (("zero-gradients", "share"), ("returned-inputs", "")):
        flag = {"name": name, "severity": "info", "message": "m", "value": 0.25, "n": 4}
        found = findings_of(numbers(40, 88), [flag], eps=0.1, norm="linf", plan=Plan(), n_classes=10)
        assert [f.unit for f in found if f.id == f"JSX-FLG-{name}"] == [unit]


def test_the_verdict_fails_closed() -> None:
    values = numbers(60, 88)
    sound = findings_of(values, [], eps=0.1, norm="linf", plan=Plan(), n_classes=10)
    assert verdict_of(values, sound, None)["state"] == "none"
    assert verdict_of(values, sound, 0.6)["state"] == "pass"
    assert verdict_of(values, sound, 0.61)["state"] == "fail"
    assert verdict_of({"clean": values["clean"]}, [], 0.1)["state"] == "fail", "nothing measured cannot pass"
    shaky = findings_of(numbers(60, 20), [], eps=0.1, norm="linf", plan=Plan(), n_classes=10)
    assert verdict_of(values, shaky, 0.1)["state"] == "fail", "an evaluation that must not be quoted cannot pass"
