"""Multipliers of branch and bound: what they may add to a bound, and what they may not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound._backward import dotted
from jaxsec.bound._beta import Subproblem, multipliers, optimised, started, value
from jaxsec.bound._beta_cuts import child
from jaxsec.bound._crown import tightened
from jaxsec.bound._lines import carried
from jaxsec.bound._run import box_problem
from jaxsec.core import Model

SIZES = (3, 6, 6, 2)


def layers(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b[None])
    return x @ params[-1][0] + params[-1][1][None]


@pytest.fixture(autouse=True)
def _as_the_engine_runs():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def net() -> Model:
    r = np.random.default_rng(3)
    params = [
        (jnp.asarray(r.normal(size=(a, b)) / np.sqrt(a), jnp.float32), jnp.asarray(r.normal(size=b) * 0.3, jnp.float32))
        for a, b in itertools.pairwise(SIZES)
    ]
    return jaxsec.bind(layers, params)


def problem(net: Model, sound: bool = False):
    return box_problem(
        net, (3,), -jnp.ones(3), jnp.ones(3), jnp.asarray([[1.0, -1.0]]), jnp.zeros(1), sound=sound, rows=1, budget=1 << 26, native=False
    )


def start(p) -> Subproblem:
    ranges = tightened(p)
    return started(p, tuple(ranges[t] for t in carried(p.graph, p.out)), {})


def inside(net: Model, lane: Subproblem, n: int = 20_000) -> np.ndarray:
    """The forms' values at points of the box that keep to the lane's cuts."""
    x = np.random.default_rng(0).uniform(-1, 1, (n, 3)).astype(np.float32)
    h, kept = x, np.ones(n, bool)
    for (w, b), (lo, hi), cut in zip(net.params[:-1], lane.known, lane.cut, strict=True):
        h = h @ np.asarray(w) + np.asarray(b)
        ok = (h >= np.asarray(lo)) & (h <= np.asarray(hi)) | ~np.asarray(cut)
        kept &= ok.all(1)
        h = np.maximum(h, 0)
    y = h @ np.asarray(net.params[-1][0]) + np.asarray(net.params[-1][1])
    return (y[:, 0] - y[:, 1])[kept]


def test_an_infinite_end_adds_nothing(net: Model) -> None:
    """A multiplier of `x >= -inf` is no inequality: the bound stays what it is without."""

    @jax.jit
    def both(m: jax.Array):
        p = problem(net)
        lane = start(p)
        endless = tuple((jnp.full_like(lo, -jnp.inf), jnp.full_like(hi, jnp.inf)) for lo, hi in lane.known)
        pushed = lane._replace(known=endless, above=tuple(a + m for a in lane.above), below=tuple(b + 2 * m for b in lane.below))
        added = multipliers(p, pushed)
        return [(s.form, s.at) for s in added.values()]

    for form, at in both(jnp.asarray(3.0)):
        assert (np.asarray(form) == 0).all() and (np.asarray(at) == 0).all()


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("sides", [(False, False), (True, False), (True, True)])
def test_any_multipliers_bound_what_keeps_to_the_cuts(net: Model, sides: tuple[bool, bool], sound: bool) -> None:
    @jax.jit
    def run(key: jax.Array):
        p = problem(net, sound)
        lane = start(p)
        for element, side in zip((1, 8), sides, strict=True):
            lane = child(lane, jnp.asarray(element), jnp.asarray(0.0), side)
        best, _ = optimised(p, lane, 15)
        draws = []
        for k in jax.random.split(key, 6):
            a, b = jax.random.split(k)
            push = [tuple(c * 2 * jax.random.uniform(q, c.shape)[None] for c in lane.cut) for q in (a, b)]
            draws.append(value(p, lane._replace(above=push[0], below=push[1])))
        return lane, value(p, lane), best, jnp.stack(draws)

    lane, plain, best, draws = run(jax.random.key(1))
    least = inside(net, lane).min()
    assert float(plain[0]) <= float(best[0]) <= least + 1e-5
    assert (np.asarray(draws) <= least + 1e-5).all()


def test_multipliers_win_something(net: Model) -> None:
    """Without the inequality of its cut a subproblem is bounded worse: the multipliers do move."""

    @jax.jit
    def run():
        p = problem(net)
        lane = child(start(p), jnp.asarray(8), jnp.asarray(0.0), True)
        held = lane._replace(cut=tuple(jnp.zeros_like(c) for c in lane.cut))
        return optimised(p, lane, 30)[0], optimised(p, held, 30)[0]

    free, held = run()
    assert float(free[0]) > float(held[0]) + 1e-3


def test_a_sum_has_its_derivative_at_zero_coefficients() -> None:
    """Slopes and multipliers start at 0, where `0 * inf = 0` must not hide what moving them would do."""
    v = jnp.asarray([2.0, jnp.inf, -jnp.inf, -3.0])
    a = jnp.asarray([[0.0, 0.0, 0.0, 1.0]])
    assert float(dotted(a, v)[0]) == -3.0
    np.testing.assert_array_equal(jax.grad(lambda a: dotted(a, v)[0])(a)[0], [2.0, 0.0, 0.0, -3.0])
    assert float(dotted(a.at[0, 1].set(-1.0), v)[0]) == -np.inf
