"""The report's JSON follows its schema, and every view is a function of that JSON."""

import importlib.resources
import json
import pathlib
import re
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest

from jaxsec.audit import Report
from jaxsec.audit._charts import charts_of
from jaxsec.audit._html import LIMIT, html_of
from jaxsec.audit._markdown import markdown_of
from jaxsec.audit._sarif import sarif_of
from jaxsec.audit._text import CLASSES_SAID, answers_said, examples_said, valued


@pytest.fixture(scope="module")
def page(saved: pathlib.Path) -> str:
    return (saved / "report.html").read_text()


def test_json_follows_the_shipped_schema(saved: pathlib.Path) -> None:
    schema = json.loads((importlib.resources.files("jaxsec.audit") / "schema" / "report-1.0.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    data = json.loads((saved / "report.json").read_text())
    assert list(validator.iter_errors(data)) == []
    del data["threat"]["eps"]
    assert len(list(validator.iter_errors(data))) == 1


def test_views_come_from_the_json_alone(saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    names = ("report.html", "report.md", "report.sarif")
    before = {name: (saved / name).read_bytes() for name in names}
    Report.load(saved).render(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_loading_refuses_what_is_no_report(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        Report.load(tmp_path)
    file = tmp_path / "report.json"
    for text, words in (
        ("{", "no JSON"),
        ("[]", "list"),
        ('{"schema": "x"}', "schema 'x'"),
        ('{"schema": "jaxsec-report", "schema_version": "2.0"}', "2.0"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            Report.load(tmp_path)


class Page(HTMLParser):
    """Collects what must not be there, and what must."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if values.get("id") else []
        self.links += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href", "action", "srcset")]
        if tag == "img":
            self.alts.append(values.get("alt"))


def test_html_is_one_safe_file(page: str) -> None:
    assert len(page.encode()) < LIMIT
    parsed = Page()
    parsed.feed(page)
    assert "script" not in parsed.tags and "iframe" not in parsed.tags and "object" not in parsed.tags
    assert all(link.startswith(("#", "data:")) for link in parsed.links), parsed.links
    assert len(parsed.ids) == len(set(parsed.ids)), "ids must be unique on the page, those inside the charts too"
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert all(parsed.alts) and len(parsed.alts) >= 3
    assert "default-src 'none'" in page and "url(http" not in page


def test_foreign_words_are_escaped(page: str) -> None:
    assert "&lt;b&gt;tiny &amp; co&lt;/b&gt;" in page and "<b>tiny" not in page
    assert "alert(1)" in page and "<script>" not in page


def test_charts_repeat_bit_for_bit_and_can_be_heard(report: Report) -> None:
    first, second = charts_of(report.data), charts_of(report.data)
    assert [c.key for c in first] == ["curve", "classes", "confusion", "distance", "queries"]
    for a, b in zip(first, second, strict=True):
        assert a.svg == b.svg
        assert f'<desc id="{a.key}-desc">' in a.svg and len(a.alt) > 40 and a.rows
        assert "var(--" in a.svg and not re.search(r"#0[1-6]0[1-6]0[1-6]", a.svg), "every stand-in colour must be themed"
        assert "<dc:date" not in a.svg


def test_a_report_without_optional_probes_still_renders(report: Report) -> None:
    data: dict[str, Any] = json.loads(json.dumps(report.data))
    data["probes"] = {"clean": data["probes"]["clean"]}
    data["examples"], data["skipped"] = [], {"blackbox": "no <images>"}
    assert "no &lt;images&gt;" in html_of(data)
    assert "Clean accuracy" in markdown_of(data)


def test_rows_that_are_no_images_show_their_largest_changes(report: Report) -> None:
    data: dict[str, Any] = json.loads(json.dumps(report.data))
    for example in data["examples"]:
        for part in ("clean", "change"):
            example[part]["kind"], example[part]["shape"] = "vector", [36]
    assert '<th scope="col">feature</th>' in html_of(data)


def test_big_pictures_stay_below_the_limit(report: Report) -> None:
    import numpy as np

    from jaxsec.audit._examples import encode

    data: dict[str, Any] = json.loads(json.dumps(report.data))
    noise = np.random.default_rng(0).uniform(size=(3, 224, 224)).astype(np.float32)
    picture = encode(noise, "chw")
    data["examples"] = [data["examples"][0] | {"clean": picture, "change": picture}] * 12
    assert len(html_of(data).encode()) < LIMIT
    data["examples"] *= 20
    with pytest.raises(ValueError, match="lower the plan's examples"):
        html_of(data)


def test_markdown_has_every_finding_and_family(report: Report) -> None:
    text = markdown_of(report.data)
    assert all(f["id"] in text for f in report.data["findings"])
    assert text.count("NOT TESTED") >= 13 and "\\<b\\>tiny" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| ") and "JSX-" in line}
    assert widths == {5}


def test_the_sweep_is_labelled_alike_in_every_view(report: Report) -> None:
    """Without certificates the curve is that of the attack; with them it is in Markdown besides."""
    data: dict[str, Any] = json.loads(json.dumps(report.data))
    del data["probes"]["certify"]
    text, page = markdown_of(data), html_of(data)
    assert "| eps (linf, input units) | robust accuracy [95 % interval] | by PGD at this eps only | rows |" in text
    assert '<th scope="col">eps (linf, input units)</th>' in page
    assert "\n| 0.1 (audited) | " in text and text.count("(audited)") == 1 and markdown_of(report.data).count("(audited)") == 2
    (curve,) = [c for c in charts_of(data) if c.key == "curve"]
    for drawing in (curve.svg, curve.narrow):
        assert "eps (linf, input units)" in drawing and "PGD, at this or a smaller budget" in drawing and "worst" not in drawing
    assert "1 run of 5 steps, at each budget of the curve up to eps" in page
    for view in (text, page):
        assert "PGD (1 run of 5 steps per row) at each budget; a row that fell to a smaller budget counts" in view
        assert "All attacks together, at the audited eps 0.1: " in view


def test_both_curves_are_in_the_chart_and_its_table(report: Report, page: str) -> None:
    (curve,) = [c for c in charts_of(report.data) if c.key == "curve"]
    for drawing in (curve.svg, curve.narrow):
        for words in ("attacked, at most", "undecided", "certified, at least", "eps (linf, input units)"):
            assert words in drawing
        assert "var(--series-2)" in drawing and "var(--series-3)" in drawing
    assert curve.alt.endswith("At the audited eps 0.1 6.2 % of rows are undecided.")
    assert curve.columns == ("eps (linf, input units)", "certified, at least [95 % interval]", "undecided", "attacked, at most")
    assert [row[0] for row in curve.rows] == ["0", "0.05", "0.1 (audited)", "0.2"]
    assert curve.rows[0][1] == curve.rows[0][3] and f"<figcaption>{curve.title}</figcaption>" in page
    for cell in curve.rows[2]:
        assert cell in markdown_of(report.data).replace("\\", "") and cell.replace(", ", ",\u00a0").replace(" %", "\u00a0%") in page


def test_the_noise_control_says_what_was_measured(report: Report, page: str) -> None:
    noise = report.data["probes"]["noise"]
    (finding,) = [f for f in report.data["findings"] if f["id"] == "JSX-EVA-003"]
    assert f"{noise['one_draw']['count']} also at one point drawn uniformly" in finding["message"]
    assert f"{noise['all_draws']['count']} at all of 3 such points" in finding["message"]
    for view in (markdown_of(report.data), page):
        assert "it is right as it is and at one point drawn uniformly from the ball of eps around it" in view
        assert f"Right at all of 3 such points: {100 * noise['all_draws']['value']:.1f} %" in view
        assert "one draw" not in view.lower()


def test_worst_inputs_say_how_they_were_chosen(report: Report, page: str) -> None:
    data: dict[str, Any] = json.loads(json.dumps(report.data))
    n = len(data["examples"])
    assert f"The first {n} of the rows that were right as they are and fell to AutoAttack at eps, in order of the distance" in page
    del data["probes"]["distance"]
    assert examples_said(data).endswith("in order of the model's confidence in the wrong answer, highest first.")


@pytest.mark.parametrize(
    ("value", "unit", "interval", "shown"),
    [
        (0.25, "share", [0.1, 0.4], ("25.0 %", "[10.0, 40.0]")),
        (0.25, "share", None, ("25.0 %", "")),
        (0.25, "", None, ("0.25", "")),
        (3.0, "rows", None, ("3 rows", "")),
        (None, "share", None, ("–", "")),
    ],
)
def test_a_rate_is_a_percentage_and_a_number_a_number(value: Any, unit: str, interval: Any, shown: tuple[str, str]) -> None:
    assert valued({"value": value, "unit": unit, "interval": interval}) == shown


def test_sarif_is_what_consumers_read(report: Report) -> None:
    log = sarif_of(report.data)
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    run = log["runs"][0]
    rules, taxonomies = run["tool"]["driver"]["rules"], run["taxonomies"]
    assert len({r["id"] for r in rules}) == len(rules)
    assert len(run["results"]) == len(report.data["findings"])
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert (result["kind"] == "fail") == (result["level"] != "none"), "SARIF 3.27.9: another kind than fail has level none"
        assert result["message"]["text"] and result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert len(result["partialFingerprints"]["jaxsecFinding/v1"]) == 64
        assert bool(result["taxa"]) == (result["properties"]["family"] != "evaluation")
        for taxon in result["taxa"]:
            taxonomy = taxonomies[taxon["toolComponent"]["index"]]
            assert taxonomy["name"] == taxon["toolComponent"]["name"]
            assert taxon["id"] in [t["id"] for t in taxonomy["taxa"]]
    notes = run["invocations"][0]["toolConfigurationNotifications"]
    assert len(notes) == 13 and all(n["message"]["text"].startswith("NOT TESTED") for n in notes)


def test_charts_say_which_attacks_they_count(report: Report, page: str) -> None:
    data: dict[str, Any] = json.loads(json.dumps(report.data))
    assert CLASSES_SAID in page and "Answers to AutoAttack&#39;s inputs alone; those of the other attacks are not kept." in page
    robust, counts = data["probes"]["worst_case"]["robust"], data["probes"]["confusion"]["attacked"]
    right = sum(row[k] for k, row in enumerate(counts))
    robust["count"] = right
    assert "fell to another attack" not in answers_said(data)
    robust["count"] -= 2
    assert answers_said(data).endswith(f"2 of the {right} rows that it left right fell to another attack.")
