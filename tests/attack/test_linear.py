"""On linear models the smallest adversarial distance is known in closed form; every attack must reach it and none may pass it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec

D, K, N = 20, 4, 8


def linear(params, x):
    return x @ params["w"] + params["b"][None]


@pytest.fixture(scope="module")
def problem():
    r = np.random.default_rng(0)
    params = {"w": jnp.asarray(r.normal(size=(D, K)), jnp.float32), "b": jnp.asarray(r.normal(size=K) * 0.1, jnp.float32)}
    x = r.normal(size=(N, D)).astype(np.float32)
    z = x @ np.asarray(params["w"]) + np.asarray(params["b"])
    return jaxsec.bind(linear, params), x, z.argmax(axis=1).astype(np.int32)


def closed_form(model, x, y, norm):
    """min over classes of (z_y - z_t) / |w_t - w_y|_dual: the distance to the nearest hyperplane, no box."""
    w, b = np.asarray(model.params["w"], np.float64), np.asarray(model.params["b"], np.float64)
    out = np.full(len(x), np.inf)
    order = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    for i in range(len(x)):
        for t in range(w.shape[1]):
            if t != y[i]:
                d = w[:, y[i]] - w[:, t]
                out[i] = min(out[i], (x[i] @ d + b[y[i]] - b[t]) / np.linalg.norm(d, order))
    return out


BALL = {"linf": jaxsec.LInf, "l2": jaxsec.L2, "l1": jaxsec.L1}


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("targets", [0, 3])
def test_fab_finds_the_minimal_distance(problem, norm, targets):
    model, x, y = problem
    exact = closed_form(model, x, y, norm)
    threat = BALL[norm](eps=jnp.asarray(exact * 1.5 + 1e-3, jnp.float32))
    # rounds of FAB-T stop helping a row once it is broken by an earlier target, so minimality is for the nearest-class form
    r = jaxsec.attack(model, x, y, threat=threat, method=jaxsec.FAB(steps=30, targets=targets), key=jax.random.key(0))
    assert bool(r.success.all())
    d = np.asarray(r.distance)
    assert (d >= exact * (1 - 1e-5)).all()
    if not targets:
        np.testing.assert_allclose(d, exact, rtol=2e-3)


# Untargeted losses follow the likeliest class, which need not be the nearest, so their case has two classes; targeted ones have four.
STRONG = {
    # a constant step of 2.5 eps / 60 cannot stop within 2 % of the surface's best point; a shrinking one can
    "pgd-margin": (jaxsec.PGD(steps=60, loss="margin", schedule="cosine", random_start=False), ("linf", "l2"), 2),
    "apgd-ce": (jaxsec.APGD(steps=60), ("linf", "l2", "l1"), 2),
    "apgd-t": (jaxsec.APGD(steps=60, targets=3), ("linf", "l2", "l1"), 4),
    "fab-t": (jaxsec.FAB(steps=30, targets=3), ("linf", "l2", "l1"), 4),
}


@pytest.mark.parametrize(("name", "norm"), [(n, p) for n, (_, norms, _) in STRONG.items() for p in norms])
def test_attacks_succeed_just_above_the_minimal_distance_and_never_below(problem, name, norm):
    model, x, y = problem
    method, _, classes = STRONG[name]
    if classes == 2:
        model = jaxsec.bind(linear, {"w": model.params["w"][:, :2], "b": model.params["b"][:2]})
        y = np.asarray(model(jnp.asarray(x))).argmax(axis=1).astype(np.int32)
    exact = closed_form(model, x, y, norm)
    for factor, expected in ((1.02, True), (0.99, False)):
        threat = BALL[norm](eps=jnp.asarray(exact * factor, jnp.float32))
        r = jaxsec.attack(model, x, y, threat=threat, method=method, key=jax.random.key(0))
        assert np.array_equal(np.asarray(r.success), np.full(N, expected)), (factor, np.asarray(r.distance) / exact)


def test_fgsm_is_exact_for_two_classes_linf(problem):
    model, x, _ = problem
    two = jaxsec.bind(linear, {"w": model.params["w"][:, :2], "b": model.params["b"][:2]})
    y = np.asarray(two(jnp.asarray(x))).argmax(axis=1).astype(np.int32)
    w = np.asarray(two.params["w"], np.float64)
    exact = np.abs(x @ (w[:, 0] - w[:, 1]) + float(two.params["b"][0] - two.params["b"][1])) / np.abs(w[:, 0] - w[:, 1]).sum()
    for factor, expected in ((1.001, True), (0.999, False)):
        r = jaxsec.attack(
            two, x, y, threat=jaxsec.LInf(eps=jnp.asarray(exact * factor, jnp.float32)), method=jaxsec.FGSM(), key=jax.random.key(0)
        )
        assert np.array_equal(np.asarray(r.success), np.full(N, expected))
