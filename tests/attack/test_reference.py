"""`reference=True` is the published code: iterate by iterate on traces that this code left (see `published/make_traces.py`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.attack._problem import Problem
from jaxsec.core import losses
from jaxsec.threat import L1, L2, LInf

CASES = {
    "linf-ce": (LInf(eps=0.05, lo=0.0, hi=1.0), jaxsec.APGD(steps=50, reference=True)),
    "linf-dlr": (LInf(eps=0.05, lo=0.0, hi=1.0), jaxsec.APGD(steps=50, loss="dlr", reference=True)),
    "linf-t": (LInf(eps=0.05, lo=0.0, hi=1.0), jaxsec.APGD(steps=50, targets=1, reference=True)),
    "l2-ce": (L2(eps=0.2, lo=0.0, hi=1.0), jaxsec.APGD(steps=50, reference=True)),
    "l1-ce": (L1(eps=0.8, lo=0.0, hi=1.0), jaxsec.APGD(steps=50, reference=True)),
    "l1-large": (L1(eps=0.8, lo=0.0, hi=1.0), jaxsec.APGD(steps=50, large_eps=True, reference=True)),
}


@pytest.fixture(scope="module")
def traces():
    with np.load(Path(__file__).parent / "published" / "traces.npz") as file:
        return dict(file)


def net(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]


def replay(case, traces, **changes):
    """Best objective after each evaluation [steps + 1, B], and what the method returns, from the published start."""
    threat, method = CASES[case]
    method = method.replace(**changes)
    x0, noise = jnp.asarray(traces["x"]), jnp.asarray(traces["noise"])
    fitted, _ = method.fit(6, (20,), threat.norm)

    class Start(type(threat)):
        def sample_boundary(self, keys, x):
            if self.norm == "linf":
                return self._unit_moved(x, noise / jnp.max(jnp.abs(noise), axis=1, keepdims=True))
            if self.norm == "l2":
                return self._unit_moved(x, noise / jnp.linalg.norm(noise, axis=1, keepdims=True))
            return self.project(x, x + noise)

    jax.tree_util.register_pytree_node(Start, lambda t: ((t.eps, t.lo, t.hi), None), lambda _, v: Start(eps=v[0], lo=v[1], hi=v[2]))
    model = jaxsec.bind(net, {k: jnp.asarray(traces[k]) for k in "abc"})
    problem = Problem(
        model=model, x0=x0, y=jnp.asarray(traces["y"], jnp.int32), threat=Start(eps=threat.eps, lo=0.0, hi=1.0).canonical(x0),
        keys=jax.random.split(jax.random.key(0), 16), n_classes=6,
    )  # fmt: skip
    state = fitted.init(problem, 0)

    def step(state, i):
        state = fitted.step(problem, state, i)
        return state, state.track.loss

    end, after = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(fitted.total_steps)))(state)
    return np.concatenate([np.asarray(state.track.loss)[None], np.asarray(after)]), fitted.finish(problem, end)


def deviation(case, traces, **changes):
    """[B] largest difference between the two traces of best objectives, and what the method returned."""
    best, found = replay(case, traces, **changes)
    return np.abs(best - traces[f"{case}/best_so_far"]).max(axis=0), found


@pytest.mark.parametrize("case", ["linf-ce", "linf-t", "l2-ce"])
def test_iterates_are_those_of_the_published_code(case, traces):
    """Every objective of every row, to rounding; and the returned input is its last misclassified iterate."""
    off, found = deviation(case, traces)
    assert off.max() < 1e-4
    broken = ~traces[f"{case}/right"]
    np.testing.assert_array_equal(np.asarray(found.success), broken)
    returned = np.abs(np.asarray(found.x) - traces[f"{case}/x_adv"]).max(axis=1)[broken]
    assert np.mean(returned < 1e-4) >= 0.8  # near the end an iterate may be wrong by a hair in one code only


def test_dlr_follows_the_published_code_until_it_is_chaotic(traces):
    """On two broken rows the ratio's denominator nearly vanishes: rounding decides from there on."""
    off, found = deviation("linf-dlr", traces)
    assert np.sort(off)[-3] < 1e-4
    np.testing.assert_array_equal(np.asarray(found.success), ~traces["linf-dlr/right"])


@pytest.mark.parametrize("case", ["l1-ce", "l1-large"])
def test_l1_follows_the_published_code(case, traces):
    """The published count of moved elements includes rounding residues of its projection, which no other code can repeat: the
    paths differ a little, the verdicts not at all, and the ends hardly."""
    _, found = deviation(case, traces)
    np.testing.assert_array_equal(np.asarray(found.success), ~traces[f"{case}/right"])
    off = np.abs(np.asarray(found.loss) - traces[f"{case}/best"])
    assert np.median(off) < 1e-3 and off.max() < 0.05


def test_l1_counts_as_published(traces):
    """Top-k rounded up, and with large radii the sparsity of each phase's own start."""
    threat, method = CASES["l1-large"]
    x0 = jnp.asarray(traces["x"])
    model = jaxsec.bind(net, {k: jnp.asarray(traces[k]) for k in "abc"})
    keys = jax.random.split(jax.random.key(0), 16)
    problem = Problem(model=model, x0=x0, y=jnp.asarray(traces["y"], jnp.int32), threat=threat.canonical(x0), keys=keys, n_classes=6)
    moved = {}
    for reference in (True, False):
        fitted, _ = method.replace(reference=reference).fit(6, (20,), "l1")
        state = fitted.init(problem, 0)
        if reference:
            np.testing.assert_array_equal(state.nonzero, np.sum(np.asarray(state.x) != traces["x"], axis=1))
        else:
            np.testing.assert_array_equal(state.nonzero, 20.0)
        plain, _ = method.replace(reference=reference, large_eps=False).fit(6, (20,), "l1")
        # from the clean row with 5.5 elements allowed; the ball is wide, so each element that a step chose has moved
        state = plain.init(problem, 0).replace(x=x0, density=jnp.full(16, 5.5 / 20), size=jnp.full(16, 0.1))
        after = plain.step(problem, state, jnp.int32(0))
        moved[reference] = np.sum(np.asarray(after.x) != np.asarray(x0), axis=1)
    assert (moved[True] <= 6).all() and (moved[False] <= 5).all()
    assert (moved[True] == 6).sum() >= 8 and (moved[False] == 5).sum() >= 8  # fewer where the box is in the way


@pytest.mark.parametrize("case", ["linf-ce", "l2-ce"])
def test_the_default_is_another_algorithm(case, traces):
    """So the agreement above is owed to `reference`."""
    rows = traces[f"{case}/right"]  # the default stops at a success
    kept, changed = (deviation(case, traces, reference=r)[0][rows] for r in (True, False))
    assert np.sum(changed > 1e-3) > np.sum(kept > 1e-3)


def test_the_last_draw_decides_as_published(traces):
    """With several draws the published gradient is their mean, while loss and prediction are the last draw's."""

    def noisy(p, x, key):
        return net(p, x + 0.1 * jax.random.normal(key, x.shape))

    model = jaxsec.bind(noisy, {k: jnp.asarray(traces[k]) for k in "abc"}, stochastic=True)
    x0, y = jnp.asarray(traces["x"]), jnp.asarray(traces["y"], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 16)
    problem = Problem(model=model, x0=x0, y=y, threat=LInf(eps=0.1).canonical(x0), keys=keys, n_classes=6, draws=3)
    z, loss, gradient = problem.evaluate(x0, 0, "ce", last=True)
    np.testing.assert_allclose(z, problem.draw(x0, 0, 2), rtol=1e-5)
    np.testing.assert_allclose(loss, losses.cross_entropy(z, y), rtol=1e-5)
    mean, _, same = problem.evaluate(x0, 0, "ce")
    np.testing.assert_allclose(gradient, same, rtol=1e-5)
    assert np.abs(np.asarray(mean) - np.asarray(z)).max() > 0.01
