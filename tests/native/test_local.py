"""Local convolutions against their twins: chains, lines, empty and whole windows, moves in place, shapes that do not agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec._native import Images, Stage, local_chain, reach, settle
from jaxsec._native._local import chain_twin, inside, settle_twin

pytestmark = pytest.mark.usefixtures("native")
WINDOWS = [(0, 0, 0, 0), (0, 1, 0, 1), (7, 8, 8, 9), (2, 5, 3, 4), (0, 8, 0, 9), (6, 2, 0, 9)]


def array(r, *shape):
    return jnp.asarray(r.normal(size=shape), jnp.float32)


def operands(n=12, seed=0):
    """Images [n, 8, 9, 3]: a strided convolution with ReLU, one with uneven pads, a dense layer of lines."""
    r = np.random.default_rng(seed)
    x = Images(array(r, n, 8, 9, 3), array(r, n, 8, 9, 3), jnp.asarray([WINDOWS[i % 6] for i in range(n)], jnp.int32))
    a = Stage(array(r, n, 4, 5, 20), array(r, 4, 3, 3, 20), array(r, 20), 2, ((1, 1), (1, 1)), True)
    b = Stage(array(r, n, 5, 5, 16), array(r, 2, 2, 20, 16), array(r, 16), 1, ((0, 2), (1, 0)))
    c = Stage(array(r, n, 5, 1, 10), array(r, 5, 1, 5, 16, 10), jnp.zeros(10))
    return x, [a, b, c]


@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_chain_is_its_twin_inside_the_windows(last):
    x, stages = operands()
    settings = [s[3:] for s in stages[:last]]

    def run(chain, x, arrays):
        return chain(x, [Stage(*a, *rest) for a, rest in zip(arrays, settings, strict=True)])

    arrays = [s[:3] for s in stages[:last]]
    found, total = jax.jit(lambda x, a: run(local_chain, x, a))(x, arrays)
    wanted, sums = jax.jit(lambda x, a: run(chain_twin, x, a))(x, arrays)
    for got, (fresh, window), stage in zip(found, wanted, stages, strict=False):
        assert got.fresh.shape == stage.base.shape
        np.testing.assert_array_equal(got.window, window)
        mask = np.broadcast_to(inside(window, fresh.shape), fresh.shape)
        np.testing.assert_allclose(np.asarray(got.fresh)[mask], np.asarray(fresh)[mask], rtol=1e-4, atol=2e-4)
    if last == 3:
        np.testing.assert_allclose(total, sums, rtol=1e-4, atol=5e-4)


def test_a_value_does_not_depend_on_window_or_batch():
    x, stages = operands()
    whole = Images(x.fresh, x.fresh, jnp.broadcast_to(jnp.asarray(WINDOWS[4], jnp.int32), (12, 4)))
    changed = Images(x.base, x.merged(), x.window)
    before = [Stage(jnp.zeros_like(s.base), *s[1:]) for s in stages]
    known, _ = local_chain(Images(x.base, x.base, whole.window), before)
    stages = [Stage(k.fresh, *s[1:]) for s, k in zip(stages, known, strict=True)]
    _, total = local_chain(changed, stages)
    _, again = local_chain(Images(changed.fresh, changed.fresh, whole.window), before)
    np.testing.assert_array_equal(total, again)
    for i in (0, 3, 5):
        _, one = local_chain(Images(*(a[i : i + 1] for a in changed)), [Stage(s.base[i : i + 1], *s[1:]) for s in stages])
        np.testing.assert_array_equal(one[0], total[i])


def test_settle_moves_the_windows_of_accepted_rows():
    x, _ = operands()
    accept = jnp.arange(12) % 2 == 1
    for run in (settle, jax.jit(settle)):
        copies = [Images(*(jnp.array(a) for a in x)), Images(x.fresh[:, :, :, :1] + 0, x.base[:, :, :, :1] + 0, x.window + 0)]
        wanted = settle_twin(copies, accept)
        for got, want in zip(run(copies, accept), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_vmap_runs_one_by_one():
    (a, stages), (b, _) = operands(), operands(seed=1)
    both = jax.tree.map(lambda u, v: jnp.stack([u, v]), a, b)
    _, totals = jax.jit(jax.vmap(lambda x: local_chain(x, stages)))(both)
    for x, total in zip((a, b), totals, strict=True):
        np.testing.assert_array_equal(total, local_chain(x, stages)[1])


def test_the_targets_check_their_shapes():
    x, (a, b, _) = operands()
    with pytest.raises(Exception, match="do not agree"):
        jax.block_until_ready(local_chain(x, [b])[0][0].fresh)
    with pytest.raises(Exception, match="do not agree"):
        jax.block_until_ready(local_chain(x._replace(window=x.window[:, :3]), [a])[0][0].fresh)
    with pytest.raises(Exception, match="settle wants"):
        jax.block_until_ready(settle([x], jnp.ones(11, bool)))


def test_reach_is_what_a_convolution_reads():
    r = np.random.default_rng(0)
    for _ in range(30):
        k, stride, pads = tuple(r.integers(1, 5, 2)), int(r.integers(1, 4)), tuple(map(tuple, r.integers(0, 3, (2, 2)).tolist()))
        window = jnp.asarray([sorted(r.integers(0, 9, 2).tolist()) + sorted(r.integers(0, 10, 2).tolist())], jnp.int32)
        mark = inside(window, (1, 8, 9, 1)).astype(jnp.float32)
        w = jnp.ones((*map(int, k), 1, 1))
        y = jax.lax.conv_general_dilated(mark, w, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        reached = inside(reach(window, (8, 9), k, stride, pads, y.shape[1:3]), y.shape)
        assert not np.any(np.asarray(y > 0) & ~np.asarray(reached))
        if np.any(y > 0) and all(p < q for pair, q in zip(pads, k, strict=True) for p in pair):
            assert int(np.sum(reached)) == int(np.sum(np.asarray(y) > 0))
