"""The certified curve under the attacked one: what it says, that it goes on after a kill, and what it does where it cannot be."""

import itertools
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxsec
from jaxsec.audit import Plan, Report, _chart_curve, audit
from jaxsec.audit import _certified as probe
from jaxsec.audit._chart import Chart
from jaxsec.audit._html import html_of
from jaxsec.audit._markdown import markdown_of
from jaxsec.audit._probes import PROBE_FUNCTIONS
from jaxsec.audit._sandwich import sandwich_of
from jaxsec.audit._sarif import sarif_of
from jaxsec.audit._subject import Outcome
from jaxsec.certify._ladder import Ladder

from .conftest import CLASSES, ROWS, THREAT, subject_of, tiny_plan
from .test_audit import drawing, timeless

FEW = tiny_plan(probes=("clean", "noise", "sweep", "certify"))


def audited(plan: Plan = FEW, model: Any = None, **more: Any) -> Report:
    own, x, y = subject_of()
    return audit(model or own, (x, y), **{"threat": THREAT, "key": jax.random.key(0), "plan": plan} | more)


def turning(params: Any, x: jax.Array) -> jax.Array:
    return jnp.abs(jnp.fft.fft(x.reshape(x.shape[0], -1) @ params))


def test_certified_is_below_attacked_and_the_rest_is_undecided(report: Report) -> None:
    probes = report.data["probes"]
    points = probes["certify"]["points"]
    assert [p["multiple"] for p in points] == [0.0, 0.5, 1.0, 2.0]
    for p in points:
        assert p["certified"]["count"] + p["undecided"]["count"] == p["attacked"]["count"]
        assert sum(p["by"].values()) == p["certified"]["count"] and p["undecided"]["n"] == ROWS
    for side in ("certified", "attacked"):
        counts = [p[side]["count"] for p in points]
        assert counts == sorted(counts, reverse=True) and len(set(counts)) == 4
        assert counts[0] == probes["clean"]["accuracy"]["count"], "at eps 0 both sides are the accuracy without attack"
    at = next(p for p in points if p["eps"] == report.data["threat"]["eps"])
    assert at["attacked"] == probes["worst_case"]["robust"] and at["undecided"]["count"] > 0
    assert probes["certify"]["contradictions"] == {"count": 0, "rows": [], "by_probe": {}}


def test_it_says_what_the_library_proves(report: Report) -> None:
    model, x, y = subject_of()
    for p in report.data["probes"]["certify"]["points"]:
        found = jaxsec.certify(model, x, y, threat=THREAT.replace(eps=p["eps"]), method=[jaxsec.IBP(), jaxsec.CROWN()])
        assert int(found.robust.sum()) == p["certified"]["count"]
        assert [int(np.sum(found.method == i)) for i in (0, 1)] == [p["by"]["ibp"], p["by"]["crown"]]


def test_every_view_shows_it(report: Report) -> None:
    data = report.data
    (finding,) = [f for f in data["findings"] if f["id"] == "JSX-CER-001"]
    assert finding["severity"] == "info" and "1 rows (6.2%) are undecided" in finding["message"]
    text, page, log = markdown_of(data), html_of(data), sarif_of(data)
    assert "## Certified and attacked accuracy" in text and "| 0.1 (audited) | 12.5 % " in text
    for name in ("Certified accuracy", "Undecided"):
        assert f"<dt>{name}</dt>" in page and f"\n| {name}, " in text
    assert "rows that IBP, then CROWN proved" in text and "rows that IBP, then CROWN proved" in page
    assert log["runs"][0]["properties"]["certified"]["count"] == 2 and log["runs"][0]["properties"]["undecided"]["count"] == 1


def fake(robust: Any) -> Any:
    """A `certify` that certifies whatever `robust` says of the rows."""

    def certify(model: Any, x: Any, y: Any, **more: Any) -> Any:
        said = np.broadcast_to(robust, len(y))
        return types.SimpleNamespace(
            robust=said, method=np.where(said, 0, -1), margin=np.where(said, 1.0, -1.0), status=np.where(said, 0, 1)
        )

    return certify


def test_a_row_that_is_certified_and_broken_spoils_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "certify", fake(True))
    data = audited(FEW.replace(fail_under=0.01)).data
    found = data["probes"]["certify"]
    broken = ROWS - found["points"][-1]["attacked"]["count"]
    against = found["contradictions"]
    assert against["count"] == broken > 3 and 2 in against["rows"], "row 2 is wrong before any attack"
    assert against["by_probe"]["sweep"] == broken and against["by_probe"]["clean"] == 1
    for p in found["points"]:
        assert p["certified"]["count"] <= p["attacked"]["count"], "what was broken is not called certified"
    (finding,) = [f for f in data["findings"] if f["id"] == "JSX-VAL-009"]
    assert finding["severity"] == "high" and finding["value"] == broken and "(by probe: " in finding["message"]
    assert data["verdict"]["state"] == "fail" and "JSX-VAL-009" in data["verdict"]["unreliable"]
    assert "neither curve must be quoted" in markdown_of(data) and "Certified rows were broken" in html_of(data)


def subject_and_outcomes(noise: list[bool]) -> tuple[Any, dict[str, Outcome]]:
    """Four rows at eps 0.1: the last is wrong; the sweep breaks row 1 at 0.2, and all are certified at 0.1."""
    subject: Any = types.SimpleNamespace(y=np.zeros(4, int), ids=np.array([5, 6, 7, 8]), eps=0.1, plan=Plan())
    eps = np.array([0.0, 0.1, 0.2])
    robust = np.array([[True] * 3 + [False], [True] * 3 + [False], [True, False, False, False]])
    arrays = {"eps": eps, "multiple": eps * 10, "robust": robust, "method": np.where(robust, 0, -1)}
    settings = {"methods": ["ibp"], "precision": "highest", "note": ""}
    broken = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1]], bool)
    return subject, {
        "clean": Outcome({"predicted": np.array([0, 0, 0, 1]), "finite": np.ones(4, bool)}, {}),
        "noise": Outcome({"wrong": np.array([noise])}, {}),
        "sweep": Outcome({"eps": eps, "broken": broken}, {}),
        "certify": Outcome(arrays, settings),
    }


def test_the_sides_are_compared_at_each_budget() -> None:
    found = sandwich_of(*subject_and_outcomes([False] * 4))
    counts = [[p[side]["count"] for side in ("certified", "undecided", "attacked")] for p in found["points"]]
    assert counts == [[3, 0, 3], [3, 0, 3], [1, 1, 2]] and found["contradictions"]["count"] == 0


def test_noise_in_the_set_refutes_a_certificate_from_its_eps_on() -> None:
    found = sandwich_of(*subject_and_outcomes([False, True, False, False]))
    assert found["contradictions"] == {"count": 1, "rows": [6], "by_probe": {"noise": 1}}
    assert [p["certified"]["count"] for p in found["points"]] == [3, 2, 1], "at eps 0 the noise was outside"


def test_fab_and_the_attacks_count_from_where_they_reach() -> None:
    subject, outcomes = subject_and_outcomes([False] * 4)
    outcomes["distance"] = Outcome({"distance": np.array([0.15, np.inf, 0.05, 0.0])}, {})
    outcomes["attack"] = Outcome({"success": np.array([True, False, False, True])}, {})
    found = sandwich_of(subject, outcomes)
    assert [p["attacked"]["count"] for p in found["points"]] == [3, 1, 0]
    assert found["contradictions"] == {"count": 2, "rows": [5, 7], "by_probe": {"attack": 1, "distance": 2}}


@pytest.mark.parametrize("sick", ["unsupported", "stochastic", "memory", "defect"])
def test_what_cannot_be_certified_is_said_and_attacked_all_the_same(sick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: Exception) -> Any:
        def certify(*args: Any, **more: Any) -> Any:
            raise error

        return certify

    model, weights = None, jax.random.normal(jax.random.key(0), (36, CLASSES))
    if sick == "unsupported":
        model, words = jaxsec.bind(turning, weights), "complex numbers"
    elif sick == "stochastic":
        model, words = jaxsec.bind(drawing, weights, stochastic=True), "the model draws random numbers"
    elif sick == "memory":
        words = "more memory than there is; name cheaper methods"
        monkeypatch.setattr(probe, "certify", raises(RuntimeError("RESOURCE_EXHAUSTED: out of memory")))
    else:
        words = "certification failed (TypeError: what is this)"
        monkeypatch.setattr(probe, "certify", raises(TypeError("what is this")))
    other = "noise" if sick == "stochastic" else "sweep"  # an attack on a model that draws takes long to compile
    data = audited(tiny_plan(probes=("clean", other, "certify")), model).data
    assert words in data["skipped"]["certify"] and "certify" not in data["probes"] and other in data["probes"]
    assert "JSX-CER-001" not in [f["id"] for f in data["findings"]] and not any("undecided row" in limit for limit in data["limits"])
    line = f"The probe “certify” did not run: {data['skipped']['certify']}."
    assert words in markdown_of(data).replace("\\", "") and words in html_of(data)
    notes = sarif_of(data)["runs"][0]["invocations"][0]["toolConfigurationNotifications"]
    assert line in [n["message"]["text"] for n in notes]


def test_half_precision_is_not_certified() -> None:
    model, x, y = subject_of()
    plan = tiny_plan(probes=("clean", "certify"))
    data = audit(model, (x.astype(np.float16), y), threat=THREAT, key=jax.random.key(0), plan=plan).data
    assert data["skipped"]["certify"] == "the rows are float16, and only float32 and float64 can be bounded"


def test_a_full_disk_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **more: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(probe, "certify", full)
    with pytest.raises(OSError, match="No space"):
        audited(tiny_plan(probes=("clean", "certify")))


@pytest.mark.parametrize(("severity", "told"), [("warning", True), ("info", False)])
def test_nothing_is_certified_where_the_attack_saw_several_functions(severity: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PROBE_FUNCTIONS["sweep"]
    flag = {"name": "randomised", "severity": severity, "message": "five evaluations differ", "value": 0.1, "n": 4}

    def flagged(*args: Any) -> Outcome:
        found = real(*args)
        return Outcome(found.arrays, found.settings, (flag,))

    monkeypatch.setitem(PROBE_FUNCTIONS, "sweep", flagged)
    data = audited(tiny_plan(probes=("clean", "sweep", "certify"))).data
    assert ("certify" in data["skipped"]) == told == ("certify" not in data["probes"])
    assert not told or "one function, and five evaluations differ" in data["skipped"]["certify"]


def test_crown_is_left_out_where_it_is_dearer_than_the_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(probes=("clean", "certify"))
    monkeypatch.setattr(probe, "MOST_WALKS", 7)
    found = audited(plan).data["probes"]["certify"]
    assert found["methods"] == ["ibp", "crown-ibp"] and "from 8 elements of each row, more than 7" in found["note"]
    named = audited(plan.replace(certify=("ibp", "crown"))).data["probes"]["certify"]
    assert named["methods"] == ["ibp", "crown"] and named["note"] == ""
    sound = audited(plan.replace(certify=("crown-ibp",), certify_sound=True)).data
    assert sound["probes"]["certify"]["precision"] == "sound"
    assert "CROWN-IBP with all rounding counted" in markdown_of(sound)


def test_without_methods_there_is_no_curve() -> None:
    data = audited(FEW.replace(certify=())).data
    assert "certify" not in data["probes"] and data["skipped"] == {}
    assert "Certified" not in markdown_of(data) and "PGD, at this or a smaller budget" in html_of(data)


def test_a_kill_within_the_curve_goes_on_and_other_methods_keep_the_attacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    whole, batches = audited(), [0]
    real = Ladder._bounded

    def bounded(*args: Any) -> None:
        if batches[0] == 2:
            raise KeyboardInterrupt
        batches[0] += 1
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Ladder, "_bounded", bounded)
        with pytest.raises(KeyboardInterrupt):
            audited(state=tmp_path)
        assert batches[0] == 2
        batches[0] = -100  # the rest of this life is counted from here
        said: list[str] = []
        assert timeless(audited(state=tmp_path, resumed=said.extend)) == timeless(whole)
        rest = batches[0] + 100
    with monkeypatch.context() as patch:
        batches[0] = -100
        patch.setattr(Ladder, "_bounded", bounded)
        audited()
        assert rest == batches[0] + 100 - 2, "what the killed run had bounded was not bounded again"
    assert said == ["clean", "noise", "sweep"]
    for name in ("noise", "sweep"):
        monkeypatch.setitem(PROBE_FUNCTIONS, name, None)  # on disk: must not run again
    other = audited(FEW.replace(certify=("ibp",)), state=tmp_path).data["probes"]["certify"]
    assert other["methods"] == ["ibp"] and other["points"][1]["by"] == {"ibp": 4}


def test_an_eps_of_zero_has_one_point() -> None:
    (point,) = audited(tiny_plan(probes=("clean", "certify")), threat=THREAT.replace(eps=0.0)).data["probes"]["certify"]["points"]
    assert point["certified"]["count"] == point["attacked"]["count"] == ROWS - 1


def test_both_curves_are_bounds_between_the_measured_budgets(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight line from one budget to the next would leave the truth on its wrong side: both curves are steps."""
    drawing: list[Any] = []
    monkeypatch.setattr(_chart_curve, "chart_of", lambda *a, **k: drawing.append(a[3]) or Chart("curve", "", "", "", (), ()))
    _chart_curve.accuracy_curve(report.data)
    ax = Figure().add_subplot()
    drawing[0](ax)
    points = report.data["probes"]["certify"]["points"]
    middles = [0.5 * (a["eps"] + b["eps"]) for a, b in itertools.pairwise(points)]

    def drawn(word: str) -> list[float]:
        (line,) = [v for v in ax.get_lines() if v.get_label() == word]
        x, y = line.get_path().transformed(line.get_transform() - ax.transData).vertices.T
        return [float(np.interp(m, x, y)) for m in middles]

    attacked, certified = drawn("attacked, at most"), drawn("certified, at least")
    assert attacked == pytest.approx([100 * p["attacked"]["value"] for p in points[:-1]])
    assert certified == pytest.approx([100 * p["certified"]["value"] for p in points[1:]])
    (undecided,) = [c for c in ax.collections if c.get_label() == "undecided"]
    corners = {(round(float(a), 9), round(float(b), 6)) for a, b in undecided.get_paths()[0].vertices}
    for a, b in itertools.pairwise(points):
        for p in (a, b):
            assert (round(p["eps"], 9), round(100 * a["attacked"]["value"], 6)) in corners
            assert (round(p["eps"], 9), round(100 * b["certified"]["value"], 6)) in corners


def test_beta_crown_proves_and_breaks_rows_and_counts_on_both_sides() -> None:
    """What it breaks is broken, as by any attack, and its seconds are the plan's."""
    plan = tiny_plan(probes=("clean", "certify"), rows=4, sweep=(1.0,), certify=("beta-crown",), certify_timeout=2.0)
    data = audited(plan, threat=THREAT.replace(eps=0.3)).data
    at = data["probes"]["certify"]["points"][-1]
    broken = data["probes"]["worst_case"]["by_probe"]["certify"]
    right = data["probes"]["clean"]["accuracy"]["count"]
    assert broken > 0 and at["attacked"]["count"] == right - broken and at["attacked"] == data["probes"]["worst_case"]["robust"]
    assert data["probes"]["certify"]["points"][0]["by"]["beta-crown"] == right  # at eps 0
    assert "counterexamples of beta-CROWN" in markdown_of(data) and "at most 2 s for each row and budget" in html_of(data)
    with pytest.raises(ValueError, match="beta-crown, which branches on boxes only, and the threat is l2; allowed: ibp,crown"):
        audited(plan, threat=jaxsec.L2(eps=0.1, lo=0.0, hi=1.0))
