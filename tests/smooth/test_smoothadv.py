"""SmoothAdv against closed forms, and the law between certificates and attacks of the same smoothed classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.smooth import Ablation, SmoothAdv, _smoothadv, attack_smoothed, predict

RNG = np.random.default_rng(0)
D, KEY = 16, jax.random.key(0)
W = RNG.normal(size=(D, 2)).astype(np.float32)
W /= np.linalg.norm(W[:, 0] - W[:, 1])
LINEAR = jaxsec.bind(lambda p, x: (x - 0.5) @ p, jnp.asarray(W))
X = RNG.random((40, D)).astype(np.float32)
MARGIN = (X.astype(np.float64) - 0.5) @ (W[:, 0] - W[:, 1]).astype(np.float64)
Y = (MARGIN < 0).astype(np.int32)
NORMAL = np.abs(W[:, 0] - W[:, 1]).astype(np.float64)


def net(params, x):
    return jnp.sin((x - 0.5) @ params[0]) @ params[1]


NET = jaxsec.bind(net, [jnp.asarray(0.5 * RNG.normal(size=s), jnp.float32) for s in ((D, 24), (24, 3))])
METHOD = jaxsec.Smoothing(sigma=0.25, n=400)
ATTACK = SmoothAdv(steps=8, noises=16)


def attacked(model=LINEAR, x=X, y=Y, threat=None, method=METHOD, attack=ATTACK, **more) -> jaxsec.smooth.SmoothedAttack:
    how = {"key": KEY, "progress": False, **more}
    return attack_smoothed(model, x, y, threat=threat or jaxsec.L2(eps=0.3), method=method, attack=attack, **how)


@pytest.mark.parametrize(("threat", "dual"), [(jaxsec.L2, 1.0), (jaxsec.LInf, NORMAL.sum()), (jaxsec.L1, NORMAL.max())])
def test_a_linear_classifier_falls_where_its_boundary_is_reached(threat, dual: float) -> None:
    """A linear classifier's smoothed form is itself; samples need a margin of some 0.05 to tell a class."""
    eps = 0.3 / dual
    found = attacked(threat=threat(eps=eps))
    far = np.abs(MARGIN)
    assert not found.success[far > 0.3 + 1e-6].any()
    assert found.success[far < 0.2].all() and 3 < found.success.sum() < len(X)
    assert np.all(found.distance <= eps * (1 + 1e-5))
    np.testing.assert_array_equal(np.asarray(found.predict)[found.success], 1 - Y[found.success])
    assert found.x.shape == X.shape and np.all(found.counts.sum(1) == 400)


@pytest.mark.parametrize(
    ("distribution", "threat", "budgets"),
    [
        ("gaussian", jaxsec.L2, (0.1, 0.4)),
        ("discrete-gaussian", jaxsec.L2, (0.1, 0.4)),
        ("laplace", jaxsec.L1, (0.1, 1.5)),
        ("uniform", jaxsec.L1, (0.1, 1.5)),
        (Ablation(keep=4, fill=0.5), jaxsec.L0, (1, 12)),
    ],
)  # fmt: skip
def test_no_certified_row_is_broken(distribution, threat, budgets) -> None:
    """Certified <= true robustness <= attacked, at several radii; alpha is so small that one exception would be a defect."""
    x = (np.rint(X * 255) / 255).astype(np.float32)
    method = jaxsec.Smoothing(sigma=None if threat is jaxsec.L0 else 0.3, n=1500, alpha=1e-6, distribution=distribution)
    y = np.asarray(predict(NET, x, method=method, key=KEY).counts).argmax(1)
    proved, fallen = 0, 0
    for eps in budgets:
        ball = threat(eps=eps, lo=0.0, hi=1.0)
        robust = np.asarray(jaxsec.certify(NET, x, y, threat=ball, method=method, key=jax.random.key(5), progress=False).robust)
        if threat is jaxsec.L0:
            broken = _swapped(x, y, eps, method)
        else:
            found = attacked(NET, x, y, ball, method.replace(n=600))
            assert np.asarray(ball.contains(jnp.asarray(x), jnp.asarray(found.x))).all()
            broken = np.asarray(found.success)
        assert not (robust & broken).any()
        proved, fallen = proved + int(robust.sum()), fallen + int(broken.sum())
    assert proved > 0 and fallen > 0, "both sides say something"


def _swapped(x: np.ndarray, y: np.ndarray, eps: int, method: jaxsec.Smoothing) -> np.ndarray:
    """[B] rows that the smoothed classifier gets wrong after random flips of eps elements; gradients know no L0."""
    broken = np.zeros(len(x), bool)
    for trial in range(6):
        moved = x.copy()
        for row in moved:
            row[RNG.choice(D, eps, replace=False)] = RNG.integers(0, 2, eps)
        answer = predict(NET, moved, method=method.replace(n=600), key=jax.random.key(trial)).predict
        broken |= (answer >= 0) & (answer != y)
    return broken


def test_it_finds_more_than_random_directions() -> None:
    y = np.asarray(predict(NET, X, method=METHOD, key=KEY).counts).argmax(1)
    found = attacked(NET, y=y, threat=jaxsec.L2(eps=0.5))
    direction = RNG.normal(size=X.shape)
    moved = X + 0.5 * (direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32)
    answer = predict(NET, moved, method=METHOD, key=KEY).predict
    assert found.success.sum() >= 2 * np.sum((answer >= 0) & (answer != y)) and found.success.sum() >= 10


def test_rows_stand_alone() -> None:
    """Other chunks, and a part of the rows under their numbers, end at the same inputs and counts."""
    whole, small = attacked(), attacked(max_samples=64)
    np.testing.assert_allclose(whole.x, small.x, atol=1e-5)
    np.testing.assert_array_equal(whole.success, small.success)
    some = np.array([3, 17, 30])
    part = attacked(x=X[some], y=Y[some], row_ids=some)
    np.testing.assert_allclose(part.x, whole.x[some], atol=1e-5)
    np.testing.assert_array_equal(part.success, whole.success[some])


def test_one_program_for_all_budgets_and_restarts_add() -> None:
    once = attacked(NET, threat=jaxsec.L2(eps=0.1))
    before = _smoothadv._ascent._cache_size()
    more = attacked(NET, threat=jaxsec.L2(eps=0.1), attack=SmoothAdv(steps=8, noises=16, restarts=3))
    attacked(NET, threat=jaxsec.L2(eps=0.25), method=METHOD.replace(sigma=0.3))
    assert _smoothadv._ascent._cache_size() == before
    assert more.success.sum() >= once.success.sum() > 0


def test_each_look_spends_its_part_of_alpha() -> None:
    """Five votes of one class have a two-sided probability of 1/16: enough at 0.07 in one look, and of two looks at 0.13 only."""
    wrong = {"x": X[:1] + 9 * W[:, 0], "y": np.ones(1, np.int32), "attack": SmoothAdv(steps=1, noises=1)}
    for alpha, seen in ((0.07, False), (0.12, False), (0.13, True)):
        method = METHOD.replace(n=5, alpha=alpha)
        assert attacked(**wrong, method=method).success.tolist() == [seen]
        assert predict(LINEAR, wrong["x"], method=method, key=KEY).predict.tolist() == [0]


def test_no_judge_sees_what_another_or_a_gradient_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, judge, search = [], _smoothadv.counts_of, _smoothadv._Search.run
    monkeypatch.setattr(_smoothadv, "counts_of", lambda model, inputs, *a: (drawn.append(inputs.words), judge(model, inputs, *a))[1])
    monkeypatch.setattr(_smoothadv._Search, "run", lambda self, *a: (drawn.append(self.inputs.words), search(self, *a))[1])
    attacked(attack=SmoothAdv(steps=2, noises=2, restarts=2))
    judges, searches = drawn[::2], drawn[1::2]
    assert len(judges) == 3 and len(searches) == 2
    words = [tuple(word) for each in (*judges, searches[0]) for word in each.tolist()]
    assert len(set(words)) == len(words)


def test_a_search_that_leaves_the_set_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        _smoothadv._Search, "run", lambda self, run, rows: self.inputs.values[rows] + np.where(Y == 0, -9, 9)[rows, None] * W[:, 0]
    )
    found = attacked(threat=jaxsec.L2(eps=0.3))
    np.testing.assert_array_equal(found.predict, 1 - Y)
    assert not found.success.any() and found.distance.min() > 0.3


def test_bytes_are_read_as_images() -> None:
    pixels = np.rint(X * 255).astype(np.uint8)
    ball = jaxsec.L2(eps=0.3, lo=0.0, hi=1.0)
    found = attacked(x=pixels, threat=ball, method=METHOD.replace(distribution="discrete-gaussian"))
    steps = np.asarray(found.x, np.float64) * 255
    assert np.abs(steps - np.rint(steps)).max() < 1e-4 and found.success.any()
    assert np.asarray(ball.contains(jnp.asarray(pixels / 255, jnp.float32), jnp.asarray(found.x))).all()


def test_predict_counts_all_samples_and_abstains() -> None:
    found = predict(LINEAR, np.full((2, D), 0.5, np.float32), method=METHOD, key=KEY)
    assert np.all(found.counts.sum(1) == 400) and np.all(found.predict == -1)
    far = predict(LINEAR, X, method=METHOD, key=KEY)
    sure = np.asarray(far.predict) >= 0
    np.testing.assert_array_equal(np.asarray(far.predict)[sure], Y[sure])
    assert sure.mean() > 0.7
    some = predict(LINEAR, X[5:7], method=METHOD, key=KEY, row_ids=[5, 6], max_samples=64)
    np.testing.assert_array_equal(some.counts, far.counts[5:7])


def test_methods_that_count_all_answer_always() -> None:
    method = jaxsec.SplittingNoise(sigma=0.5)
    x = (np.rint(X[:3] * 255) / 255).astype(np.float32)
    found = predict(LINEAR, x, method=method, key=None)
    assert np.all(found.counts.sum(1) == 255) and np.all(found.predict == found.counts.argmax(1))
    with pytest.raises(ValueError, match="key is given"):
        predict(LINEAR, x, method=method, key=KEY)
    image = jaxsec.bind(lambda p, x: x.reshape(len(x), -1) @ p, jnp.asarray(np.random.default_rng(3).normal(size=(2 * D, 2)), jnp.float32))
    patch, method = jaxsec.Patch(size=3, layout="hwc", lo=0.0, hi=1.0), jaxsec.PatchAblation(size=1, layout="hwc")
    rows = X.reshape(40, 4, 4, 1)
    y = np.asarray(predict(image, rows, method=method, key=None).predict)
    broken = attacked(image, rows, y, patch, method).success
    assert broken.any() and not (np.asarray(jaxsec.certify(image, rows, y, threat=patch, method=method).robust) & broken).any()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        attacked(attack=SmoothAdv(steps=0))
    with pytest.raises(ValueError, match="step is -1"):
        attacked(attack=SmoothAdv(step=-1.0))
    with pytest.raises(ValueError, match="gradient is 0"):
        attacked(method=METHOD.replace(distribution="splitting"))
    with pytest.raises(ValueError, match=r"row_ids has shape \(2,\) for 40 rows"):
        attacked(row_ids=[1, 2])
    tokens = jaxsec.Smoothing(n=10, distribution=Ablation(keep=2, fill=0))
    model = jaxsec.bind(lambda p, x: p[x].mean(1), jnp.asarray(RNG.normal(size=(9, 2)), jnp.float32))
    with pytest.raises(TypeError, match="x has dtype int32"):
        attacked(model, RNG.integers(0, 9, (40, 5)), Y, jaxsec.L0(eps=1), tokens)
    with pytest.raises(TypeError, match="cannot run under jit"):
        jax.jit(lambda x: attacked(x=x))(X)
    with pytest.raises(ValueError, match="row_ids has the value -1;"):
        attacked(row_ids=[*range(39), -1])
    empty = attacked(x=X[:0], y=Y[:0], row_ids=[])
    assert empty.x.shape == (0, D) and empty.success.shape == (0,)
