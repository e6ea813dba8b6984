"""The report as SARIF 2.1.0, for code hosts and security dashboards; a pure view of the report's JSON."""

import hashlib
from typing import Any

from ._sandwich_text import sandwich_shares, skipped_said
from ._standards import ATLAS_VERSION, NIST_EDITION, OWASP_EDITION

_LEVEL = {"high": "error", "medium": "warning", "low": "note", "info": "none"}
# GitHub sorts by this number: above 7.0 is high, 4.0 to 6.9 medium, 0.1 to 3.9 low.
_SCORE = {"high": "7.5", "medium": "5.0", "low": "2.0", "info": "0.0"}
_TAXONOMIES = (
    ("atlas", "MITRE ATLAS", ATLAS_VERSION, "The MITRE Corporation"),
    ("nist", "NIST AI 100-2", NIST_EDITION, "NIST"),
    ("owasp", "OWASP Machine Learning Security Top Ten", OWASP_EDITION, "OWASP"),
)
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif_of(data: dict[str, Any]) -> dict[str, Any]:
    """One run: a rule per finding id, the standards as taxonomies, results that refer to both."""
    findings = data["findings"]
    rules: dict[str, dict[str, Any]] = {f["id"]: _rule(f) for f in findings}
    order = list(rules)
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "jaxsec",
                        "version": data["tool"]["version"],
                        "rules": list(rules.values()),
                        "supportedTaxonomies": [{"name": name, "index": i} for i, (_, name, _, _) in enumerate(_TAXONOMIES)],
                    }
                },
                "taxonomies": [_taxonomy(t, findings) for t in _TAXONOMIES],
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "startTimeUtc": data["started"].replace("+00:00", "Z"),
                        "toolConfigurationNotifications": [
                            {"level": "note", "message": {"text": f"NOT TESTED: {c['title']} ({c['reason']})"}}
                            for c in data["coverage"]
                            if c["status"] == "NOT TESTED"
                        ]
                        + [{"level": "note", "message": {"text": line}} for line in skipped_said(data)],
                    }
                ],
                "properties": {k: data[k] for k in ("context", "key", "threat", "plan", "wall_s")}
                | {name.split()[0].lower(): share for name, share, _ in sandwich_shares(data)}
                | {"modelSha256": data["model"]["sha256"], "dataSha256": data["data"]["audited_sha256"]},
                "results": [_result(f, order.index(f["id"]), data) for f in findings],
                "columnKind": "utf16CodeUnits",
            }
        ],
    }


def _rule(finding: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": finding["id"],
        "name": finding["title"],
        "shortDescription": {"text": finding["title"]},
        "fullDescription": {"text": finding["remedy"] or finding["title"]},
        "help": {"text": finding["remedy"] or "No action is needed."},
        "defaultConfiguration": {"level": _LEVEL[finding["severity"]]},
        "properties": {"security-severity": _SCORE[finding["severity"]], "tags": ["security", "machine-learning", finding["family"]]},
    }


def _taxonomy(taxonomy: tuple[str, str, str, str], findings: list[dict[str, Any]]) -> dict[str, Any]:
    key, name, version, organisation = taxonomy
    taxa = {i["id"]: i["name"] for f in findings for i in f["standards"][key]}
    return {
        "name": name,
        "version": version,
        "organization": organisation,
        "shortDescription": {"text": f"{name}, {version}"},
        "taxa": [{"id": i, "name": n, "shortDescription": {"text": n}} for i, n in sorted(taxa.items())],
    }


def _result(finding: dict[str, Any], rule: int, data: dict[str, Any]) -> dict[str, Any]:
    threat = data["threat"]
    print_of = hashlib.sha256(f"{finding['id']}|{threat['norm']}|{threat['eps']!r}|{data['model']['name']}".encode()).hexdigest()
    level = _LEVEL[finding["severity"]]
    return {
        "ruleId": finding["id"],
        "ruleIndex": rule,
        "level": level,
        "kind": "informational" if level == "none" else "fail",
        "message": {"text": f"{finding['title']}: {finding['message']}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": "report.json"}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"jaxsecFinding/v1": print_of},
        "taxa": [
            {"id": i["id"], "toolComponent": {"name": name, "index": n}}
            for n, (key, name, _, _) in enumerate(_TAXONOMIES)
            for i in finding["standards"][key]
        ],
        "properties": {k: finding[k] for k in ("family", "severity", "value", "unit", "n", "interval")},
    }
