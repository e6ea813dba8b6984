"""Where a subproblem is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound._beta import value
from jaxsec.bound._beta_cuts import best_cut, candidates, child, signs_decide, tried
from jaxsec.core import Model

from .test_beta import layers, net, problem, start  # noqa: F401  (net is a fixture)


def bent(params, x):
    return jnp.tanh(layers(params[:-1], x)) @ params[-1][0] + params[-1][1][None]


@pytest.fixture(autouse=True)
def _as_the_engine_runs():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("curved", [False, True])
def test_the_chosen_cut_has_the_best_halves(net: Model, curved: bool) -> None:  # noqa: F811
    """Of all candidates, by the bounds of both children; among kinks up to what intervals would add behind the cut."""
    p = problem(jaxsec.bind(bent, net.params) if curved else net)
    assert signs_decide(p) is not curved and tried(p) == (12 if curved else 3)

    @jax.jit
    def asked():
        lane = start(p)
        elements, _ = candidates(p, lane, value(p, lane), tried(p))

        def gain(element: jax.Array) -> jax.Array:
            at = best_cut(p, lane, element[None])[1]
            halves = jnp.stack([value(p, child(lane, element, at, up)).max() for up in (False, True)])
            return halves.min() + 0.1 * halves.max()

        return elements, *best_cut(p, lane, elements), jax.vmap(gain)(elements)

    elements, chosen, point, gained = (np.asarray(v) for v in asked())
    gains = {int(e): float(g) for e, g in zip(elements, gained, strict=True) if e >= 0}
    assert len(gains) > 1
    assert int(chosen) in gains and (curved or float(point) == 0)
    assert gains[int(chosen)] >= max(gains.values()) - (1e-6 if curved else 0.05 * np.ptp(list(gains.values())) + 1e-6)


def test_without_a_candidate_nothing_is_cut(net: Model) -> None:  # noqa: F811
    p = problem(net)
    lane = start(p)
    chosen, _ = best_cut(p, lane, jnp.full(3, -1))
    assert int(chosen) == -1
    same = child(lane, chosen, jnp.zeros(()), True)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(lane), strict=True))
