"""Certified error of the published nets over the 10,000 test images, between the published bounds from both sides (percent)."""

import time

import numpy as np
import pytest

import jaxsec
from jaxsec.certify import Verdict

from . import nets

pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")

# What no certified error may be below (MILP's lower bound; wong: PGD), what it must reach (LP-GREEDY; wong: as published).
TABLE = {
    "lpd": (14.45, 18.32),
    "adv": (16.25, 71.34),
    "nor02": (10.16, 35.11),
    "nor03": (20.43, 75.85),
    "nor05": (53.37, 99.39),
    "wong": (4.1, 5.8),
}


def certified(name: str, method, store, smoke: bool) -> tuple[float, jaxsec.Certificate]:
    (file, eps), (low, high) = nets.PUBLISHED[name], TABLE[name]
    x, y = nets.mnist(32 if smoke else 10_000)
    model = nets.published(name)
    begin = time.perf_counter()
    found = jaxsec.certify(model, x, y, threat=jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), method=method, progress=False)
    status = np.asarray(found.status)
    error = 100 * (1 - float(np.asarray(found.robust).mean()))
    store(
        net=file, eps=eps, rows=len(x), certified_error=error, never_below=low, at_most=high, methods=list(found.methods),
        by=[int(np.sum(np.asarray(found.method) == i)) for i in range(len(found.methods))],
        status={v.name: int(np.sum(status == v)) for v in Verdict}, seconds=time.perf_counter() - begin,
    )  # fmt: skip
    return error, found


@pytest.mark.parametrize("name", TABLE)
def test_crown_reaches_the_published_error(name, store, smoke):
    error, _ = certified(name, [jaxsec.IBP(), jaxsec.CROWN()], store, smoke)
    assert smoke or TABLE[name][0] <= error <= TABLE[name][1]


def test_branch_and_bound_is_exact(store, smoke):
    """Every row of LPD is proved or broken; MILP's exact error is 14.45 %."""
    method = [jaxsec.CROWN(), jaxsec.AlphaCROWN(), jaxsec.BetaCROWN(timeout=60.0)]
    error, found = certified("lpd", method, store, smoke)
    assert int(np.sum(np.asarray(found.status) == Verdict.OPEN)) == 0
    assert smoke or abs(error - 14.45) < 0.005
