"""Models that mix the rows of a batch get no bounds; others do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound import UnsupportedPrimitive

RNG = np.random.default_rng(0)
X, W = RNG.uniform(0.2, 0.8, (9, 4)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)
LINF = jaxsec.LInf(eps=0.05, lo=0.0, hi=1.0)

MIXING = {
    "reversed": lambda w, x: x @ w + 0.8 * (x @ w)[::-1],
    "rolled": lambda w, x: x @ w + jnp.roll(x @ w, 2, axis=0),
    "batch mean": lambda w, x: x @ w + 1e-3 * jnp.mean(x @ w, axis=0, keepdims=True),
    "saturated": lambda w, x: x @ w + jnp.tanh(jnp.cumsum(x @ w, axis=0)),
    "batch statistics": lambda w, x: (x @ w - jnp.mean(x @ w, axis=0, keepdims=True)) / (jnp.std(x @ w, axis=0, keepdims=True) + 1),
    "behind a large offset": lambda w, x: 1e4 + x @ w + 0.1 * jnp.tanh(jnp.cumsum(x @ w, axis=0) - x @ w),
    "softmax of the batch": lambda w, x: jax.nn.softmax(x @ w, axis=0),
}
APART = {
    "plain": lambda w, x: x @ w,
    "unbounded": lambda w, x: jnp.exp(x @ w),
    "normalised": lambda w, x: jax.nn.softmax((x - jnp.mean(x, axis=1, keepdims=True)) @ w),
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("n", [1, 9])
def test_what_mixes_rows_is_refused(name, n):
    model = jaxsec.bind(MIXING[name], W)
    y = np.asarray(model(X[:n])).argmax(axis=1)
    for ask in (lambda: jaxsec.certify(model, X[:n], y, threat=LINF), lambda: jaxsec.bound(model, (LINF, X[:n]))):
        with pytest.raises(UnsupportedPrimitive, match="depends on the other rows"):
            ask()


@pytest.mark.parametrize("door", ["bound", "certify"])
@pytest.mark.parametrize("name", ["rolled", "plain"])
def test_it_is_asked_where_rows_are_traced(name, door):
    model = jaxsec.bind((MIXING | APART)[name], W)

    def ask(x):
        if door == "bound":
            return jaxsec.bound(model, (LINF, x), method=jaxsec.IBP()).lo
        return jaxsec.certify(model, x, jnp.zeros(len(x), int), threat=LINF, method=jaxsec.IBP()).margin

    if name == "plain":
        np.testing.assert_allclose(jax.jit(ask)(X), ask(X), rtol=1e-5, atol=1e-6)
        return
    with pytest.raises(UnsupportedPrimitive, match="depends on the other rows"):
        jax.jit(ask)(X)


@pytest.mark.parametrize("name", APART)
@pytest.mark.parametrize("n", [0, 1, 9])
def test_others_are_bounded(name, n):
    model = jaxsec.bind(APART[name], W)
    found = jaxsec.bound(model, (LINF, X[:n]))
    assert np.all(found.lo <= model(X[:n])) and np.all(model(X[:n]) <= found.hi)
    jaxsec.certify(model, X[:n], np.zeros(n, int), threat=LINF)


def test_it_is_bounded_where_only_the_budget_is_traced():
    def ask(eps):
        return jaxsec.bound(jaxsec.bind(APART["plain"], W), (jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), X), method=jaxsec.IBP()).lo

    np.testing.assert_allclose(jax.jit(ask)(0.05), ask(0.05), rtol=1e-6)


@pytest.mark.parametrize("rows", ["traced", "eager"])
def test_weights_that_a_model_closes_over_may_be_traced(rows):
    def behind(f):
        return jaxsec.bind(lambda _, v: f(v), ())

    def ask(w, x):
        return jaxsec.bound(behind(lambda v: v @ w), (x, x + 0.1), method=jaxsec.IBP()).lo

    found = jax.jit(ask)(W, X) if rows == "traced" else jax.jit(lambda w: ask(w, X))(W)
    np.testing.assert_allclose(found, jaxsec.bound(jaxsec.bind(APART["plain"], W), (X, X + 0.1), method=jaxsec.IBP()).lo, rtol=1e-5)


def test_what_is_no_row_is_told_as_ever():
    model = jaxsec.bind(APART["plain"], W)
    for x, error, said in (
        (np.where(X > 0.7, np.nan, X), ValueError, "NaN or infinite"),
        ((255 * X).astype(np.uint8), TypeError, "floating values are needed"),
    ):
        with pytest.raises(error, match=said):
            jaxsec.certify(model, x, np.zeros(len(x), int), threat=LINF)
    assert np.isinf(jaxsec.bound(model, (X, np.full_like(X, np.inf)), method=jaxsec.IBP()).hi).any()
