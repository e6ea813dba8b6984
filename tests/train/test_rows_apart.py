"""Bounds of rows side by side are those of each row alone: nets that mix rows are refused, and forms are chosen by one row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from train_kit import LINF

import jaxsec
from jaxsec import bind
from jaxsec.bound import CROWN, CROWNIBP, IBP, UnsupportedPrimitive, _patterns, bound
from jaxsec.bound._graph import trace
from jaxsec.train import net_of
from jaxsec.train._batch_bounds import Ranges
from jaxsec.train._certified import CROWNIBPTraining, IBPTraining
from jaxsec.train._rows_apart import check_rows_apart
from jaxsec.train._worst_case import lower_margins
from tests.bound.test_rules_composites import NORMS, SOFTMAX


@pytest.mark.parametrize("rows", [2, 3])
def test_rows_that_do_not_stay_in_front_are_refused(rows):
    def time_major(p, x):
        return jnp.sum(jax.nn.relu(jnp.swapaxes((x @ p).reshape(len(x), 2, 6), 0, 1)), axis=0)

    def folded(p, x):
        return jax.nn.relu((x @ p).reshape(-1, 4)).reshape(len(x), 3, 4).sum(1)

    x = jnp.full((rows, 6), 0.5)
    for fn in (time_major, folded):
        with pytest.raises(ValueError, match="whose first axis is not the rows"):
            IBPTraining(threat=LINF).check(net_of(fn, jnp.ones((6, 12))), x)


MIXED = {
    "there and back": lambda p, x: jax.nn.relu((x @ p)[::-1])[::-1],
    "by an index": lambda p, x: jax.nn.relu((x @ p)[jnp.arange(len(x))[::-1]])[jnp.arange(len(x))[::-1]],
    "sums along the batch": lambda p, x: jnp.cumsum(jax.nn.relu(x @ p), axis=0),
    "order along the batch": lambda p, x: jnp.sort(x @ p, axis=0),
    "behind a dead unit": lambda p, x: jax.nn.relu(jax.nn.relu(x @ p - 40.0)[::-1])[::-1] + x[:, :3],
}


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_change_places_are_refused(name):
    """The net may be a function of each row alone; the walk back would still meet other rows' intervals."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    with pytest.raises(ValueError, match="depends on other rows of the batch"):
        IBPTraining(threat=LINF).check(net_of(MIXED[name], w), jnp.full((5, 6), 0.5))
    apart = {"a gather": lambda p, x: jax.nn.relu(x @ p)[:, jnp.array([2, 0, 0])], "a sort": lambda p, x: jnp.sort(x @ p, axis=1)}
    if name == "by an index":
        for fn in apart.values():
            IBPTraining(threat=LINF).check(net_of(fn, w), jnp.full((5, 6), 0.5))


def test_a_layer_that_begins_at_0_hides_nothing():
    zero = {"a": jnp.eye(6), "z": jnp.zeros((6, 6))}
    mixing = net_of(lambda p, x: x @ p["a"] + (x @ p["z"])[::-1], zero)
    with pytest.raises(ValueError, match="depends on other rows of the batch"):
        IBPTraining(threat=LINF).check(mixing, jnp.full((5, 6), 0.5))
    IBPTraining(threat=LINF).check(net_of(lambda p, x: x @ p["a"] + jax.nn.relu(x @ p["z"]), zero), jnp.full((5, 6), 0.5))

    def normalised(p, x):  # a variance below 0 would make everything NaN, and NaN tells nothing
        return x @ p["a"] * jax.lax.rsqrt(p["v"])[None] + (x @ p["z"])[::-1]

    with pytest.raises(ValueError, match="depends on other rows of the batch"):
        IBPTraining(threat=LINF).check(net_of(normalised, zero | {"v": jnp.ones(6)}), jnp.full((5, 6), 0.5))


def tokens(p, x):
    t = x.reshape(len(x), 8, -1)
    return (jax.nn.softmax(jnp.einsum("bid,bjd->bij", t, t)) @ t).reshape(len(x), -1) @ p


@pytest.mark.parametrize(("rows", "classes"), [(128, 4), (2, 22), (20, 10)])
def test_a_softmax_is_bounded_alike_in_every_batch(rows, classes):
    """It is written in pairs or shifted: what decides is the size of a row, for the graph of n rows is compared with that of n + 1."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(8, classes)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).uniform(size=(rows, 8)), jnp.float32)
    for fn in (lambda p, x: jax.nn.softmax(jax.nn.relu(x @ p)), tokens):
        net, y = net_of(fn, w), jnp.zeros(rows, jnp.int32)
        IBPTraining(threat=LINF).check(net, x)
        np.testing.assert_allclose(lower_margins(net, LINF, x, y)[:2], lower_margins(net, LINF, x[:2], y[:2]), rtol=2e-6)


@pytest.mark.parametrize("name", [*SOFTMAX, *NORMS])
def test_what_is_recognised_depends_on_a_row_alone(name):
    """Rows side by side become the nodes of one row, with its intervals: softmax and normalisations are told from their parts in a row."""
    fn = jax.vmap((SOFTMAX | NORMS)[name])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 3)), jnp.float32)

    def made(x):
        graph = trace(fn, jax.ShapeDtypeStruct(x.shape, x.dtype), rows=len(x))
        out = graph.outputs[0].index
        return [(type(node), graph.of_row(node.shape)) for node in graph.nodes], graph.shares, Ranges(graph, out, (x - 0.2, x + 0.1))[out]

    with jax.numpy_rank_promotion("allow"):
        nodes, shares, (lo, hi) = made(x)
        for i in (0, 4):
            alone = made(x[i : i + 1])
            assert alone[0] == nodes and alone[1] == shares
            for of_batch, own in zip((lo, hi), alone[2], strict=True):
                np.testing.assert_allclose(of_batch[i : i + 1], own, rtol=2e-5, atol=1e-6)


def test_what_is_recognised_is_found_in_one_row(monkeypatch):
    """However many rows there are: only the elements of one must be fewer than float32 can count."""
    monkeypatch.setattr(_patterns, "_MOST_ELEMENTS", 20)
    for n in (1, 2, 9):
        assert trace(SOFTMAX["by_hand"], jnp.zeros((n, 8)), rows=n).shares


def test_sums_over_rows_are_not_recognised():
    """A mean over the batch is no group of a row: such a net is refused afterwards, and must not be read as another one before."""
    x = jnp.zeros((5, 3))
    for fn in (lambda x: jnp.exp(x) / jnp.exp(x).sum(0, keepdims=True), lambda x: jnp.exp(x) / jnp.exp(x[::-1]).sum(1, keepdims=True)):
        assert not trace(fn, x, rows=5).shares


MEET = {
    "in reverse": lambda h: h[::-1],
    "a little": lambda h: h + 1e-9 * h[::-1],
    "four rows on": lambda h: h[(jnp.arange(len(h)) + 4) % len(h)],
}
SATURATED = {"relu6": jax.nn.relu6, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "clip": lambda h: jnp.clip(h, -1, 1)}


@pytest.mark.parametrize("name", SATURATED)
@pytest.mark.parametrize("mix", MEET)
def test_rows_that_meet_behind_saturated_units_are_found(name, mix):
    """Their intervals are all alike when they are wide, of every row the whole range."""
    r = np.random.default_rng(0)
    w = [jnp.asarray(r.normal(size=s) * np.sqrt(2 / s[0]), jnp.float32) for s in ((256, 64), (64, 64), (64, 64), (64, 3))]

    def net(p, x, mix=MEET[mix]):
        h = jax.nn.relu(jax.nn.relu(x @ p[0]) @ p[1])
        return mix(SATURATED[name](h @ p[2])) @ p[3]

    x = jnp.asarray(r.uniform(size=(16, 256)), jnp.float32)
    check_rows_apart(net_of(lambda p, x: net(p, x, lambda h: h), w), x)
    with pytest.raises(ValueError, match="depends on other rows of the batch"):
        IBPTraining(threat=jaxsec.LInf(eps=1e-6, lo=0.0, hi=1.0)).check(net_of(net, w), x)


class Gated(nn.Module):
    """A gate among the statistics, which the first step of training opens."""

    @nn.compact
    def __call__(self, x, train=False):
        gate = self.variable("batch_stats", "gate", lambda: jnp.zeros(()))
        h = nn.Dense(4)(x)
        if train:
            gate.value = jnp.ones(())
        return nn.Dense(3)(h + jnp.tanh(gate.value * h)[::-1])


def test_statistics_of_0_hide_nothing():
    x = jnp.full((5, 6), 0.5)
    net = net_of(Gated(), x=x, key=jax.random.key(0))
    assert float(net.state["batch_stats"]["gate"]) == 0
    with pytest.raises(UnsupportedPrimitive, match="depends on other rows of the batch"):
        check_rows_apart(net, x)


def test_a_mix_that_is_small_beside_the_value_is_found():
    """Logits of 1e5 whose differences are what counts: the rest of a row stays as it is to the last bit."""

    def net(p, x):
        s = 1 + jax.nn.sigmoid(4 * x @ p)
        return 1e5 * jnp.concatenate([s + 5e-7 * s[::-1], s], axis=1)

    with pytest.raises(UnsupportedPrimitive, match="depends on other rows of the batch"):
        check_rows_apart(net_of(net, jnp.full((6, 1), 0.3)), jnp.full((5, 6), 0.5))


@pytest.mark.parametrize("recipe", [IBPTraining, CROWNIBPTraining])
def test_truth_values_are_bounded(recipe):
    w = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).uniform(size=(5, 6)), jnp.float32)

    def step(p, x):
        seen = jnp.any(x > 0.5, axis=1)[:, None]  # laid out before it is a number
        narrow = (x @ p > 0.1).astype(jnp.bfloat16) * jnp.bfloat16(0.3)
        numbers = (x @ p > 0).astype(x.dtype) + seen * jnp.arange(2.0)[None] + narrow.astype(x.dtype)
        return x @ p + numbers + jax.nn.one_hot(jnp.argmax(x @ p, axis=1), 2)

    net, y = net_of(step, w), jnp.zeros(5, jnp.int32)
    recipe(threat=LINF).check(net, x)
    points = np.clip(np.asarray(x) + np.random.default_rng(2).uniform(-0.1, 0.1, (300, 5, 6)), 0, 1).astype(np.float32)
    values = np.stack([np.asarray(net(jnp.asarray(p))) for p in points])
    assert (np.asarray(lower_margins(net, LINF, x, y)) <= (values[..., :1] - values).min(0) + 1e-5).all()


@pytest.mark.parametrize("method", [IBP(), CROWNIBP(), CROWN()], ids=lambda m: m.name)
def test_means_over_what_a_truth_value_picks_are_bounded(method):
    """Masked pooling, as attention nets end."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).uniform(size=(4, 5, 3)), jnp.float32)

    def pooled(w, x):
        mask = jnp.any(x > 0.6, axis=2)[..., None].astype(x.dtype)
        return jnp.sum((x @ w) * mask, axis=1) / (1 + jnp.sum(mask, axis=1))

    model = bind(pooled, w)
    found = bound(model, (LINF, x), method=method)
    points = np.clip(np.asarray(x) + np.random.default_rng(2).uniform(-0.1, 0.1, (300, *x.shape)), 0, 1).astype(np.float32)
    values = np.stack([np.asarray(model(jnp.asarray(p))) for p in points])
    assert (np.asarray(found.lo) <= values.min(0) + 1e-5).all() and (values.max(0) <= np.asarray(found.hi) + 1e-5).all()
    assert np.isfinite(found.lo).all()


def test_a_net_that_mixes_large_batches_only_is_refused():
    w, x = jnp.ones((6, 3)), jnp.asarray(np.random.default_rng(1).uniform(size=(16, 6)), jnp.float32)
    net = net_of(lambda p, x: jnp.tanh(x @ p) + (jnp.tanh(x @ p)[::-1] if len(x) >= 16 else 0.0), w)
    check_rows_apart(net, x[:12])
    with pytest.raises(UnsupportedPrimitive, match="other operations for 16 rows"):
        check_rows_apart(net, x)


def test_points_of_the_data_count():
    """A net that is defined where the data are, and nowhere near 0."""
    net = net_of(lambda p, x: jnp.log(x - 10) @ p, jnp.ones((6, 3)))
    check_rows_apart(net, jnp.full((5, 6), 12.0))
    with pytest.raises(UnsupportedPrimitive, match="not finite at any of the points"):
        check_rows_apart(net, jnp.full((5, 6), 0.5))


def test_rows_that_meet_behind_overflowing_intervals_are_found():
    """Intervals of boxes grow with the depth beyond float32, which says nothing; and what no point can tell is refused."""
    r = np.random.default_rng(0)
    w = [jnp.asarray(r.normal(size=(64, 64)) / np.sqrt(32), jnp.float32) for _ in range(60)]

    def deep(p, x, mix):
        for v in p:
            x = jax.nn.relu(x @ v)
        return mix(x)[:, :3]

    x = jnp.asarray(r.uniform(size=(8, 64)), jnp.float32)
    check_rows_apart(net_of(lambda p, x: deep(p, x, lambda h: h), w), x)
    with pytest.raises(UnsupportedPrimitive, match="depends on other rows of the batch"):
        check_rows_apart(net_of(lambda p, x: deep(p, x, lambda h: h[::-1]), w), x)
    with pytest.raises(UnsupportedPrimitive, match="not finite at any of the points"):
        check_rows_apart(net_of(lambda p, x: jnp.exp(1e4 * (5 + x * x)) @ p, w[0]), x)


def test_a_net_of_one_batch_size_is_refused():
    fixed = net_of(lambda p, x: jax.nn.relu((x @ p).reshape(6, 3, 4)).sum(1), jnp.ones((6, 12)))
    with pytest.raises(ValueError, match="takes a batch of 6 rows and not of 7"):
        IBPTraining(threat=LINF).check(fixed, jnp.full((6, 6), 0.5))
