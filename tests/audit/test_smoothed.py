"""The smoothed classifier in the audit: its two curves, what every view says of them, and what happens where they disagree."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.audit import Plan, Report, audit
from jaxsec.audit import _smoothed as probe
from jaxsec.audit._charts import charts_of
from jaxsec.audit._html import html_of
from jaxsec.audit._judge_smoothed import smoothed_findings
from jaxsec.audit._markdown import markdown_of
from jaxsec.audit._sarif import sarif_of

from .conftest import CLASSES, ROWS, subject_of, tiny_plan

THREAT = jaxsec.L2(eps=0.2, lo=0.0, hi=1.0)
PLAN = tiny_plan(
    probes=("clean", "smooth"), sweep=(0.0, 1.0, 4.0), smooth_sigma=0.15, smooth_samples=400, smooth_steps=6, smooth_noises=8
)  # fmt: skip


def audited(plan: Plan = PLAN, model: Any = None, **more: Any) -> Report:
    own, x, y = subject_of()
    return audit(model or own, (x, y), **{"threat": THREAT, "key": jax.random.key(0), "plan": plan} | more)


@pytest.fixture(scope="module")
def smoothed() -> Report:
    return audited()


def test_certified_lies_under_attacked_at_every_budget(smoothed: Report) -> None:
    found = smoothed.data["probes"]["smooth"]
    points = found["points"]
    assert [p["eps"] for p in points] == pytest.approx([0.0, 0.2, 0.8])
    for side in ("certified", "attacked"):
        counts = [p[side]["count"] for p in points]
        assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1] and points[0][side]["n"] == ROWS
    assert all(p["certified"]["count"] <= p["attacked"]["count"] for p in points)
    assert found["contradictions"] == {"count": 0, "rows": []} and found["samples_per_row"] == 500


def test_it_says_what_the_library_certifies(smoothed: Report) -> None:
    model, x, y = subject_of()
    found = smoothed.data["probes"]["smooth"]
    method = jaxsec.Smoothing(sigma=0.15, n=400)
    for p in found["points"]:
        c = jaxsec.certify(model, x, y, threat=THREAT.replace(eps=p["eps"]), method=method, key=_key(model, x, y))
        assert int(c.robust.sum()) == p["certified"]["count"]
    radii = np.where(np.asarray(c.predict) == y, c.radius, -1.0)
    assert found["average_certified_radius"] == pytest.approx(np.maximum(radii, 0).mean())
    for radius, share in found["curve"]:
        assert share == np.mean(radii >= radius)
    assert [c[0] for c in found["curve"]] == sorted(c[0] for c in found["curve"])


def _key(model: Any, x: Any, y: Any) -> jax.Array:
    from jaxsec.audit._run import _subject

    return _subject(model, (x, y), THREAT, jax.random.key(0), PLAN)[0].key_for("smooth")


def test_every_view_shows_it(smoothed: Report, tmp_path: pathlib.Path) -> None:
    data = smoothed.data
    (finding,) = [f for f in data["findings"] if f["id"] == "JSX-CER-002"]
    assert finding["severity"] == "info" and "sigma 0.15" in finding["message"]
    text, page, log = markdown_of(data), html_of(data), sarif_of(data)
    assert "## Smoothed classifier" in text and "SmoothAdv (6 steps, 8 noised copies each)" in text and "| 0.2 (audited) |" in text
    assert "Smoothed classifier, sigma 0.15" in page and "another classifier than the model" in page
    assert any(result["ruleId"] == "JSX-CER-002" for result in log["runs"][0]["results"])
    (chart,) = [c for c in charts_of(data) if c.key == "smoothed"]
    assert chart.rows[1][0] == "0.2 (audited)" and "falls from" in chart.alt and chart.narrow
    assert any("smoothed classifier" in limit for limit in data["limits"])
    smoothed.save(tmp_path)  # checks report.json against its schema
    assert (tmp_path / "report.json").is_file()


def test_nothing_is_smoothed_unless_asked() -> None:
    data = audited(PLAN.replace(smooth_sigma=0.0)).data
    assert "smooth" not in data["probes"] and "smooth" not in data["skipped"]
    assert not any(c.key == "smoothed" for c in charts_of(data))


def test_a_model_that_draws_cannot_be_smoothed() -> None:
    def noisy(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        return x.reshape(len(x), -1)[:, :CLASSES] + 0.1 * jax.random.normal(key, (1, CLASSES)) + params[None]

    data = audited(model=jaxsec.bind(noisy, jnp.zeros(CLASSES), stochastic=True)).data
    assert "draws random numbers" in data["skipped"]["smooth"]


def test_other_settings_of_smoothing_leave_the_attacks_alone(tmp_path: pathlib.Path) -> None:
    done: list[str] = []
    plan = PLAN.replace(probes=("clean", "sweep", "smooth"))
    first = audited(plan, state=tmp_path)
    again = audited(plan.replace(smooth_samples=200), state=tmp_path, resumed=done.extend)
    assert done == ["clean", "sweep"] and again.data["probes"]["sweep"]["points"] == first.data["probes"]["sweep"]["points"]
    done.clear()
    same = audited(plan, state=tmp_path, resumed=done.extend)
    assert "smooth" in done and same.data["probes"]["smooth"]["points"] == first.data["probes"]["smooth"]["points"]


def test_a_defect_shows_and_chance_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Radii that are too large meet the attack; a count that the stated errors explain is no finding."""
    real = probe.certify_smoothed
    monkeypatch.setattr(probe, "certify_smoothed", lambda *args, **more: (c := real(*args, **more)).replace(radius=c.radius + 5))
    data = audited().data
    (finding,) = [f for f in data["findings"] if f["id"] == "JSX-VAL-010"]
    against = data["probes"]["smooth"]["contradictions"]
    assert finding["severity"] == "high" and finding["value"] == against["count"] > 2 and len(against["rows"]) == against["count"]
    assert data["verdict"]["state"] == "none" and f"{against['count']} rows were both certified and broken" in markdown_of(data)
    share = {"value": 0.5, "count": 500, "n": 1000, "interval": [0.4, 0.6], "confidence": 0.95}
    numbers: dict[str, Any] = {
        "settings": {"alpha": 1e-3, "sigma": 0.25, "n": 1000}, 
        "points": [{"eps": e, "certified": share, "attacked": share} for e in (0, 1)],
        "average_certified_radius": 0.3, "abstained": share, "contradictions": {"count": 2, "rows": [1, 2]},
    }  # fmt: skip
    assert [f.id for f in smoothed_findings({"smooth": numbers}, 1.0, "l2")] == ["JSX-CER-002"], "2 of 1000 rows at 2 looks of 1e-3"
    numbers["contradictions"]["count"] = 12
    assert [f.id for f in smoothed_findings({"smooth": numbers}, 1.0, "l2")] == ["JSX-VAL-010", "JSX-CER-002"]


@pytest.mark.parametrize(("name", "value"), [("smooth_sigma", -1.0), ("smooth_samples", 0), ("smooth_alpha", 0.9)])
def test_settings_that_make_no_sense(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        PLAN.replace(**{name: value})
