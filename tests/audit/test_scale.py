"""An eps that does not fit the data, and a range that nobody stated, are findings."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec.audit import audit
from jaxsec.audit._scale import odd_noise, scale_findings, too_large, too_small
from jaxsec.audit._text import rows_said
from jaxsec.io import load_data
from jaxsec.threat import Ball

from .conftest import subject_of, tiny_plan


@pytest.mark.parametrize(
    ("threat", "row", "small"),
    [
        (jaxsec.LInf(eps=8 / 255, lo=0.0, hi=255.0), (28, 28), True),
        (jaxsec.LInf(eps=0.5 / 255, lo=0.0, hi=1.0), (28, 28), False),
        (jaxsec.LInf(eps=0.0, lo=0.0, hi=255.0), (28, 28), False),
        (jaxsec.LInf(eps=0.1, lo=0.0, hi=np.inf), (28, 28), False),
        (jaxsec.L2(eps=0.5, lo=0.0, hi=255.0), (28, 28, 1), True),
        (jaxsec.L2(eps=0.1, lo=0.0, hi=1.0), (3, 224, 224), False),
        (jaxsec.L1(eps=12.0, lo=0.0, hi=1.0), (3, 224, 224), False),
    ],
)
def test_eps_beside_the_scale(threat: Ball, row: tuple[int, ...], small: bool) -> None:
    assert bool(too_small(threat, row)) == small
    assert [(f.id, f.severity) for f in scale_findings(threat, row, None)] == ([("JSX-VAL-004", "medium")] if small else [])


@pytest.mark.parametrize(
    ("threat", "said"),
    [
        (jaxsec.LInf(eps=8.0, lo=0.0, hi=1.0), "was 8/255 meant?"),
        (jaxsec.LInf(eps=0.5, lo=0.0, hi=1.0), "(from 0.5 on), so no model can be robust"),
        (jaxsec.LInf(eps=0.49, lo=0.0, hi=1.0), ""),
        (jaxsec.LInf(eps=8.0, lo=0.0, hi=255.0), ""),
        (jaxsec.L2(eps=14.0, lo=0.0, hi=1.0), "from 14 on"),
        (jaxsec.L2(eps=13.9, lo=0.0, hi=1.0), ""),
        (jaxsec.L1(eps=392.0, lo=0.0, hi=1.0), "from 392 on"),
        (jaxsec.L1(eps=391.0, lo=0.0, hi=1.0), ""),
        (jaxsec.LInf(eps=8.0), ""),
    ],
)
def test_eps_beyond_any_robustness(threat: Ball, said: str) -> None:
    """From half the range on every input of 28 x 28 can become the grey one in the middle."""
    found = too_large(threat, (28, 28))
    assert said in found and bool(said) == bool(found) and ("meant" in said) == ("meant" in found)
    assert [(f.id, f.severity) for f in scale_findings(threat, (28, 28), None)] == ([("JSX-VAL-006", "medium")] if said else [])


@pytest.mark.parametrize(
    ("sigma", "hi", "said"),
    [
        (0.25, 255.0, "so none will be of use"),
        (0.12, 1.0, ""),
        (0.005, 1.0, ""),
        (4.0, 1.0, ""),
        (64.0, 1.0, "was 64/255 meant?"),
        (1e6, 1.0, "in such noise; sigma is in the units"),
        (2000.0, 255.0, "in such noise; sigma is in the units"),
        (64.0, 255.0, ""),
        (64.0, np.inf, ""),
        (0.0, 1.0, ""),
    ],
)
def test_noise_beside_the_scale(sigma: float, hi: float, said: str) -> None:
    threat = jaxsec.L2(eps=0.5 * min(hi, 255), lo=0.0, hi=hi)
    found = scale_findings(threat, (28, 28), None, sigma)
    assert [f.id for f in found] == (["JSX-VAL-011"] if said else []) and all(said in f.message for f in found)


def test_noise_beside_data_of_one_value() -> None:
    assert odd_noise(1.0, jaxsec.L2(eps=0.1, lo=-3.0, hi=-3.0)) == ""


def test_which_rows_were_audited_is_said() -> None:
    facts = {"audited": 150, "rows": 150, "available": 10_000}
    assert rows_said({"data": facts}) == "the first 150 of 10000 rows"
    assert rows_said({"data": facts | {"audited": 100}}) == "100 rows drawn at random from the first 150 of 10000 rows"
    assert rows_said({"data": facts | {"available": 150}}) == "all 150 rows"
    assert rows_said({"data": {"audited": 100, "rows": 150}}) == "100 rows drawn at random from 150 rows"
    data = load_data("digits", limit=20)
    assert (len(data), data.available, data.first(5).available, data.rows(slice(5)).available) == (20, 1797, 20, 5)


def test_all_reach_the_report() -> None:
    model, x, y = subject_of()
    threat = jaxsec.LInf(eps=8 / 255, lo=0.0, hi=255.0)
    plan = tiny_plan(probes=("clean", "smooth"), smooth_sigma=0.25, smooth_samples=20, smooth_steps=1, smooth_noises=1)
    data = SimpleNamespace(x=x * 255, y=y, value_range=(0.0, 229.5), range_measured=True)
    found = audit(model, data, threat=threat, key=jax.random.key(0), plan=plan).data["findings"]
    messages = {f["id"]: f["message"] for f in found if f["severity"] == "medium"}
    assert messages["JSX-VAL-004"].startswith("Eps 0.0313725 is 0.00012 of the valid range [0, 255]")
    assert messages["JSX-VAL-011"].startswith("Sigma 0.25 is 0.00098 of the valid range [0, 255]")
    assert messages["JSX-VAL-005"].startswith("The valid range [0, 229.5] was measured on the data")
