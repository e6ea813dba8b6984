"""Golden schedules of the published attacks, and what `reference` changes."""

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec.attack._apgd import checkpoints
from jaxsec.attack._apgd_l1 import APGDL1
from jaxsec.attack._square import image_axes, window_fraction


def test_apgd_checkpoints_of_100_steps():
    # auto-attack a392200: the step size is checked after these iterations
    ends = np.flatnonzero(checkpoints(100)) + 1
    assert ends.tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(100)[ends - 1].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]
    assert (checkpoints(1) == [1]).all()


def test_square_window_schedule():
    share = window_fraction(0.8, 9000, rescale=False)
    drops = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    assert [float(share[d - 1] / share[d]) for d in drops] == [2.0] * len(drops)
    assert share[0] == 0.8
    # stretched to its 10,000 iterations, a short run ends with the smallest windows
    assert window_fraction(0.8, 100, rescale=True)[-1] == pytest.approx(0.8 / 2**9)


def test_apgd_l1_phases_spend_30_30_40_percent_at_3_2_1_eps():
    factor, enter, _ = APGDL1(steps=100, large_eps=True)._plan()
    moves = {f: int(np.sum((factor == f) & ~enter)) for f in (3.0, 2.0, 1.0)}
    assert moves == {3.0: 30, 2.0: 30, 1.0: 40} and enter.sum() == 2


@pytest.mark.parametrize(
    ("shape", "layout", "axes"),
    [((3, 8, 9), "auto", (1, 2, 0)), ((8, 9, 3), "auto", (0, 1, 2)), ((8, 9), "auto", (0, 1, None)), ((8, 8, 8), "hwc", (0, 1, 2))],
)
def test_image_axes(shape, layout, axes):
    assert image_axes(shape, layout) == axes


@pytest.mark.parametrize(
    ("shape", "layout"), [((8, 8, 8), "auto"), ((1, 8, 3), "auto"), ((5,), "auto"), ((8, 8), "chw"), ((3, 8, 8), "nchw")]
)
def test_image_axes_refuses_what_is_ambiguous(shape, layout):
    with pytest.raises(ValueError, match="layout"):
        image_axes(shape, layout)


def test_standard_version_is_the_published_protocol():
    stages = dict(jaxsec.AutoAttack().stages("linf"))
    assert list(stages) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (stages["apgd-ce"].steps, stages["apgd-ce"].restarts, stages["apgd-ce"].loss) == (100, 1, "ce")
    assert (stages["apgd-t"].targets, stages["fab-t"].targets, stages["fab-t"].steps, stages["square"].steps) == (9, 9, 100, 5000)
    l1 = dict(jaxsec.AutoAttack().stages("l1"))
    assert (l1["apgd-ce"].restarts, l1["apgd-t"].targets, l1["apgd-ce"].large_eps) == (5, 5, True)
    assert [n for n, _ in jaxsec.AutoAttack(version="plus").stages("l2")] == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert [n for n, _ in jaxsec.AutoAttack(version="rand").stages("linf")] == ["apgd-ce", "apgd-dlr"]


def test_reference_mode_differs_only_a_little(small):
    model, x, y = small
    threat = jaxsec.LInf(eps=0.06, lo=0.0, hi=1.0)
    found = {}
    for reference in (False, True):
        method = jaxsec.AutoAttack(steps=30, queries=100, targets=2, reference=reference)
        found[reference] = jaxsec.attack(model, x, y, threat=threat, method=method, key=jax.random.key(0), checks=False)
    assert np.sum(np.asarray(found[True].success != found[False].success)) <= 1
    assert np.any(np.asarray(found[True].x != found[False].x)) and np.any(np.asarray(found[True].queries > found[False].queries))
