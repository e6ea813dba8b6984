"""Numbers near the ends of float32: limits that say "none", ends that overflow, comparisons of what is not known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound import CROWN, IBP, BoundMethod, ForwardLinear, bound

METHODS = pytest.mark.parametrize("method", [IBP(), CROWN()], ids=["ibp", "crown"])
SOUND = pytest.mark.parametrize("sound", [False, True], ids=["default", "sound"])


def contains(found, values, room: float = 0.0) -> None:
    lo, hi, values = np.asarray(found.lo), np.asarray(found.hi), np.asarray(values)
    assert np.all(lo <= values.min(0) + room) and np.all(hi >= values.max(0) - room), (lo, hi, values)


@METHODS
@SOUND
@pytest.mark.parametrize("t", [1e32, 3.0e38, 1e12])
def test_a_limit_that_values_reach_limits(t: float, method: BoundMethod, sound: bool) -> None:
    """1e32 is more than 2^100, and min(x, 1e32) is not x where x is 1.9e32."""
    grid = jnp.linspace(-1.9, 1.9, 39)[:, None]
    for scale, fn in (
        (1.0, lambda x: jnp.minimum(x * t, t) / t),
        (1.0, lambda x: jnp.maximum(x * t, -t) / t),
        (0.5, lambda x: jnp.clip(x * t, -t, t) / t),
    ):
        box = (jnp.full(1, -1.9 * scale), jnp.full(1, 1.9 * scale)) if t < 1e38 else (jnp.full(1, -1.1 * scale), jnp.full(1, 1.1 * scale))
        contains(bound(fn, box, method=method, sound=sound), jax.vmap(fn)(jnp.clip(grid, box[0][None], box[1][None])), 1e-5)
    found = bound(lambda x: jnp.log(jnp.minimum(jnp.exp(x), 1e32)), (jnp.full(1, 74.0), jnp.full(1, 80.0)), method=method, sound=sound)
    assert found.lo[0] <= np.log(1e32) * (1 + 1e-6) <= found.hi[0] * (1 + 2e-6)


def test_a_limit_that_no_value_reaches_costs_nothing() -> None:
    """The lines are those without it: CROWN sees that x cancels."""
    box = (jnp.full(1, -3.0), jnp.full(1, 3.0))
    for t in (1e12, 1e32, float(np.finfo(np.float32).max), np.inf):
        found = bound(lambda x, t=t: jnp.clip(x, -t, t) - x, box, method=CROWN())
        np.testing.assert_allclose(np.asarray([found.lo, found.hi]), 0, atol=1e-5)


@SOUND
def test_no_certificate_where_a_limit_decides(sound: bool) -> None:
    model = jaxsec.bind(lambda _, x: jnp.concatenate([jnp.minimum(x * 1e32, 1e32) * 1e-32, x - 0.5], 1), jnp.zeros(()))
    x, y = jnp.ones((1, 1)), jnp.zeros(1, int)
    assert int(jnp.argmax(model(x + 0.9))) == 1
    assert not jaxsec.certify(model, x, y, threat=jaxsec.LInf(eps=0.9), method=CROWN(), sound=sound).robust[0]


@pytest.mark.parametrize("inner", [jnp.abs, jax.nn.relu, jnp.square, lambda v: jnp.maximum(v, 2.0), lambda v: v + v], ids=range(5))
@pytest.mark.parametrize("method", [IBP(), CROWN(), ForwardLinear()], ids=["ibp", "crown", "forward"])
def test_an_end_that_overflows_decides_no_comparison(inner, method: BoundMethod) -> None:
    """exp(60 x) 1e30 is infinite in float32, its error too, and their difference is no number: the condition is true all the same."""

    def fn(x: jax.Array) -> jax.Array:
        return jnp.where(inner(jnp.exp(60 * x) * 1e30) > 1, x, x + 5)

    box = (jnp.full(1, 1.1), jnp.full(1, 1.3))
    for sound in (False, True):
        contains(bound(fn, box, method=method, sound=sound), jnp.stack(box), 1e-5)


@METHODS
@SOUND
def test_bounds_of_what_overflows_are_never_nan(method: BoundMethod, sound: bool) -> None:
    found = bound(lambda x: jax.nn.relu6(jax.nn.relu(x * 1e30 * 1e30)), (jnp.full(1, 0.5), jnp.ones(1)), method=method, sound=sound)
    assert not np.isnan(np.asarray([found.lo, found.hi])).any() and found.lo[0] <= 6 <= found.hi[0]


def test_an_end_that_overflows_inward_is_no_less_uncertain_further_on() -> None:
    """Exactly 22.3 to 23.03, and 0.5 to 0.6: intervals must not take 5e39 for infinity on the way there."""
    box = (jnp.full(1, 0.5), jnp.ones(1))
    found = bound(lambda x: jnp.log(jnp.maximum(x * 1e30, 0) * 1e10 * 1e-30), box, method=IBP())
    assert found.lo[0] <= 22.3 and found.hi[0] >= 23.03
    found = bound(lambda x: jnp.minimum(x * 1e30 * 1e10 * 1e-30 * 1e-10, 0.6), box, method=IBP())
    assert found.lo[0] <= 0.5 and found.hi[0] >= 0.6 * (1 - 1e-6)
