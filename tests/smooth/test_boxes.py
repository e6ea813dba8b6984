"""Worst-case intersection over union: against all boxes on grids, and of boxes whose centres an attack moves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.smooth import MedianSmoothing, certify_regression, least_iou
from jaxsec.smooth._boxes import iou

RNG = np.random.default_rng(0)


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    """By counting cells of a fine integer grid."""
    cells = [{(x, y) for x in range(int(v[0]), int(v[2])) for y in range(int(v[1]), int(v[3]))} for v in (a, b)]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1]) if cells[0] and cells[1] else 0.0


def test_iou_counts_cells() -> None:
    boxes = RNG.integers(0, 7, (200, 2, 4))
    np.testing.assert_allclose(iou(boxes[:, 0] * 1.0, boxes[:, 1] * 1.0), [slow_iou(a, b) for a, b in boxes], rtol=1e-15)


def test_the_least_is_that_of_all_boxes_on_a_grid() -> None:
    """Every integer box between the bounds: corners are among them, so a larger value would be unsound and a smaller one loose."""
    seen = []
    for _ in range(60):
        reference = np.concatenate([RNG.integers(0, 4, 2), RNG.integers(5, 9, 2)]).astype(float)
        lower = reference.astype(int) - RNG.integers(-2, 3, 4)
        upper = lower + RNG.integers(0, 4, 4)
        all_ = np.array(list(itertools.product(*(range(a, b + 1) for a, b in zip(lower, upper, strict=True)))), float)
        least = min(slow_iou(reference, box) for box in all_)
        found = float(least_iou(reference, lower, upper))
        assert found <= least and found == pytest.approx(least, abs=1e-11)
        seen.append(least)
    assert sum(v > 0.05 for v in seen) > 15


def test_no_box_between_the_bounds_has_less() -> None:
    reference = np.array([0.1, 0.2, 0.9, 0.8])
    lower = reference - RNG.uniform(0, 0.3, (100, 4))
    upper = reference + RNG.uniform(0, 0.3, (100, 4))
    least = least_iou(reference, lower, upper)
    inside = lower + (upper - lower) * RNG.uniform(size=(3000, 100, 4))
    assert np.all(iou(np.broadcast_to(reference, inside.shape), inside) >= least) and np.mean(least > 0.1) > 0.3


def test_unknown_edges_give_nothing() -> None:
    box = np.array([0.0, 0.0, 1.0, 1.0])
    for edge, value in ((0, -np.inf), (2, np.inf), (1, np.nan)):
        lower, upper = box.copy(), box.copy()
        (lower if value == -np.inf else upper)[edge] = value
        assert least_iou(box, lower, upper) == 0
    assert least_iou(box, box, box) == pytest.approx(1) and least_iou(box, box[[2, 1, 0, 3]], box[[2, 1, 0, 3]]) == 0
    with pytest.raises(ValueError, match=r"\[..., 4\] is needed"):
        least_iou(box[:3], box[:3], box[:3])
    with pytest.raises(ValueError, match="lower is above upper"):
        least_iou(box, box + 1, box)
    with pytest.raises(ValueError, match="not finite; leave out"):
        least_iou(box + np.inf, box, box)


def test_a_detector_end_to_end() -> None:
    """A box of fixed size around the brightest place moves with the image: its certified IoU is below what an attack reaches."""

    def detector(p, x):  # [B, 6] brightness on a line -> [B, 1, 4]
        centre = jnp.sum(jax.nn.softmax(2 * x, -1) * p[None], -1)
        return jnp.stack([centre - 2, 0 * centre, centre + 2, 1 + 0 * centre], -1)[:, None]

    where = jnp.arange(6.0)
    model = jaxsec.bind(detector, where)
    x = np.eye(6, dtype=np.float32)[1:5] * 2
    threat, method = jaxsec.L2(eps=0.15), MedianSmoothing(sigma=0.25, n=4000, per="row")
    c = certify_regression(model, x, threat=threat, method=method, key=jax.random.key(0), progress=False)
    assert c.predict.shape == (4, 1, 4)
    certified = least_iou(*(np.asarray(v) for v in (c.predict, c.lower, c.upper)))
    assert np.all(certified > 0.4) and np.all(certified < 1)
    slope = np.asarray(jax.vmap(jax.grad(lambda row: detector(where, row[None])[0, 0, 0]))(jnp.asarray(x)))
    steps = np.stack([slope, -slope, *RNG.normal(size=(6, 4, 6))])
    moved = (x + 0.15 * steps / np.linalg.norm(steps, axis=2, keepdims=True)).astype(np.float32).reshape(-1, 6)
    m = certify_regression(model, moved, threat=jaxsec.L2(eps=0.0), method=method, key=jax.random.key(1), progress=False)
    reached = iou(np.asarray(c.predict, np.float64), np.asarray(m.predict, np.float64).reshape(8, 4, 1, 4))
    assert np.all(reached >= certified) and np.all(1 - reached.min(0) > 0.4 * (1 - certified))  # and the attack comes near
