"""Lipschitz nets: norms against singular values, constants against what inputs really do, radii against attacks and brute force."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax import lax
from train_kit import blobs, log_softmax, mlp, weights

import jaxsec
from jaxsec.core import row_keys
from jaxsec.train import _lipschitz_radius as module
from jaxsec.train import net_of
from jaxsec.train._lipschitz import (
    LipschitzMargin,
    lipschitz_certify,
    lipschitz_constant,
    spectral_normalised,
)
from jaxsec.train._lipschitz_layers import AOLConv, AOLDense, MaxMin, aol
from jaxsec.train._maxmin import maxmin
from jaxsec.train._operator_norms import SLACK, polyphase, row_sum_bound, spectrum_bound

X, Y = blobs(48)
KEY = jax.random.key(3)


class Images(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = MaxMin()(AOLConv(6, (3, 3))(x))
        x = MaxMin()(AOLConv(8, (4, 4), strides=2, padding=((1, 1), (1, 1)))(x))
        return AOLDense(3)(x.reshape(x.shape[0], -1))


class Rows(nn.Module):
    @nn.compact
    def __call__(self, x):
        return AOLDense(3)(MaxMin()(AOLDense(9)(MaxMin()(AOLDense(16)(x)))))


def randomised(net, seed=0):
    """Weights far from the orthogonal ones that training starts from."""
    r = np.random.default_rng(seed)
    return net.replace(params=jax.tree.map(lambda w: jnp.asarray(r.normal(size=w.shape), w.dtype), net.params))


IMAGES = jax.random.uniform(jax.random.key(1), (3, 8, 8, 2))
CONV = randomised(net_of(Images(), x=IMAGES, key=KEY))
ROWS = net_of(Rows(), x=jnp.asarray(X), key=KEY)


def convolution(kernel, strides, padding, size):
    """The operator as a matrix, by its definition: sums over taps."""
    kernel = np.asarray(kernel, np.float64)
    (kh, kw, c, o), (s, t) = kernel.shape, strides
    out = [(n + 2 * p - k) // v + 1 for n, p, k, v in zip(size, padding, (kh, kw), strides, strict=True)]
    m = np.zeros((*out, o, *size, c))
    for a, b, i, j in np.ndindex(*out, kh, kw):
        u, v = a * s + i - padding[0], b * t + j - padding[1]
        if 0 <= u < size[0] and 0 <= v < size[1]:
            m[a, b, :, u, v] += kernel[i, j].T
    return m.reshape(math.prod(out) * o, -1)


CASES = [((3, 3), (1, 1), (1, 1)), ((4, 4), (2, 2), (1, 1)), ((3, 3), (2, 2), (0, 0)), ((2, 5), (1, 3), (0, 2)), ((1, 1), (2, 1), (0, 0))]


@pytest.mark.parametrize(("taps", "strides", "padding"), CASES)
@pytest.mark.parametrize(("c", "o"), [(2, 5), (6, 2)])
def test_aol_and_the_bounds_of_norms(taps, strides, padding, c, o):
    kernel = np.random.default_rng(0).normal(size=(*taps, c, o))
    phases = polyphase(kernel, strides)
    exact = np.linalg.norm(convolution(kernel, strides, padding, (9, 12)), 2)
    large = np.linalg.norm(convolution(kernel, strides, (taps[0], taps[1]), (18, 18)), 2)
    for bound in (spectrum_bound(phases), row_sum_bound(phases)):
        assert exact <= bound and large <= bound
    assert spectrum_bound(phases) <= large * 1.06 + 1e-9
    scaled = np.asarray(aol(jnp.asarray(kernel, jnp.float32), strides), np.float64)
    assert np.linalg.norm(convolution(scaled, strides, padding, (9, 12)), 2) <= 1 + 1e-6
    # the rescaling's own proof is found again, so that deep nets do not lose a share at every layer
    assert row_sum_bound(np.asarray(polyphase(scaled, strides))) <= 1 + 1e-5
    # and a row or column sum is 1: no channel could be scaled up
    assert np.linalg.norm(scaled) > 0.1


def test_aol_leaves_orthogonal_matrices_and_follows_the_formula():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 4)))[0]
    np.testing.assert_allclose(aol(jnp.asarray(q, jnp.float32)), q, atol=1e-6)
    np.testing.assert_allclose(aol(jnp.asarray(q.T, jnp.float32)), q.T, atol=1e-6)
    p = np.random.default_rng(1).normal(size=(7, 4))
    np.testing.assert_allclose(aol(jnp.asarray(p, jnp.float32)), p / np.sqrt(np.abs(p.T @ p).sum(1)), rtol=1e-5)
    np.testing.assert_allclose(aol(jnp.asarray(p.T, jnp.float32)), p.T / np.sqrt(np.abs(p.T @ p).sum(1))[:, None], rtol=1e-5)
    assert not aol(jnp.zeros((3, 2))).any()
    grad = jax.grad(lambda k: jnp.sum(aol(k) ** 2))(jnp.zeros((3, 2)).at[0, 0].set(1.0))
    assert np.isfinite(grad).all()


def test_constant_of_nets_of_known_constants():
    def linear(params, x):
        return x @ params

    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    exact = np.linalg.norm(np.asarray(matrix, np.float64), 2)
    for fn, factor in (
        (linear, 1),
        (lambda p, x: 2 * jax.nn.relu(x @ p) + 1, 2),
        (lambda p, x: jnp.abs(x @ p) / jnp.array([[2.0, 4.0, 2.0]]), 0.5),
        (lambda p, x: jnp.tanh(x @ p) + x @ p, 2),
        (lambda p, x: jax.nn.sigmoid((p.T @ x.T).T), 0.25),
        (lambda p, x: jnp.concatenate([x @ p, jnp.maximum(x @ p, 0.5)], 1), math.sqrt(2)),
        (lambda p, x: jnp.mean(jnp.stack([x @ p] * 4), 0), 1),
        (lambda p, x: jnp.maximum(x @ p, -(x @ p)), math.sqrt(2)),
        (lambda p, x: nn.avg_pool((x @ p)[..., None], (3,)), 1 / math.sqrt(3)),
    ):
        assert lipschitz_constant(net_of(fn, matrix), X) == pytest.approx(factor * exact, rel=1e-5)
    assert lipschitz_constant(net_of(lambda p, x: jnp.zeros((1, 1)) * p[0, 0], matrix), X) == 0


@pytest.mark.parametrize("mixed", [lambda x: x + jnp.sum(x, 0, keepdims=True), lambda x: x[::-1]], ids=["sum", "turned"])
def test_rows_that_meet_have_no_constant(mixed):
    """The walk is of one row, and rows of a sum over the batch fell inside their radius."""
    net = net_of(lambda p, x: mixed(x) @ p, jnp.array([[1.0, -1.0], [-1.0, 1.0]]))
    x = jnp.array([[0.5, 0.4], [0.6, 0.3], [0.2, 0.1], [0.3, 0.3]])
    with pytest.raises(ValueError, match="depends on the other rows"):
        lipschitz_constant(net, x)
    for sound in (False, True):
        with pytest.raises(ValueError, match="depends on the other rows"):
            lipschitz_certify(net, x, jnp.zeros(4, int), sound=sound)


@pytest.mark.parametrize("net", [CONV, ROWS], ids=["conv", "rows"])
def test_aol_nets_have_constant_one_and_inputs_agree(net):
    x = IMAGES if net is CONV else jnp.asarray(X)
    constant = lipschitz_constant(net, x)
    assert constant <= 1 + 1e-4
    # the steepest direction, by power iteration on the Jacobian of single rows
    jacobian = jax.vmap(jax.jacrev(lambda v: net(v[None])[0]))(x).reshape(len(x), 3, -1)
    norms = np.linalg.norm(np.asarray(jacobian, np.float64), 2, axis=(1, 2))
    assert (norms <= constant).all() and norms.max() > 0.1


def test_convolutions_too_large_for_a_matrix_are_bounded_as_well():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2, 4)), jnp.float32)

    def conv(params, x):
        y = lax.conv_general_dilated(x, params, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y.reshape(x.shape[0], -1)

    small, large = jnp.zeros((1, 12, 12, 2)), jnp.zeros((1, 32, 32, 2))
    exact = np.linalg.norm(convolution(kernel, (1, 1), (1, 1), (12, 12)), 2)
    assert lipschitz_constant(net_of(conv, kernel), small) == pytest.approx(exact, rel=1e-5)
    assert exact < lipschitz_constant(net_of(conv, kernel), large) < 1.1 * exact

    def grouped(params, x):
        y = lax.conv_general_dilated(
            x, params, (2, 2), "VALID", rhs_dilation=(2, 1), feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.reshape(x.shape[0], -1)

    net = net_of(grouped, kernel[:, :, :1])
    big = lipschitz_constant(net, large)
    assert lipschitz_constant(net, jnp.zeros((1, 16, 16, 2))) <= big <= 1.15 * lipschitz_constant(net, jnp.zeros((1, 22, 22, 2)))


def test_the_sort_of_pairs_is_known_by_its_program_not_by_its_name():
    assert maxmin(jnp.array([[3.0, 1.0, 2.0, 4.0, 9.0]])).tolist() == [[3.0, 4.0, 2.0, 1.0, 9.0]]
    assert lipschitz_constant(net_of(lambda p, x: maxmin(x * p), jnp.float32(1)), X) == pytest.approx(1, rel=1e-5)

    def impostor(x):
        return 3 * x

    impostor.__name__ = "maxmin"
    assert lipschitz_constant(net_of(lambda p, x: jax.jit(impostor)(x * p), jnp.float32(1)), X) == pytest.approx(3, rel=1e-5)


def test_what_has_no_known_constant_is_refused():
    for fn, word in (
        (lambda p, x: jnp.exp(x @ p), "exp"),
        (lambda p, x: (x @ p) * (x @ p), "mul by a value"),
        (lambda p, x: x @ (x.T @ x @ p), "two"),
    ):
        with pytest.raises(ValueError, match=f"no Lipschitz constant is known for .*{word}"):
            lipschitz_constant(net_of(fn, jnp.ones((6, 3))), X)
    with pytest.raises(TypeError, match="under a trace"):
        jax.jit(lambda p: lipschitz_constant(net_of(lambda p, x: x @ p, p), X))(jnp.ones((6, 3)))
    with pytest.raises(ValueError, match="whatever its weights; of this one it is only known to be at most"):
        LipschitzMargin().check(net_of(mlp, weights(scale=3.0)), X)
    with pytest.raises(ValueError, match="kind='mse'; allowed"):
        LipschitzMargin(kind="mse").check(ROWS, X)
    with pytest.raises(ValueError, match="temperature=0"):
        LipschitzMargin(temperature=0).check(ROWS, X)
    LipschitzMargin(threat=jaxsec.L2(eps=0.2)).check(ROWS, X)


def test_spectral_normalisation_brings_every_product_to_the_norm():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    net = net_of(Plain(), x=IMAGES, key=KEY)
    net = net.replace(params=jax.tree.map(lambda w: 5 * w + 0.1, net.params))
    normal = jax.jit(lambda net, most: spectral_normalised(net, IMAGES, most=most, steps=60))
    once = normal(net, 1.0)
    assert lipschitz_constant(net, IMAGES) > 5 and lipschitz_constant(once, IMAGES) == pytest.approx(1, rel=0.03)
    assert lipschitz_constant(normal(net, 2.0), IMAGES) == pytest.approx(4, rel=0.05)
    np.testing.assert_array_equal(once.params["Dense_0"]["bias"], net.params["Dense_0"]["bias"])
    for a, b in zip(jax.tree.leaves(normal(once, 1.5).params), jax.tree.leaves(once.params), strict=True):
        np.testing.assert_array_equal(a, b)  # below the norm nothing changes
    # the norm of w / |w| does not depend on the size of w: its derivative along w vanishes
    scale = jax.grad(
        lambda t: jnp.sum(normal(net.replace(params=jax.tree.map(lambda w: w * t, net.params)), 1.0).params["Dense_0"]["kernel"] ** 2)
    )
    assert abs(float(scale(1.0))) < 1e-3


def test_losses_are_the_papers():
    z, y = np.asarray(ROWS(jnp.asarray(X)), np.float64), np.asarray(Y)
    own = np.eye(3)[y]
    loss, metrics = jax.jit(lambda r, net: r.loss(net, jnp.asarray(X), jnp.asarray(Y), KEY))(
        LipschitzMargin(offset=0.3, temperature=0.25), ROWS
    )
    expected = -0.25 * (own * log_softmax((z - 0.3 * own) / 0.25)).sum(1).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5) and 0 <= float(metrics["clean_accuracy"]) <= 1
    margin = (z * own).sum(1) - (z - 1e9 * own).max(1)
    hinge = LipschitzMargin(kind="hinge", offset=0.3).loss(ROWS, jnp.asarray(X), jnp.asarray(own, jnp.float32), KEY)[0]
    assert float(hinge) == pytest.approx(np.maximum(0.3 - margin, 0).mean(), rel=1e-5)


def trained(net, steps, x, y, recipe):
    optimizer, keys = optax.adam(0.02), row_keys(KEY, jnp.arange(len(x)))

    @jax.jit
    def run(net):
        def step(i, carry):
            net, state = carry
            out = recipe.at(i / steps).gradient(net, x, y, keys, ())
            update, state = optimizer.update(out.gradient, state)
            return net.replace(params=optax.apply_updates(net.params, update)), state

        return lax.fori_loop(0, steps, step, (net, optimizer.init(net.params)))[0]

    return run(net)


def test_no_attack_breaks_a_certified_row_and_training_certifies():
    x, y = jnp.asarray(X), jnp.asarray(Y)
    net = trained(ROWS, 120, x, y, LipschitzMargin(offset=1.0))
    assert lipschitz_constant(net, x) <= 1 + 1e-4
    radius = lipschitz_certify(net, x, Y)
    assert np.mean(radius > 0.1) > 0.8 and np.mean(radius) > 1.5 * np.mean(lipschitz_certify(ROWS, x, Y))
    # just inside, and far enough outside for attacks to succeed: the same attack, row by row
    for factor, broken in ((0.999, False), (4.0, True)):
        threat = jaxsec.L2(eps=jnp.asarray(np.maximum(radius, 1e-6) * factor))
        success = jaxsec.attack(net.model(), x, y, threat=threat, method=jaxsec.PGD(steps=50), key=KEY).success
        assert bool((np.asarray(success) & (radius > 0)).any()) == broken


def test_radii_hold_on_a_plane_by_brute_force():
    net = randomised(net_of(Rows(), x=jnp.zeros((1, 2)), key=KEY), seed=4)
    r = np.random.default_rng(0)
    x = r.uniform(-1, 1, (40, 2)).astype(np.float32)
    y = np.argmax(np.asarray(net(jnp.asarray(x))), 1)
    y[:5] = (y[:5] + 1) % 3
    radius = lipschitz_certify(net.model(), x, y, sound=True)
    assert radius.dtype == np.float32 and not radius[:5].any() and (radius[5:] > 0).all()
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    disc = np.stack([np.cos(angles), np.sin(angles)], 1)[None] * np.array([0.3, 0.7, 0.999])[:, None, None]
    points = x[:, None] + radius[:, None, None] * disc.reshape(-1, 2)[None]
    answers = np.argmax(np.asarray(net(jnp.asarray(points.reshape(-1, 2), jnp.float32))), 1).reshape(40, -1)
    assert (answers[5:] == y[5:, None]).all()
    # tight where the net is linear: two logits x and -x change places at x = 0
    pair = net_of(lambda p, x: jnp.concatenate([x[:, :1], -x[:, :1]], 1) * p, jnp.float32(1))
    assert lipschitz_certify(pair, np.array([[0.5, 0.0]], np.float32), np.array([0]))[0] == pytest.approx(0.5, rel=1e-4)


def test_radii_are_rounded_down():
    x = np.full((1, 2), 1.0, np.float32)
    net = net_of(lambda p, x: x * p, jnp.asarray([[3.0, 1.0]]))
    exact = (2 - module._ROUNDING * (3 + 7 * math.sqrt(2))) / (math.sqrt(2) * 7 * SLACK)
    found = lipschitz_certify(net, x, np.array([0]), constant=7.0)[0]
    assert exact * (1 - 2e-7) < float(found) <= exact
    assert exact * (1 - 1e-4) < float(lipschitz_certify(net, x, np.array([0]), constant=7.0, sound=True)[0]) <= 2 / (math.sqrt(2) * 7)
    assert lipschitz_certify(net, x, np.array([1]))[0] == 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_not_certified(dtype):
    """Such a net gets rows wrong, unattacked, that it has right in float32; a radius of the one is none of the other."""
    r = np.random.default_rng(0)
    w, x = (jnp.asarray(r.normal(size=s), jnp.float32) for s in ((64, 2), (500, 64)))
    y = np.zeros(500, np.int32)
    net = net_of(lambda p, x: x @ p, w)
    for given, rows, named in ((net.replace(params=w.astype(dtype)), x, "weights"), (net, x.astype(dtype), "rows")):
        with pytest.raises(TypeError, match=f"{named} of {jnp.dtype(dtype).name}"):
            lipschitz_certify(given, rows, y, sound=True)
    with pytest.raises(TypeError, match=f"arithmetic of {jnp.dtype(dtype).name}"):
        lipschitz_certify(net.replace(dtype=jnp.dtype(dtype)), x, y)
    # the constant is of the numbers that the weights are
    assert lipschitz_constant(net.replace(params=w.astype(dtype)), x) >= np.linalg.norm(np.asarray(w.astype(dtype), np.float64), 2)
    with pytest.raises(ValueError, match="weights pass through bfloat16"):
        lipschitz_constant(net_of(lambda p, x: x @ p.astype(jnp.bfloat16).astype(jnp.float32), jnp.eye(2)), np.ones((1, 2), np.float32))


def test_statistics_that_may_shrink_bound_nothing():
    """BatchNorm without a scale divides by a deviation, 1 at first, that training makes small."""

    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=not train, use_scale=False, use_bias=False)(MaxMin()(AOLDense(4)(x)))
            return AOLDense(3)(x)

    x = jnp.ones((2, 6))
    with pytest.raises(ValueError, match="Lipschitz constant is at most 1 whatever its weights"):
        LipschitzMargin().check(net_of(Normed(), x=x, key=jax.random.key(0)), x)


def test_rounding_inside_of_the_net_is_taken_off():
    net = net_of(lambda p, x: (x @ p + 1e6) - 1e6, jnp.eye(2))
    x, y = np.array([[0.0, 0.0314]], np.float32), np.array([1])
    assert np.argmax(net(jnp.array([[0.0, 0.0310]]))) == 0  # so no radius above 0.0004 holds of the float32 program
    assert lipschitz_certify(net, x, y, sound=True)[0] == 0
    assert lipschitz_certify(net, x, y)[0] == pytest.approx(0.0222, rel=1e-2)  # of the real function
    assert 4 < lipschitz_certify(net, x + np.array([[0, 9]], np.float32), y, sound=True)[0] < 9.03 / math.sqrt(2)


def test_rounding_is_bounded_of_every_kind_of_operation():
    """Against float64, with sums that cancel, so that the error is far above that of the logits' own size."""

    def fn(p, x):
        v = lax.conv_general_dilated(x, p["k"], (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        v = jax.nn.relu((v + 300 * p["b"]) - 299 * p["b"]) / p["d"]
        v = jnp.tanh(nn.avg_pool(v, (2, 2), (1, 2), ((0, 1), (0, 0)))) + jnp.clip(jnp.sum(v, axis=2, keepdims=True) * 0.01, -0.5, 2)
        return v.reshape(len(x), -1) @ p["w"] + 1

    r = np.random.default_rng(0)
    params = {
        "k": r.normal(size=(3, 3, 2, 4)),
        "b": r.normal(size=(1, 1, 1, 4)),
        "d": r.uniform(1, 2, (1, 1, 1, 4)),
        "w": r.normal(size=(64, 3)),
    }
    params = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params)
    net = net_of(fn, params)
    _, slope, offset = module._walked(net, IMAGES).growth
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda w: jnp.asarray(np.asarray(w, np.float64)), params)
        exact = np.asarray(fn(wide, jnp.asarray(np.asarray(IMAGES, np.float64))))
    error = np.linalg.norm(np.asarray(net(IMAGES), np.float64) - exact, axis=1)
    bound = slope * np.linalg.norm(np.asarray(IMAGES).reshape(3, -1), axis=1) + offset
    assert (error <= bound).all() and (error > 4e-6 * np.abs(exact).max(1)).any() and (bound < 1e4 * error).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_that_overlap_count_an_element_as_often_as_it_is_in_one(stride):
    # a large element, which every window that holds it picks
    x = jnp.zeros((1, 9, 2)).at[0, 4].set(1)

    def pooled(start, op):
        return lambda p, x: (lax.reduce_window(x, start, op, (1, 3, 1), (1, stride, 1), "VALID") * p).reshape(len(x), -1)

    for fn, tight in ((pooled(-np.inf, lax.max), 1 + 1e-5), (pooled(0.0, lax.add), 1.25)):
        jacobian = np.asarray(jax.jit(jax.jacobian(fn, 1))(jnp.float32(1), x), np.float64).reshape(-1, 18)
        true = np.linalg.norm(jacobian, 2)
        assert true <= lipschitz_constant(net_of(fn, jnp.float32(1)), x) <= true * tight


def test_repeating_a_value_lengthens_it():
    def fn(p, x):
        return jnp.broadcast_to((x @ p)[:, None], (len(x), 4, 3)).reshape(len(x), -1)

    jacobian = np.asarray(jax.jit(jax.jacobian(fn, 1))(jnp.eye(6, 3), jnp.asarray(X[:1])), np.float64).reshape(12, 6)
    assert np.linalg.norm(jacobian, 2) == pytest.approx(2) and 2 <= lipschitz_constant(net_of(fn, jnp.eye(6, 3)), X) <= 2 * (1 + 1e-5)


def test_a_net_that_can_grow_is_refused_however_small_it_is_now():
    x = jnp.asarray(X)
    zeros = {"a": jnp.eye(6, 3), "b": jnp.zeros((3, 3))}
    for fn, params in (
        (lambda p, x: x @ p, 0.1 * jnp.eye(6, 3)),
        (lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], zeros),
        (lambda p, x: x / p[None], jnp.full(6, 10.0)),
    ):
        with pytest.raises(ValueError, match="whatever its weights"):
            LipschitzMargin().check(net_of(fn, params), x)
    LipschitzMargin(normalise=True).check(net_of(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], zeros), x)
    scaled = net_of(lambda p, x: (x @ p["w"]) * p["s"], {"w": jnp.eye(6, 3), "s": jnp.float32(0.1)})
    divided = net_of(lambda p, x: (x @ p["w"]) / p["s"], {"w": jnp.eye(6, 3), "s": jnp.float32(9)})
    for net in (scaled, divided):
        with pytest.raises(ValueError, match="grows with other weights"):
            LipschitzMargin(normalise=True).check(net, x)


def test_what_is_no_number_or_does_not_fit_is_refused():
    def linear(params, x):
        return x @ params

    x, y, eye = np.asarray(X[:3, :3]), np.array([0, 1, 2]), net_of(linear, jnp.eye(3))
    for bad in (jnp.full((3, 3), jnp.nan), jnp.eye(3).at[0, 0].set(jnp.inf)):
        for ask in (
            lambda net: lipschitz_constant(net, x),
            lambda net: lipschitz_certify(net, x, y),
            lambda net: LipschitzMargin().check(net, x),
        ):
            with pytest.raises(ValueError, match="NaN or infinite values"):
                ask(net_of(linear, bad))

    def conv(params, x):
        y = lax.conv_general_dilated(x, params["k"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean(jax.nn.relu(y), axis=(1, 2)) + params["b"][None]

    pictures = jnp.ones((1, 40, 40, 1))
    with pytest.raises(ValueError, match="NaN or infinite values"):
        lipschitz_constant(net_of(conv, {"k": jnp.full((3, 3, 1, 2), -jnp.inf), "b": jnp.zeros(2)}), pictures)
    with pytest.raises(ValueError, match="no finite Lipschitz constant or rounding"):
        lipschitz_constant(net_of(lambda p, x: x + p, jnp.full((1, 3), jnp.nan)), x)
    for constant in (-1.0, 0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="above 0 and finite"):
            lipschitz_certify(eye, x, y, constant=constant)
    with pytest.raises(ValueError, match="div by a value with a zero in it"):
        lipschitz_constant(net_of(lambda p, x: x / p, jnp.array([[0.0, 1.0, 1.0]])), x)
    for rows, labels, word in (
        (x, [0, 1, 5], "labels from 0 to 5"),
        (x, [0, 1], "needed: x"),
        (x[:, :2], y, "rows of shape"),
        (x * np.nan, y, "NaN"),
    ):
        with pytest.raises(ValueError, match=word):
            lipschitz_certify(eye, rows, np.array(labels))
    with pytest.raises(ValueError, match=r"does not take rows of shape \(2,\)"):
        lipschitz_constant(eye, x[:, :2])
