"""ForwardLinear against its own recurrences in float64, against exact answers and samples, next to the other methods."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound import CROWN, IBP, ForwardLinear, bound

R = np.random.default_rng(0)
SIZES = (5, 14, 14, 3)
LAYERS = [(R.normal(size=(a, b)) / np.sqrt(a), R.normal(size=b) / 4) for a, b in itertools.pairwise(SIZES)]
PARAMS = [(jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32)) for w, b in LAYERS]


def dense(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b[None])
    return x @ params[-1][0] + params[-1][1][None]


def by_hand(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """[K] the recurrences of forward mode for a dense ReLU network, one layer after the other, in float64.

    Each layer has its linear functions [D, n] below and above; ranges are theirs and those of intervals, whichever is narrower.
    """
    n = len(lo)
    low, high, low_at, high_at = np.eye(n), np.eye(n), np.zeros(n), np.zeros(n)
    a, b = lo, hi
    for i, (w, bias) in enumerate(LAYERS):
        p, m = np.maximum(w, 0), np.minimum(w, 0)
        low, high, low_at, high_at = (
            low @ p + high @ m,
            high @ p + low @ m,
            low_at @ p + high_at @ m + bias,
            high_at @ p + low_at @ m + bias,
        )
        least = np.where(low > 0, low * lo[:, None], low * hi[:, None]).sum(0) + low_at
        most = np.where(high > 0, high * hi[:, None], high * lo[:, None]).sum(0) + high_at
        a, b = np.maximum(a @ p + b @ m + bias, least), np.minimum(b @ p + a @ m + bias, most)
        if i == len(LAYERS) - 1:
            return a
        up, down = a >= 0, b <= 0
        chord = np.where(up, 1.0, np.where(down, 0.0, b / np.where(up | down, 1.0, b - a)))
        at = np.where(up | down, 0.0, -a * chord)
        turned = np.where(up, 1.0, np.where(down, 0.0, (b > -a) * 1.0))
        low, low_at, high, high_at = low * turned, low_at * turned, high * chord, high_at * chord + at
        a, b = np.maximum(a, 0), np.maximum(b, 0)
    raise AssertionError


@pytest.mark.parametrize("width", [0.02, 0.2, 1.0])
def test_the_recurrences_of_a_dense_network(width: float) -> None:
    centre = R.normal(size=5)
    lo, hi = centre - width, centre + width
    found = bound(lambda x: dense(PARAMS, x[None])[0], (jnp.asarray(lo, jnp.float32), jnp.asarray(hi, jnp.float32)), method=ForwardLinear())
    np.testing.assert_allclose(found.lo, by_hand(lo, hi), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "threat", [jaxsec.LInf(eps=0.3), jaxsec.L2(eps=0.3), jaxsec.L1(eps=0.3), jaxsec.L2(eps=0.3, lo=0.0, hi=1.0)], ids=str
)
def test_affine_maps_are_bounded_exactly(threat: jaxsec.Threat) -> None:
    x = np.clip(R.uniform(size=(4, 5)), 0.05, 0.95).astype(np.float32)
    w = R.normal(size=(5, 3)).astype(np.float32)
    threat = threat.canonical(jnp.asarray(x))

    def affine(w, x):
        y = x @ w
        return jnp.concatenate([y - jnp.flip(y, 1) * 2 + 1, jnp.cumsum(y, 1)], 1)

    found = bound(jaxsec.bind(affine, jnp.asarray(w)), (threat, jnp.asarray(x)), method=ForwardLinear())
    slopes = jax.jacobian(lambda v: affine(w, v[None])[0])(jnp.zeros(5))
    at = np.asarray(affine(w, jnp.zeros((1, 5))))
    forms = jnp.broadcast_to(slopes, (4, 6, 5))
    np.testing.assert_allclose(found.hi, threat.support(jnp.asarray(x), forms) + at, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.lo, -threat.support(jnp.asarray(x), -forms) + at, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_between_intervals_and_crown(norm: str) -> None:
    """On dense networks: never looser than IBP, below every sample, on average looser than CROWN and much tighter than IBP."""
    threat = {"linf": jaxsec.LInf(eps=0.1), "l2": jaxsec.L2(eps=0.15), "l1": jaxsec.L1(eps=0.2)}[norm]
    x = jnp.asarray(R.normal(size=(16, 5)), jnp.float32)
    model = jaxsec.bind(dense, PARAMS)
    ibp, forward, crown = (bound(model, (threat, x), method=m) for m in (IBP(), ForwardLinear(), CROWN()))
    assert (forward.lo >= ibp.lo - 1e-5).all() and (forward.hi <= ibp.hi + 1e-5).all()
    widths = [float(jnp.mean(v.hi - v.lo)) for v in (ibp, forward, crown)]
    assert widths[2] < widths[1] < 0.8 * widths[0], widths
    ball = threat.canonical(x)
    for i in range(20):
        y = model(ball.sample_boundary(jax.random.key(i), x))
        assert (y >= forward.lo - 1e-5).all() and (y <= forward.hi + 1e-5).all()


def test_several_arguments_and_products() -> None:
    """(x - y) y + |x| over two boxes, on a grid."""
    box = (jnp.array([-1.0]), jnp.array([0.5])), (jnp.array([2.0]), jnp.array([1.0]))

    def fn(x, y):
        return jnp.abs(x) + (x - y) * y

    found = bound(fn, box, method=ForwardLinear())
    x, y = np.meshgrid(np.linspace(-1, 2, 101), np.linspace(0.5, 1, 101))
    value = np.abs(x) + (x - y) * y
    assert value.min() - 1.5 < float(found.lo[0]) <= value.min() and value.max() <= float(found.hi[0]) < value.max() + 1.5


def test_gradients_of_weights_and_budgets() -> None:
    x = jnp.asarray(R.normal(size=(3, 5)), jnp.float32)

    def loss(params, eps):
        return jnp.sum(bound(jaxsec.bind(dense, params), (jaxsec.LInf(eps=eps), x), method=ForwardLinear()).lo)

    eps = jnp.array([0.1, 0.05, 0.2])
    to_params, to_eps = jax.jit(jax.grad(loss, (0, 1)))(PARAMS, eps)
    assert (to_eps < 0).all()
    step = 1e-3
    ahead, behind = (loss(PARAMS, eps + s) for s in (step, 0.0))
    assert abs((ahead - behind) / step - to_eps.sum()) < 0.05 * abs(to_eps.sum())
    direction = jax.tree.map(jnp.sign, to_params)
    ahead, behind = (loss(jax.tree.map(lambda p, d, s=s: p + s * d, PARAMS, direction), eps) for s in (step, -step))
    expected = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(to_params), jax.tree.leaves(direction), strict=True))
    assert abs(float(ahead - behind) / (2 * step) - expected) < 0.05 * abs(expected)


def test_what_does_not_fit_is_refused() -> None:
    wide = jax.ShapeDtypeStruct((1000,), jnp.float32)
    box = (jnp.zeros(wide.shape), jnp.ones(wide.shape))
    with pytest.raises(ValueError, match=r"carries 1000 coefficients .* budget is 16 MiB.* CROWN\(\)"):
        bound(lambda x: jnp.sum(jnp.tanh(x)), box, method=ForwardLinear(), budget=1 << 24)
