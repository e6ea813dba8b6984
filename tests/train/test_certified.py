"""IBP and CROWN-IBP training: bounds against those of `bound` and against float64 formulas, schedules, and what recipes promise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from train_kit import LINF, blobs, ce, mlp, weights

import jaxsec
from jaxsec.bound import CROWNIBP, IBP, bound
from jaxsec.bound._lines import lines_of
from jaxsec.core import row_keys
from jaxsec.train import AWP, net_of
from jaxsec.train._batch_bounds import bounded, least, margin_forms
from jaxsec.train._certified import CROWNIBPTraining, IBPTraining, ibp_init
from jaxsec.train._schedule import ramp, share_of
from jaxsec.train._validate import Validation
from jaxsec.train._worst_case import fused_loss, lower_margins, mixed_loss, worst_loss

X, Y = (jnp.asarray(v) for v in blobs(6))
KEY = jax.random.key(3)
KEYS = row_keys(KEY, jnp.arange(len(X)))


def relu_net(params, x):
    x = jax.nn.relu(x.reshape(x.shape[0], -1) @ params["a"])
    return x @ params["b"] + params["c"][None]


NET = net_of(relu_net, weights())


class Conv(nn.Module):
    """Every kind of node: convolutions with strides, statistics, a curve, pooling, a residual sum, dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), strides=2)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
        x = nn.max_pool(x + nn.tanh(nn.Conv(4, (1, 1))(x)), (2, 2), (2, 2))
        x = nn.Dropout(0.2, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(3)(nn.relu(nn.Dense(4)(x)))


IMAGES, LABELS = jax.random.uniform(jax.random.key(1), (4, 8, 8, 2)), jnp.array([0, 1, 2, 0])
CONV = net_of(Conv(), x=IMAGES, key=jax.random.key(0))


def by_hand(params, x, eps, p, lo=0.0, hi=1.0, act=lambda v: np.maximum(v, 0)):
    """Gowal et al. 2018, eq. 6 and 7, in float64: lower bounds of (p - e_k) . z, the last layer merged; a label distribution p."""
    a, b, c = (np.asarray(params[k], np.float64) for k in "abc")
    x, p = np.asarray(x, np.float64), np.asarray(p, np.float64)
    low, high = np.clip(x - eps, lo, hi), np.clip(x + eps, lo, hi)
    centre, radius = (low + high) / 2 @ a, (high - low) / 2 @ np.abs(a)
    low, high = act(centre - radius), act(centre + radius)
    out = np.empty(p.shape)
    for k in range(p.shape[1]):
        d = p - np.eye(p.shape[1])[k]
        w = d @ b.T
        out[:, k] = (np.maximum(w, 0) * low + np.minimum(w, 0) * high).sum(1) + d @ c
    return out


def one_hot(y, k=3):
    return np.eye(k)[np.asarray(y)]


@pytest.mark.parametrize("soft", [False, True])
def test_ibp_loss_is_the_papers(soft):
    p = np.random.default_rng(0).dirichlet(np.ones(3), len(X)) if soft else one_hot(Y)
    recipe = IBPTraining(threat=LINF, kappa=0.3)
    y = jnp.asarray(p, jnp.float32) if soft else Y
    loss, metrics = recipe.loss(jaxsec.bind(relu_net, NET.params), X, y, KEY)
    margins = by_hand(NET.params, X, 0.1, p)
    logits = np.asarray(relu_net(NET.params, X), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = 0.3 * -(p * log_p).sum(1).mean() + 0.7 * np.log(np.exp(-margins).sum(1)).mean()
    np.testing.assert_allclose(loss, expected, rtol=2e-6)
    own = np.argmax(p, 1)[:, None] == np.arange(3)
    assert float(metrics["certified_accuracy"]) == pytest.approx(np.mean((own | (margins > 0)).all(1)))


def test_worst_loss_is_above_the_loss_of_every_corner_and_equal_without_a_set():
    corners = np.clip(np.asarray(X)[:, None] + 0.1 * np.random.default_rng(1).choice([-1, 1], (len(X), 300, X.shape[1])), 0, 1)
    p = np.random.default_rng(0).dirichlet(np.ones(3), len(X))
    worst = np.asarray(worst_loss(lower_margins(NET, LINF, X, jnp.asarray(p, jnp.float32))))
    z = np.asarray(NET(jnp.asarray(corners.reshape(-1, X.shape[1]), jnp.float32)), np.float64)
    losses = -(p[:, None] * (z - np.log(np.exp(z).sum(1, keepdims=True))).reshape(len(X), 300, 3)).sum(2)
    assert (losses <= worst[:, None] + 1e-6).all()
    still = worst_loss(lower_margins(NET, LINF.scaled(0.0), X, Y))
    np.testing.assert_allclose(still, ce(NET(X), np.asarray(Y)), rtol=1e-5)


@pytest.mark.parametrize("which", ["conv", "l2"])
def test_rows_side_by_side_have_the_bounds_that_they_have_one_by_one(which):
    threat, net, x, y = (LINF.scaled(0.5), CONV, IMAGES, LABELS) if which == "conv" else (jaxsec.L2(eps=0.1), NET, X, Y)
    spec = jnp.asarray(one_hot(y)[:, None] - np.eye(3)[None], jnp.float32)

    @jax.jit
    def ours(net):
        return mixed_loss(net, threat, x, y, jnp.float32(0.0))[1], mixed_loss(net, threat, x, y, jnp.float32(1.0))[1]

    intervals, lines = ours(net)
    np.testing.assert_allclose(intervals, bound(net.model(), (threat, x), method=IBP(), spec=spec), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(lines, bound(net.model(), (threat, x), method=CROWNIBP(), spec=spec), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(jax.jit(lower_margins)(net, threat, x, y), intervals, rtol=1e-4, atol=2e-5)
    assert float((lines - intervals).max()) > 1e-3


def test_products_of_two_values_are_bounded_on_both_walks():
    def gated(params, x):
        return (jax.nn.relu(x @ params["a"]) * jax.nn.sigmoid(x @ params["a"])) @ params["b"]

    net = net_of(gated, weights(2))
    spec = jnp.asarray(one_hot(Y)[:, None] - np.eye(3)[None], jnp.float32)
    for got, method in ((lower_margins(net, LINF, X, Y), IBP()), (mixed_loss(net, LINF, X, Y, jnp.float32(1.0))[1], CROWNIBP())):
        np.testing.assert_allclose(got, bound(net.model(), (LINF, X), method=method, spec=spec), rtol=1e-4, atol=1e-5)


def test_parts_of_a_maximum_are_computed_for_lines_only():
    """A pool is one pool of each end; written as pairwise maxima of strided copies, it cost ten times the net's own step."""

    def count(intervals):
        def run(x):
            graph, out, region, ranges = bounded(CONV, LINF, x, False)
            forms = margin_forms(graph, out, LABELS)
            lines = None if intervals else lines_of(graph, out, ranges)
            return least(graph, out, forms, region, ranges, lines)

        text = str(jax.make_jaxpr(run)(IMAGES))
        return text.count("reduce_window_max"), text.count(" sub ")

    (pools, few), (_, many) = count(True), count(False)
    assert pools == 2 and few < 0.5 * many


def test_a_maximum_before_the_last_layer_ends_the_walk():
    def pooled(params, x):
        z = x @ params["a"]
        return jnp.maximum(z, jnp.roll(z, 1, axis=1)) @ params["b"]

    net, spec = net_of(pooled, weights(2)), jnp.asarray(one_hot(Y)[:, None] - np.eye(3)[None], jnp.float32)
    got = np.asarray(lower_margins(net, LINF, X, Y))
    known = bound(net.model(), (LINF, X), method=IBP(), spec=spec)
    points = np.clip(np.asarray(X)[:, None] + 0.1 * np.random.default_rng(1).choice([-1, 1], (len(X), 200, X.shape[1])), 0, 1)
    z = np.asarray(net(jnp.asarray(points.reshape(-1, X.shape[1]), jnp.float32))).reshape(len(X), 200, 3)
    assert (got >= known - 1e-5).all() and (got > known + 0.1).any()
    assert (got <= np.einsum("bsk,bnk->bns", spec, z).min(1) + 1e-5).all()


def test_beta_goes_from_intervals_to_lines():
    @jax.jit
    def both(beta):
        return mixed_loss(NET, LINF, X, Y, beta), fused_loss(NET, LINF, X, Y, beta)

    (none, half, whole) = (both(jnp.float32(b)) for b in (0.0, 0.5, 1.0))
    intervals = lower_margins(NET, LINF, X, Y)
    np.testing.assert_allclose(none[0][1], intervals, atol=1e-6)
    np.testing.assert_allclose(none[1][0], worst_loss(intervals), rtol=1e-6)
    np.testing.assert_allclose(half[0][1], 0.5 * (none[0][1] + whole[0][1]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.exp(half[1][0]), 0.5 * (np.exp(none[1][0]) + np.exp(whole[1][0])), rtol=1e-5)
    np.testing.assert_allclose(half[1][1], intervals, atol=1e-6)
    assert (whole[1][0] < none[1][0] - 1e-4).any() and (whole[1][0] <= none[1][0] + 1e-6).all()


def test_fused_loss_is_the_chords_bound_and_above_every_loss():
    """The formula again: IBP's margins and the chord's form, bounded by `bound` itself."""
    p = one_hot(Y)
    spec = p[:, None] - np.eye(3)[None]
    low = by_hand(NET.params, X, 0.1, p)
    high = np.stack([-by_hand_form(NET.params, X, 0.1, -spec[:, k]) for k in range(3)], 1)
    u, l = -low, -high
    width = np.where(u - l > 1e-9, u - l, 1)
    slope = np.where(u - l > 1e-9, (np.exp(u) - np.exp(l)) / width, np.exp(u))
    form = jnp.asarray((slope[:, :, None] * spec).sum(1)[:, None], jnp.float32)
    lines = np.asarray(bound(NET.model(), (LINF, X), method=CROWNIBP(), spec=form))[:, 0]
    expected = np.log(np.exp(u).sum(1) - (lines - (slope * low).sum(1)))
    fused = fused_loss(NET, LINF, X, Y, jnp.float32(1.0))[0]
    np.testing.assert_allclose(fused, expected, rtol=2e-5)
    points = np.clip(np.asarray(X)[:, None] + np.random.default_rng(1).uniform(-0.1, 0.1, (len(X), 200, X.shape[1])), 0, 1)
    z = np.asarray(NET(jnp.asarray(points.reshape(-1, X.shape[1]), jnp.float32)))
    assert (ce(z, np.repeat(np.asarray(Y), 200)).reshape(len(X), 200) <= np.asarray(fused)[:, None] + 1e-6).all()


def by_hand_form(params, x, eps, d):
    a, b, c = (np.asarray(params[k], np.float64) for k in "abc")
    low, high = np.clip(np.asarray(x, np.float64) - eps, 0, 1), np.clip(np.asarray(x, np.float64) + eps, 0, 1)
    centre, radius = (low + high) / 2 @ a, (high - low) / 2 @ np.abs(a)
    low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
    w = d @ b.T
    return (np.maximum(w, 0) * low + np.minimum(w, 0) * high).sum(1) + d @ c


@pytest.mark.parametrize("recipe", [IBPTraining(threat=LINF), CROWNIBPTraining(threat=LINF, beta=0.7)], ids=["ibp", "crown-ibp"])
def test_gradient_is_that_of_finite_differences(recipe):
    direction = weights(7)

    @jax.jit
    def value(t):
        params = jax.tree.map(lambda w, d: w + t * d, NET.params, direction)
        return recipe.loss(jaxsec.bind(relu_net, params), X, Y, KEY)[0]

    slope = float(jax.grad(value)(0.0))
    assert slope == pytest.approx((float(value(1e-3)) - float(value(-1e-3))) / 2e-3, rel=2e-2)


def test_numbers_are_traced_and_statistics_move_with_clean_rows():
    traces = []

    @jax.jit
    def step(recipe, net):
        traces.append(0)
        return recipe.gradient(net, IMAGES, LABELS, KEYS[:4], ())

    for eps, kappa in ((0.02, 0.5), (0.05, 0.1)):
        out = step(IBPTraining(threat=jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), kappa=kappa), CONV)
    assert len(traces) == 1
    expected = CONV.training(IMAGES, KEYS[:4])[1].state
    for got, want in zip(jax.tree.leaves(out.net.state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    # what is bounded is the net with these statistics, in evaluation mode, and kappa 0 leaves nothing else
    threat = jaxsec.LInf(eps=0.05, lo=0.0, hi=1.0)
    only = step(IBPTraining(threat=threat, kappa=0.0), CONV)
    np.testing.assert_allclose(only.loss, jnp.mean(worst_loss(lower_margins(out.net, threat, IMAGES, LABELS))), rtol=1e-5)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(only.gradient))


def test_schedules():
    t = np.linspace(0, 1, 2001)
    eps = np.asarray(ramp(jnp.asarray(t, jnp.float32), "smooth"))
    assert eps[0] == 0 and eps[-1] == 1 and (np.diff(eps) >= 0).all()
    slopes = np.diff(eps) * 2000
    assert np.abs(np.diff(slopes)).max() < 0.05  # no corner where the two pieces meet
    np.testing.assert_allclose(share_of(jnp.asarray([0.0, 0.1, 0.35, 0.6, 0.9]), 0.1, 0.5), [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(share_of(jnp.asarray([0.0, 0.1, 0.2]), 0.1, 0.0), [0, 1, 1])
    recipe = CROWNIBPTraining(threat=LINF, kappa=0.4, beta=0.2)
    early, late = recipe.at(jnp.float32(0.05)), recipe.at(jnp.float32(0.7))
    assert [float(early.threat.eps), float(early.kappa), float(early.beta)] == [0, 1, 1]
    np.testing.assert_allclose([late.threat.eps, late.kappa, late.beta], [0.1, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(ramp(jnp.asarray([0.125, 0.25, 0.625]), "smooth"), [1 / 13 / 16, 1 / 13, 7 / 13], rtol=1e-5)
    ibp = IBPTraining(threat=LINF, kappa=0.4, warmup=0.2, ramp=0.4)
    np.testing.assert_allclose([ibp.at(jnp.float32(t)).kappa for t in (0.1, 0.2, 0.4, 0.6, 1.0)], [1, 1, 0.7, 0.4, 0.4], rtol=1e-6)


def test_initialisation_keeps_intervals_at_their_size():
    net = net_of(lambda params, x: x, {"k": jnp.zeros((3, 3, 64, 200)), "b": jnp.ones(200), "o": jnp.zeros((5, 300))})
    new = ibp_init(net, KEY).params
    assert float(jnp.std(new["k"])) == pytest.approx(np.sqrt(2 * np.pi) / 576, rel=0.02) and np.all(new["b"] == 1)
    # a deviation of sqrt(2 pi) / n makes a radius 2 of 1, of which ReLU takes half
    assert float(jnp.abs(new["k"]).sum((0, 1, 2)).mean()) == pytest.approx(2, rel=0.02)
    assert float(jnp.std(ibp_init(net, KEY, out_axis=0).params["o"])) == pytest.approx(np.sqrt(2 * np.pi) / 300, rel=0.1)


ACTS = {
    "leaky": (jax.nn.leaky_relu, lambda v: np.where(v > 0, v, 0.01 * v)),
    "clip": (lambda v: jnp.clip(v, -0.3, 0.4), lambda v: np.clip(v, -0.3, 0.4)),
}


@pytest.mark.parametrize("name", ACTS)
def test_activations_with_constants_train_under_jit(name):
    """Their slopes and ends are traced there, so nothing may ask what numbers they are."""
    act, exact = ACTS[name]
    net = net_of(lambda params, x: act(x @ params["a"]) @ params["b"] + params["c"][None], weights())
    recipe = IBPTraining(threat=LINF, kappa=0.0)
    recipe.check(net, X)

    jax.eval_shape(lambda net: recipe.gradient(net, X, Y, KEYS, ()), net)
    loss = jax.jit(lambda net: recipe.loss(net, X, Y, KEY)[0])(net)
    margins = by_hand(net.params, X, 0.1, one_hot(Y), act=exact)
    assert float(loss) == pytest.approx(np.log(np.exp(-margins).sum(1)).mean(), rel=1e-5)
    # which is what it says, by brute force
    points = np.clip(np.asarray(X)[:, None] + np.random.default_rng(1).choice([-0.1, 0.1], (len(X), 200, X.shape[1])), 0, 1)
    a, b, c = (np.asarray(net.params[k], np.float64) for k in "abc")
    z = exact(points @ a) @ b + c
    own = np.take_along_axis(z, np.asarray(Y)[:, None, None], 2)
    assert (margins <= (own - z).min(1) + 1e-6).all()


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match=r"warmup=0\.8 and ramp=0\.8: .* sum is at most 1"):
        IBPTraining(threat=LINF, warmup=0.8, ramp=0.8).check(NET, X)
    with pytest.raises(ValueError, match="sum is at most 1"):
        CROWNIBPTraining(threat=LINF, warmup=0.6).check(NET, X)
    with pytest.raises(ValueError, match=r"ibp cannot bound this net while it is traced: .*tracer"):
        IBPTraining(threat=LINF).check(net_of(lambda params, x: x @ params if float(params[0, 0]) > 0 else x, jnp.eye(6)), X)
    with pytest.raises(ValueError, match=r"kappa=1\.5; it is a share"):
        IBPTraining(threat=LINF, kappa=1.5).check(NET, X)
    with pytest.raises(ValueError, match="crown-ibp cannot bound this net: complex numbers"):
        CROWNIBPTraining(threat=LINF).check(net_of(lambda params, x: jnp.fft.fft(x * params[None]).real, jnp.ones(6)), X)
    with pytest.raises(ValueError, match="must lie in the box"):
        IBPTraining(threat=LINF).check(NET, X + 2)
    IBPTraining(threat=LINF).check(CONV, IMAGES)


def test_training_raises_certified_accuracy():
    x, y = (jnp.asarray(v) for v in blobs(96))
    net, optimizer = ibp_init(net_of(mlp, weights(scale=0.3)), KEY), optax.adam(0.03)
    recipe, keys = IBPTraining(threat=LINF), row_keys(KEY, jnp.arange(96))

    @jax.jit
    def trained(net):
        def step(i, carry):
            net, state = carry
            out = recipe.at(i / 150).gradient(net, x, y, keys, ())
            update, state = optimizer.update(out.gradient, state)
            return net.replace(params=optax.apply_updates(net.params, update)), state

        return jax.lax.fori_loop(0, 150, step, (net, optimizer.init(net.params)))[0]

    spec = jnp.asarray(one_hot(y)[:, None] - np.eye(3)[None], jnp.float32)

    def proved(net):
        margins = bound(net.model(), (LINF, x), method=IBP(), spec=spec)
        return float(jnp.mean(jnp.all((margins > 0) | (jnp.asarray(one_hot(y)) > 0), axis=1)))

    assert proved(net) < 0.5 and proved(trained(net)) > 0.9


def test_the_best_epoch_is_one_of_the_full_eps(monkeypatch):
    """Mid-ramp nets are more robust to PGD and prove little: they used to be the ones kept."""
    data = tuple(np.asarray(v) for v in blobs(96))
    recipe = IBPTraining(threat=LINF, warmup=0.2, ramp=0.3)
    how = {"variables": weights(scale=0.3), "epochs": 10, "batch_size": 32, "key": KEY, "progress": False, "validation": 0.25}
    fit = jaxsec.fit(mlp, data, recipe=AWP(recipe=recipe), **how)
    rows = [row for row in fit.history if row["epoch"] >= 4]
    assert fit.best_epoch >= 4 and all("validation_certified" in row for row in fit.history)
    best = fit.history[fit.best_epoch]
    assert best["validation_certified"] == max(row["validation_certified"] for row in rows)
    assert all(row["validation_certified"] <= row["validation_robust"] <= row["validation_clean"] for row in fit.history)
    falling = iter(np.linspace(1, 0.1, 10))
    monkeypatch.setattr(Validation, "__call__", lambda self, net: {"validation_clean": 1.0, "validation_certified": float(next(falling))})
    assert jaxsec.fit(mlp, data, recipe=AWP(recipe=recipe), **how).best_epoch == 4


FOLDS = {
    "two pieces": lambda p, x: jnp.max((x @ p).reshape(len(x), -1, 2), axis=2),
    "three pieces": lambda p, x: jnp.max((x @ p)[:, :9].reshape(len(x), 3, 3), axis=2),
    "global pool": lambda p, x: jnp.max(jax.nn.relu((x @ p).reshape(len(x), 4, 3)), axis=1) - x[:, :3],
}


@pytest.mark.parametrize("name", FOLDS)
def test_maxima_along_axes_keep_rows_apart(name):
    r = np.random.default_rng(0)
    x, w = jnp.asarray(r.uniform(size=(16, 6)), jnp.float32), jnp.asarray(3 * r.normal(size=(6, 12)), jnp.float32)
    net, threat = net_of(FOLDS[name], w), jaxsec.LInf(eps=0.01)
    z = np.asarray(net(x))
    y = z.argmax(1)
    y[0] = z[0].argmin()
    inside = np.concatenate([x[None], x[None] + threat.eps * np.sign(r.normal(size=(300, *x.shape)))]).astype(np.float32)
    values = np.stack([np.asarray(net(v)) for v in inside])
    true = (values[:, np.arange(16), y][..., None] - values).min(axis=0)
    for margins in (lower_margins(net, threat, x, jnp.asarray(y)), mixed_loss(net, threat, x, jnp.asarray(y), jnp.float32(1.0))[1]):
        assert (np.asarray(margins) <= true + 1e-4).all()
    loss, metrics = IBPTraining(threat=threat, kappa=0.0).loss(net.model(), x, jnp.asarray(y), KEY)
    assert float(loss) >= float(np.mean(ce(net(x), y))) and float(metrics["certified_accuracy"]) <= float(metrics["clean_accuracy"]) < 1


@pytest.mark.parametrize("loss", [fused_loss, mixed_loss])
def test_a_log_softmax_at_the_end_is_no_part_of_the_margins(loss):
    """Its exponentials overflow where logits do not."""
    params, wide = {k: 40 * v for k, v in weights().items()}, LINF.replace(eps=0.3)

    def asked(params, net):
        value, margins = loss(net_of(net, params), wide, X, Y, jnp.float32(0.5))
        return jnp.mean(value), margins

    (value, margins), slopes = jax.value_and_grad(asked, has_aux=True)(params, lambda p, x: jax.nn.log_softmax(relu_net(p, x)))
    (expected, same), known = jax.value_and_grad(asked, has_aux=True)(params, relu_net)
    assert np.isfinite(value) and value > 88
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(margins, same, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), slopes, known)


def test_a_log_softmax_that_overflows_certifies_nothing():
    """Written without the maximum: its logits are minus infinity, and the first class is said of every row."""

    def unstable(params, x):
        z = relu_net(params, x)
        return z - jnp.log(jnp.sum(jnp.exp(z), axis=1, keepdims=True))

    net = net_of(unstable, {k: 400 * v for k, v in weights().items()})
    right = np.asarray(net(X)).argmax(axis=1) == Y
    proved = np.asarray((lower_margins(net, LINF.replace(eps=0.01), X, Y) > 0) | (jnp.arange(3)[None] == Y[:, None])).all(axis=1)
    assert not np.isfinite(net(X)).all() and not (proved & ~right).any()
