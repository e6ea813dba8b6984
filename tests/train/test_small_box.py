"""Small boxes: inside the set, around the adversarial point; SABR and MTL-IBP at their ends and against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_kit import LINF, blobs, ce, weights

import jaxsec
from jaxsec.bound import CROWNIBP, IBP
from jaxsec.core import row_keys
from jaxsec.train import AWP, net_of
from jaxsec.train._certified import IBPTraining
from jaxsec.train._inner import ascend
from jaxsec.train._losses import cross_entropy
from jaxsec.train._rows import Rows
from jaxsec.train._small_box import MTLIBP, SABR, small_box
from jaxsec.train._validate import validation_of

X, Y = (jnp.asarray(v) for v in blobs(6))
KEY = jax.random.key(3)
KEYS = row_keys(KEY, jnp.arange(len(X)))
BOX = jaxsec.threat.Box(lower=jnp.zeros(6), upper=jnp.linspace(0.1, 1, 6))


def relu_net(params, x):
    return jax.nn.relu(x @ params["a"]) @ params["b"] + params["c"][None]


NET = net_of(relu_net, weights())


def loss_of(recipe, y=Y):
    return recipe.loss(jaxsec.bind(relu_net, NET.params), X, y, KEY)


def interval_loss(low, high, y):
    """Gowal et al. 2018, eq. 6 and 7 in float64, the last layer merged."""
    a, b, c = (np.asarray(NET.params[k], np.float64) for k in "abc")
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    centre, radius = (low + high) / 2 @ a, (high - low) / 2 @ np.abs(a)
    low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
    worst = []
    for k in range(3):
        w = (b[:, np.asarray(y)] - b[:, [k]]).T
        worst.append(-((np.maximum(w, 0) * low + np.minimum(w, 0) * high).sum(1) + c[np.asarray(y)] - c[k]))
    return np.log(np.exp(worst).sum(0)).mean()


@pytest.mark.parametrize("threat", [LINF, jaxsec.LInf(eps=jnp.linspace(0.01, 0.3, 6)), BOX], ids=["ball", "rows", "box"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_small_boxes_lie_in_the_set_and_hold_their_points(threat, share):
    x = threat.project(X, X)
    at = threat.scaled(1 - share).sample(KEYS, x)
    box = small_box(threat, x, at, share)
    low, high = threat.interval(x)
    assert (box.lower >= low).all() and (box.upper <= high).all() and (box.lower <= at).all() and (at <= box.upper).all()
    assert threat.contains(x, box.lower).all() and threat.contains(x, box.upper).all()
    half = (high - low) / 2 if threat is BOX else threat.radius(x)[:, None]
    inside = (low > 0) & (high < 1)  # where valid inputs cut nothing off
    np.testing.assert_allclose(jnp.where(inside, (box.upper - box.lower) / 2 - share * half, 0), 0, atol=1e-6)


def test_a_point_at_the_border_has_its_box_cut_off():
    box = small_box(LINF, X, X + 0.1, 0.5)
    np.testing.assert_allclose(box.upper, jnp.minimum(X + 0.1, 1), atol=1e-6)
    np.testing.assert_allclose(box.lower, X + 0.05, atol=1e-6)
    per_row = small_box(LINF, X, X, jnp.linspace(0, 1, 6))
    np.testing.assert_allclose(per_row.upper - X, jnp.minimum(jnp.linspace(0, 0.1, 6)[:, None] * jnp.ones((1, 6)), 1 - X), atol=1e-6)


def test_sabr_is_the_interval_loss_of_the_box_around_the_attacks_point():
    recipe = SABR(threat=LINF, share=0.3, steps=4)
    loss, metrics = loss_of(recipe)
    at = ascend(lambda v: cross_entropy(NET(v), Y), X, jaxsec.LInf(eps=0.07, lo=0.0, hi=1.0), KEYS, steps=4)
    low, high = (np.clip(np.asarray(at, np.float64) + s * 0.03, 0, 1) for s in (-1, 1))
    assert float(loss) == pytest.approx(interval_loss(low, high, Y), rel=1e-5)
    assert 0 <= float(metrics["box_accuracy"]) <= 1


def test_sabr_goes_from_adversarial_training_to_ibp():
    point = loss_of(SABR(threat=LINF, share=0.0, steps=4))[0]
    worst = ascend(lambda v: cross_entropy(NET(v), Y), X, LINF, KEYS, steps=4)
    np.testing.assert_allclose(point, np.mean(ce(NET(worst), np.asarray(Y))), rtol=1e-5)
    whole = loss_of(SABR(threat=LINF, share=1.0, steps=4))[0]
    np.testing.assert_allclose(whole, loss_of(IBPTraining(threat=LINF, kappa=0.0))[0], rtol=1e-5)
    assert point < loss_of(SABR(threat=LINF, share=0.5, steps=4))[0] < whole


def test_mtl_ibp_is_a_mixture():
    adversarial = ascend(lambda v: cross_entropy(NET(v), Y), X, jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0), KEYS, steps=4)
    attacked = np.mean(ce(NET(adversarial), np.asarray(Y)))
    proved = interval_loss(np.clip(X - 0.1, 0, 1), np.clip(X + 0.1, 0, 1), Y)
    for alpha in (0.0, 0.3, 1.0):
        loss, metrics = loss_of(MTLIBP(threat=LINF, alpha=alpha, attack_scale=2.0, steps=4))
        assert float(loss) == pytest.approx((1 - alpha) * attacked + alpha * proved, rel=1e-5)
        assert set(metrics) == {"adversarial_accuracy", "certified_accuracy"}


@pytest.mark.parametrize("cls", [SABR, MTLIBP])
def test_numbers_are_traced_and_distributions_are_labels(cls):
    traces = []

    @jax.jit
    def run(recipe, params, y, progress):
        traces.append(0)
        return jax.value_and_grad(lambda p: recipe.at(progress).loss(jaxsec.bind(relu_net, p), X, y, KEY)[0])(params)

    p = jax.nn.one_hot(Y, 3)
    small, _ = run(cls(threat=jaxsec.LInf(eps=0.01, lo=0.0, hi=1.0), steps=2), NET.params, p, 0.9)
    large, gradient = run(cls(threat=LINF, steps=2), jax.tree.map(jnp.asarray, weights()), p, 0.9)
    still, _ = run(cls(threat=LINF, steps=2), NET.params, p, 0.05)
    assert len(traces) == 1 and still <= small < large
    np.testing.assert_allclose(still, np.mean(ce(NET(X), np.asarray(Y))), rtol=1e-5)  # warmup: no adversary
    np.testing.assert_allclose(large, loss_of(cls(threat=LINF, steps=2))[0], rtol=1e-5)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-3


def test_gradient_moves_the_bound_not_the_point():
    """The point that the attack found is a constant: with it the loss is differentiable, and the derivative is that of the bound."""
    recipe, direction = SABR(threat=LINF, share=0.3, steps=4), weights(7)
    at = recipe.prepare(NET, X, Y, KEYS)

    @jax.jit
    def value(t):
        net = NET.replace(params=jax.tree.map(lambda w, d: w + t * d, NET.params, direction))
        return recipe.objective(net, at, X, Y, KEYS)[0]

    slope = float(jax.grad(value)(0.0))
    assert slope == pytest.approx((float(value(1e-3)) - float(value(-1e-3))) / 2e-3, rel=2e-2)
    gradient = recipe.gradient(NET, X, Y, KEYS, ()).gradient
    assert slope == pytest.approx(sum(float(jnp.vdot(g, direction[k])) for k, g in gradient.items()), rel=1e-4)


@pytest.mark.parametrize("cls", [SABR, MTLIBP])
def test_a_slope_below_zero_trains_under_jit(cls):
    net = net_of(lambda params, x: jax.nn.leaky_relu(x @ params["a"]) @ params["b"] + params["c"][None], weights())
    recipe = cls(threat=LINF, steps=1)
    jax.eval_shape(lambda net: recipe.gradient(net, X, Y, KEYS, ()), net)  # traced as under jit


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="threat L2; its boxes are parts of LInf or Box"):
        SABR(threat=jaxsec.L2(eps=0.1)).check(NET, X)
    with pytest.raises(ValueError, match="steps=0"):
        SABR(threat=LINF, steps=0).check(NET, X)
    with pytest.raises(ValueError, match=r"alpha=-0\.5; it is a share"):
        MTLIBP(threat=LINF, alpha=-0.5).check(NET, X)
    with pytest.raises(ValueError, match=r"attack_scale=-1\.0; it must be at least 0"):
        MTLIBP(threat=LINF, attack_scale=-1.0).check(NET, X)
    for cls in (SABR, MTLIBP):
        with pytest.raises(ValueError, match="sum is at most 1"):
            cls(threat=LINF, ramp=0.95).check(NET, X)
    SABR(threat=BOX).check(NET, BOX.project(X, X))
    MTLIBP(threat=jaxsec.L2(eps=0.1)).check(NET, X)


def test_validation_proves_by_lines_what_intervals_leave_open():
    """A net that is linear where it counts: sums of opposite units, which intervals take for independent."""

    def twins(params, x):
        h = jax.nn.relu(x @ params["a"] + 3.0) - jax.nn.relu(3.0 + x @ params["a"] * 0.9)
        return 10 * h @ params["b"] + params["c"][None]

    net = net_of(twins, weights(scale=0.5))
    x, _ = blobs(70)  # more than a part of 64
    y = np.asarray(net(x)).argmax(1)
    threat = jaxsec.LInf(eps=0.05)
    shares = {}
    for recipe in (SABR(threat=threat, share=0.1), AWP(recipe=MTLIBP(threat=threat)), IBPTraining(threat=threat)):
        row = validation_of((x, y), recipe, None, KEY, Rows(3, ()), x.shape[1:])(net)
        shares[recipe.name] = row["validation_certified"]
        assert row["validation_certified"] <= row["validation_robust"]

    def by(method):
        return np.asarray(jaxsec.certify(net.model(), x, y, threat=threat, method=method, progress=False).robust).mean()

    assert shares["ibp"] == by(IBP()) < by(CROWNIBP()) == shares["sabr"] == shares["awp"], shares


def test_validation_of_few_rows_and_of_lines_that_do_not_fit(monkeypatch):
    x, y = blobs(5)
    rows = validation_of((x, y), SABR(threat=jaxsec.LInf(eps=0.001)), None, KEY, Rows(3, ()), x.shape[1:])
    assert rows(NET)["validation_certified"] == np.mean(np.asarray(NET(x)).argmax(1) == y)  # each row counts once
    wide = validation_of((x, y), SABR(threat=jaxsec.LInf(eps=0.5)), None, KEY, Rows(3, ()), x.shape[1:])
    lines = []
    monkeypatch.setattr(
        "jaxsec.train._validate._proved", lambda net, threat, x, y, by: lines.append((len(x), by)) or np.zeros(len(x), bool)
    )
    wide(NET)
    monkeypatch.setattr("jaxsec.train._validate._ELEMENTS", 8 * 3 * 6 - 1)  # 8 rows, 3 classes, the largest value has 6 elements
    wide(NET)
    assert lines == [(8, False), (8, True), (8, False)]
