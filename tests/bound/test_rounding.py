"""What `sound=True` takes off where forms meet and where transposed sums are long."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.bound import CROWN, CROWNIBP, IBP, bound
from jaxsec.bound._graph import trace
from jaxsec.bound._nodes import Affine, Contract, Move

MANY, BIG = 400, 2.0**24


def readers(x):
    return jnp.stack([-BIG * x, *[(0.9 + 1e-6 * i) * x for i in range(MANY)], BIG * x])


@pytest.mark.parametrize("method", [IBP(), CROWNIBP(), CROWN()])
def test_parts_that_cancel_where_readers_meet_are_charged(method) -> None:
    """The forms of 402 readers of x add up to 360 x, by way of 2^24: the sum of the parts in float32 is far off."""
    spec = jnp.ones((1, MANY + 2))
    low = bound(readers, (jnp.float32(-1.0), jnp.float32(-1.0 + 1e-6)), method=method, spec=spec, sound=True)
    assert float(low[0]) <= np.asarray(readers(jnp.float32(-1.0)), np.float64).sum()


@pytest.mark.parametrize(
    ("fn", "shape", "kind", "longest"),
    [
        (lambda x: x @ jnp.ones((3, 50)), (1, 3), Contract, 50),
        (lambda x: jnp.broadcast_to(x, (30, 4)), (1, 4), Move, 30),
        (lambda x: x.reshape(2, 6), (3, 4), Move, 1),
        (lambda x: jnp.sum(x), (8,), Move, 1),
        (lambda x: jax.lax.conv_general_dilated(x, jnp.ones((5, 2, 3, 3)), (1, 1), "SAME"), (1, 2, 8, 8), Contract, 45),
    ],
)
def test_how_many_elements_one_input_element_feeds(fn, shape, kind, longest) -> None:
    graph = trace(fn, jax.ShapeDtypeStruct(shape, jnp.float32), native=False)
    nodes = [n for n in graph.nodes if isinstance(n, kind) and isinstance(n, Affine)]
    assert max(n.fan_out for n in nodes) == longest
