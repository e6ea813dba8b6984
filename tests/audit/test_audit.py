"""The verb: what it measures, that it goes on after a kill, and what it refuses."""

import copy
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec.audit import Plan, Report, audit
from jaxsec.audit._probes import PROBE_FUNCTIONS

from .conftest import CLASSES, ROWS, THREAT, TRACES, subject_of, tiny_plan


def timeless(report: Report) -> dict[str, Any]:
    """The report without times, environment and command."""
    data = copy.deepcopy(report.data)
    for name in ("started", "wall_s", "resumed", "environment", "command_line", "context"):
        data.pop(name)
    for probe in data["probes"].values():
        if isinstance(probe, dict):
            probe.pop("wall_s", None)
    return data


def test_numbers_agree_with_each_other(report: Report) -> None:
    p = report.data["probes"]
    clean, worst = p["clean"]["accuracy"], p["worst_case"]
    assert clean["count"] == ROWS - 1 and clean["n"] == ROWS
    for name in ("attack", "blackbox"):
        assert worst["robust"]["count"] <= p[name]["robust"]["count"] <= clean["count"]
    assert worst["success_rate"]["n"] == clean["count"]
    assert worst["robust"]["count"] == clean["count"] - worst["success_rate"]["count"]
    assert sum(c["robust"]["count"] for c in p["classes"]) == worst["robust"]["count"]
    assert np.trace(p["confusion"]["clean"]) == clean["count"]
    assert np.trace(p["confusion"]["attacked"]) == p["attack"]["robust"]["count"]
    points = [q["robust"]["count"] for q in p["sweep"]["points"]]
    assert points[0] == clean["count"] and points == sorted(points, reverse=True)
    assert report.robust_accuracy == worst["robust"]["value"]
    assert 0 < worst["robust"]["count"] < clean["count"], "the threat is chosen so that some rows fall and some stand"


def test_what_was_not_tested_is_said(report: Report) -> None:
    status = {c["family"]: c["status"] for c in report.data["coverage"]}
    assert [k for k, v in status.items() if v == "TESTED"] == ["evasion-white-box", "evasion-black-box"]
    assert all(c["reason"] for c in report.data["coverage"] if c["status"] == "NOT TESTED")
    for f in report.data["findings"]:
        filed = [bool(f["standards"][key]) for key in ("atlas", "nist", "owasp")]
        assert filed == [f["family"] != "evaluation"] * 3, "ids are for attacks, not for clean accuracy or the noise control"
    assert "JSX-VAL-001" in [f["id"] for f in report.data["findings"]], "a reduced attack must be said"


def test_the_sweep_compiles_once() -> None:
    model, x, y = subject_of()
    plan = tiny_plan(probes=("clean", "sweep"), max_rows=1)  # one row at a time: no smaller batch to move to
    audit(model, (x[:2], y[:2]), threat=THREAT, key=jax.random.key(0), plan=plan)
    TRACES.clear()
    wider = plan.replace(sweep=(0.1, 0.3, 0.7, 1.1, 3.0))
    audit(model, (x[:2], y[:2]), threat=THREAT.replace(eps=0.3), key=jax.random.key(1), plan=wider)
    assert TRACES == [], "another eps, other multiples and another key trace nothing"


def test_a_killed_audit_goes_on_and_ends_with_the_same_report(
    report: Report, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = subject_of()
    call = {"threat": THREAT, "key": jax.random.key(0), "plan": tiny_plan(), "state": tmp_path}

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(PROBE_FUNCTIONS, "attack", killed)
        with pytest.raises(KeyboardInterrupt):
            audit(model, (x, y), **call)
    with monkeypatch.context() as patch:
        for name in ("clean", "noise", "sweep"):
            patch.setitem(PROBE_FUNCTIONS, name, killed)  # they are on disk and must not run again
        again = audit(model, (x, y), **call)
    assert timeless(again) == timeless(report)


def test_another_key_does_not_read_the_former_state(tmp_path: pathlib.Path) -> None:
    model, x, y = subject_of()
    plan = tiny_plan(probes=("clean", "noise"))
    for seed in (0, 1):
        audit(model, (x, y), threat=THREAT, key=jax.random.key(seed), plan=plan, state=tmp_path)
    assert len(list(tmp_path.glob("noise-*.npz"))) == 2


def test_rows_are_drawn_by_the_key() -> None:
    model, x, y = subject_of()
    plan = tiny_plan(probes=("clean",), rows=5)
    hashes = [audit(model, (x, y), threat=THREAT, key=jax.random.key(s), plan=plan).data["data"]["audited_sha256"] for s in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_rows_that_are_no_images_leave_square_out_and_say_so() -> None:
    model, x, y = subject_of()
    flat = audit(model, (x.reshape(ROWS, -1), y), threat=THREAT, key=jax.random.key(0), plan=tiny_plan(probes=("clean", "blackbox")))
    assert "Square needs images" in flat.data["skipped"]["blackbox"]
    assert {c["family"]: c["status"] for c in flat.data["coverage"]}["evasion-black-box"] == "NOT TESTED"
    assert flat.data["verdict"]["measured"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threat": THREAT.replace(eps=np.full(ROWS, 0.1))}, "one finite eps"),
        ({"threat": THREAT.replace(eps=-1.0)}, "radius"),
        ({"threat": jaxsec.Box(lower=np.zeros(1), upper=np.ones(1))}, "needs LInf, L2 or L1"),
        ({"key": 0}, "key is 0"),
        ({"data": (np.full((2, 6, 6, 1), np.nan, np.float32), np.zeros(2, int))}, "NaN"),
        ({"data": (np.zeros((2, 6, 6, 1), np.float32), np.array([0, CLASSES]))}, "labels from 0 to 4"),
        ({"data": (np.zeros((0, 6, 6, 1), np.float32), np.zeros(0, int))}, "no rows"),
        ({"data": (np.full((1, 6, 6, 1), 2.0, np.float32), np.zeros(1, int))}, "clean rows must lie in the box"),
        ({"plan": Plan(rows=-3)}, "rows is -3"),
    ],
)
def test_unusable_arguments_are_refused(change: dict[str, Any], words: str) -> None:
    model, x, y = subject_of()
    call = {"data": (x, y), "threat": THREAT, "key": jax.random.key(0), "plan": tiny_plan(probes=("clean",))} | change
    with pytest.raises((ValueError, TypeError)) as caught:
        audit(model, call.pop("data"), **call)
    assert words in str(caught.value)


def drawing(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1) @ params + jax.random.normal(key, (x.shape[0], CLASSES)) * 0.01


def test_a_randomised_model_is_audited_with_its_own_keys() -> None:
    weights = jax.random.normal(jax.random.key(0), (36, CLASSES))
    model = jaxsec.bind(drawing, weights, stochastic=True)
    x = np.random.default_rng(0).uniform(0.2, 0.8, size=(8, 6, 6, 1)).astype(np.float32)
    y = np.asarray((x.reshape(8, -1) @ weights).argmax(axis=1))
    plan = tiny_plan(probes=("clean", "noise", "sweep"))
    first, second = (audit(model, (x, y), threat=THREAT, key=jax.random.key(0), plan=plan) for _ in range(2))
    assert timeless(first) == timeless(second) and first.data["model"]["stochastic"]
    assert first.data["probes"]["worst_case"]["robust"]["count"] < first.data["probes"]["clean"]["accuracy"]["count"]
