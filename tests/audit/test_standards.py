"""The standards table: complete, well-formed, one name per id."""

import re

import pytest

from jaxsec.audit._finding import Finding, ordered
from jaxsec.audit._standards import FAMILIES, RETIRED, family_of

PATTERNS = {"atlas": r"AML\.T\d{4}(\.\d{3})?", "nist": r"NISTAML\.\d{2,3}", "owasp": r"ML(0[1-9]|10):2023"}


def test_ids_are_well_formed_and_named_once() -> None:
    for key, pattern in PATTERNS.items():
        names: dict[str, str] = {}
        for family in FAMILIES:
            for id, name in getattr(family, key):
                assert re.fullmatch(pattern, id), id
                assert names.setdefault(id, name) == name, f"{id} has two names"
    used = {i["id"]: i.get("replaced_by") for f in FAMILIES for i in f.ids()["atlas"]}
    assert {i: r for i, r in used.items() if r} == RETIRED, "a retired id must say where it went"


def test_every_family_is_there_once() -> None:
    keys = [f.key for f in FAMILIES]
    assert len(keys) == len(set(keys)) == 15
    assert all(f.atlas and f.ai_act for f in FAMILIES)
    with pytest.raises(ValueError, match="allowed: evasion-white-box"):
        family_of("evasion")


def test_findings_are_ordered_worst_first_and_carry_ids() -> None:
    base = {"family": "evaluation", "title": "t", "message": "m"}
    low, high = Finding(id="JSX-A", severity="low", **base), Finding(id="JSX-B", severity="high", **base)
    assert ordered([low, high]) == [high, low]
    assert low.to_json()["standards"]["nist"] == [], "a finding about the evaluation is no attack"
    attack = Finding(id="JSX-D", severity="low", **(base | {"family": "evasion-white-box"}))
    assert attack.to_json()["standards"]["nist"][0]["id"] == "NISTAML.022"
    with pytest.raises(ValueError, match="severity is 'bad'"):
        Finding(id="JSX-C", severity="bad", **base).to_json()
