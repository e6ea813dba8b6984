"""An eps that does not fit the data, and a range that nobody stated, are findings."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec.audit import audit
from jaxsec.audit._scale import scale_findings, too_small
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


def test_both_reach_the_report() -> None:
    model, x, y = subject_of()
    threat = jaxsec.LInf(eps=8 / 255, lo=0.0, hi=255.0)
    data = SimpleNamespace(x=x * 255, y=y, value_range=(0.0, 229.5), range_measured=True)
    found = audit(model, data, threat=threat, key=jax.random.key(0), plan=tiny_plan(probes=("clean",))).data["findings"]
    messages = {f["id"]: f["message"] for f in found if f["severity"] == "medium"}
    assert messages["JSX-VAL-004"].startswith("Eps 0.0313725 is 0.00012 of the valid range [0, 255]")
    assert messages["JSX-VAL-005"].startswith("The valid range [0, 229.5] was measured on the data")
