"""`certify`: the ladder, its agreement with exact answers and with attacks, and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.certify import Verdict, margins

METHODS = [jaxsec.IBP(), jaxsec.CROWNIBP(), jaxsec.ForwardLinear(), jaxsec.CROWN(), jaxsec.AlphaCROWN(steps=5)]


def mlp(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b[None])
    return x @ params[-1][0] + params[-1][1][None]


@pytest.fixture(scope="module")
def model() -> jaxsec.Model:
    r = np.random.default_rng(0)
    sizes = (6, 16, 16, 4)
    params = [
        (jnp.asarray(r.normal(size=(a, b)) / np.sqrt(a), jnp.float32), jnp.asarray(r.normal(size=b) * 0.3, jnp.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return jaxsec.bind(mlp, params)


@pytest.fixture(scope="module")
def rows(model: jaxsec.Model) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(1).uniform(0, 1, (24, 6)).astype(np.float32)
    y = np.asarray(model(jnp.asarray(x))).argmax(1).astype(np.int32)
    y[:3] = (y[:3] + 1) % 4  # wrong before
    return x, y


THREATS = {
    "linf": jaxsec.LInf(eps=0.03, lo=0.0, hi=1.0),
    "l2": jaxsec.L2(eps=0.05, lo=0.0, hi=1.0),
    "l1": jaxsec.L1(eps=0.08, lo=0.0, hi=1.0),
}


@pytest.mark.parametrize("norm", THREATS)
def test_no_certified_row_is_broken_and_tighter_methods_certify_more(model, rows, norm: str) -> None:
    x, y = rows
    threat = THREATS[norm]
    broken = np.asarray(jaxsec.attack(model, x, y, threat=threat, method=jaxsec.APGD(), key=jax.random.key(0)).success)
    previous = np.full(len(y), -np.inf)
    for method in METHODS if norm == "linf" else METHODS[2:4]:
        for sound in (False, True) if method.name == "crown" else (False,):
            c = jaxsec.certify(model, x, y, threat=threat, method=method, sound=sound)
            assert not (np.asarray(c.robust) & broken).any(), method
            if not sound:
                margin = np.asarray(c.margin)
                plain = np.asarray(c.robust)
                if method.name != "forward":  # neither tighter nor looser than CROWN-IBP
                    assert (margin >= previous - 1e-5).all(), method
                    previous = margin
            else:
                assert (np.asarray(c.margin) <= previous + 1e-6).all()
                assert not (np.asarray(c.robust) & ~plain).any()
    assert plain.sum() > 0


@pytest.mark.parametrize(
    "norm, method",
    [*(("linf", m) for m in METHODS), ("l2", METHODS[2]), ("l1", METHODS[2]), ("l2", METHODS[3]), ("l1", METHODS[3])],
    ids=str,
)
def test_margins_are_below_every_sample(model, rows, norm: str, method) -> None:
    x, y = rows
    threat = THREATS[norm].canonical(jnp.asarray(x))
    margin = np.asarray(jaxsec.certify(model, x, y, threat=THREATS[norm], method=method).margin)
    spec = np.asarray(margins(jnp.asarray(y), 4, jnp.float32))
    for k in range(20):
        points = threat.sample_boundary(jax.random.key(k), jnp.asarray(x)) if k % 2 else threat.sample(jax.random.key(k), jnp.asarray(x))
        value = np.einsum("bsk,bk->bs", spec, np.asarray(model(points))).min(1)
        assert (value[3:] >= margin[3:] - 1e-5).all()


def test_linear_models_are_certified_exactly(rows) -> None:
    """The margin of a linear model over a ball is known in closed form, for every norm, box included by `support`."""
    x, _ = rows
    w = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    linear = jaxsec.bind(lambda p, v: v @ p, jnp.asarray(w))
    y = (x @ w).argmax(1).astype(np.int32)
    for threat in THREATS.values():
        whole = threat.canonical(jnp.asarray(x))
        spec = np.asarray(margins(jnp.asarray(y), 3, jnp.float32))
        forms = np.einsum("bsk,dk->bsd", spec, w)
        exact = -np.asarray(whole.support(jnp.asarray(x), jnp.asarray(-forms))).max(1)
        c = jaxsec.certify(linear, x, y, threat=threat, method=jaxsec.CROWN())
        np.testing.assert_allclose(np.asarray(c.margin), exact, atol=2e-5)


def test_the_ladder_gives_each_row_to_the_first_method_that_proves_it(model, rows) -> None:
    x, y = rows
    threat = THREATS["linf"]
    c = jaxsec.certify(model, x, y, threat=threat, method=METHODS)
    alone = [np.asarray(jaxsec.certify(model, x, y, threat=threat, method=m).robust) for m in METHODS]
    for i, row in enumerate(zip(*alone, strict=True)):
        first = row.index(True) if any(row) else -1
        assert int(c.method[i]) == first
    assert list(np.asarray(c.status[:3])) == [Verdict.WRONG_BEFORE] * 3
    assert "certified accuracy" in repr(c) and c.methods == ("ibp", "crown-ibp", "forward", "crown", "alpha-crown")


def test_rows_do_not_depend_on_the_batch(model, rows) -> None:
    x, y = rows
    whole = jaxsec.certify(model, x, y, threat=THREATS["l2"], method=jaxsec.CROWN())
    for part in (slice(3, 4), slice(5, 16)):
        some = jaxsec.certify(model, x[part], y[part], threat=THREATS["l2"], method=jaxsec.CROWN(), max_rows=4)
        np.testing.assert_allclose(np.asarray(some.margin), np.asarray(whole.margin)[part], rtol=1e-5, atol=1e-6)


def test_eps_per_row_and_zero(model, rows) -> None:
    x, y = rows
    eps = np.linspace(0, 0.05, len(y)).astype(np.float32)
    c = jaxsec.certify(model, x, y, threat=jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), method=jaxsec.CROWN())
    for i in (5, 20):
        one = jaxsec.certify(
            model, x[i : i + 1], y[i : i + 1], threat=jaxsec.LInf(eps=float(eps[i]), lo=0.0, hi=1.0), method=jaxsec.CROWN()
        )
        np.testing.assert_allclose(float(one.margin[0]), float(c.margin[i]), rtol=1e-4, atol=1e-5)
    zero = jaxsec.certify(model, x, y, threat=jaxsec.LInf(eps=0.0, lo=0.0, hi=1.0), method=jaxsec.IBP())
    assert (np.asarray(zero.robust) == (np.arange(len(y)) >= 3)).all()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_second_call_traces_nothing(model, rows, method) -> None:
    """Of `certify` and `bound`, with another eps, rows and weights."""
    x, y = rows
    traces = 0

    def counted(p, v):
        nonlocal traces
        traces += 1
        return mlp(p, v)

    first = jaxsec.bind(counted, model.params)
    seen = []
    for order, eps in ((1, 0.01), (-1, 0.02)):
        net = first.replace(params=jax.tree.map(lambda v, s=eps: v * (1 + s), first.params))
        threat = jaxsec.LInf(eps=eps, lo=0.0, hi=1.0)
        jaxsec.certify(net, x[::order], y[::order], threat=threat, method=method)
        jaxsec.bound(net, (threat, x[::order]), method=method)
        seen.append(traces)
    assert seen[0] == seen[1] > 0


@pytest.mark.parametrize("method", METHODS[:4], ids=str)
def test_rows_on_several_devices(model, rows, method, devices) -> None:
    """The same numbers, and each row's stay on its device; the same inside `shard_map`, unchecked (see `certify`)."""
    x, y = rows
    threat = THREATS["linf"]
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    by_rows = jax.sharding.NamedSharding(mesh, jax.P("rows"))
    xs, ys = jax.device_put((jnp.asarray(x), jnp.asarray(y)), by_rows)
    alone, spread = (jaxsec.certify(model, *v, threat=threat, method=method) for v in ((x, y), (xs, ys)))
    inside = jax.jit(
        jax.shard_map(
            lambda x, y: jaxsec.certify(model, x, y, threat=threat, method=method),
            mesh=mesh,
            in_specs=jax.P("rows"),
            out_specs=jax.P("rows"),
            check_vma=False,
        )
    )(xs, ys)
    bounds, apart = (jaxsec.bound(model, (threat, v), method=method) for v in (jnp.asarray(x), xs))
    right = np.asarray(y) == np.asarray(model(jnp.asarray(x))).argmax(1)
    for other in (spread, inside):
        np.testing.assert_allclose(np.asarray(other.margin)[right], np.asarray(alone.margin)[right], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(other.robust, alone.robust)
    np.testing.assert_allclose(apart.lo, bounds.lo, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(apart.hi, bounds.hi, rtol=1e-5, atol=1e-5)
    for v in (spread.margin, spread.robust, spread.method, spread.status, inside.margin, apart.lo, apart.hi):
        assert v.sharding.is_equivalent_to(by_rows, v.ndim) and len(v.sharding.device_set) == 8


def test_under_jit_and_in_gradients(model, rows) -> None:
    x, y = rows
    threat = THREATS["linf"]
    eager = jaxsec.certify(model, x, y, threat=threat, method=[jaxsec.IBP(), jaxsec.CROWN()])
    inside = jax.jit(lambda m, x, y: jaxsec.certify(m, x, y, threat=threat, method=[jaxsec.IBP(), jaxsec.CROWN()]))(model, x, y)
    assert (np.asarray(inside.robust) == np.asarray(eager.robust)).all()
    spec = margins(jnp.asarray(y), 4, jnp.float32)

    def loss(params):
        return jnp.sum(jaxsec.bound(model.replace(params=params), (threat, jnp.asarray(x)), method=jaxsec.CROWNIBP(), spec=spec))

    gradient = jax.grad(loss)(model.params)
    assert all(np.isfinite(np.asarray(g)).all() and np.abs(np.asarray(g)).max() > 0 for g in jax.tree.leaves(gradient))
    step = 1e-3
    direction = jax.tree.map(jnp.sign, gradient)
    ahead, behind = (loss(jax.tree.map(lambda p, d, s=s: p + s * d, model.params, direction)) for s in (step, -step))
    expected = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    assert abs((float(ahead) - float(behind)) / (2 * step) - expected) < 0.05 * abs(expected)


@pytest.mark.parametrize(
    "more", [{"sound": True}, {"max_rows": 64}, {"min_rows": 2}, {"budget": 1000}, {"key": 0}, {"max_samples": 9}], ids=str
)  # fmt: skip
def test_nothing_is_silently_ignored(model, rows, more) -> None:
    sampled = not {"key", "max_samples"} & set(more)
    method, key = (jaxsec.Smoothing(sigma=0.1, n=10), {"key": jax.random.key(0)}) if sampled else (jaxsec.IBP(), {})
    with pytest.raises(ValueError, match=f"{next(iter(more))} is given and not read by"):
        jaxsec.certify(model, *rows, threat=jaxsec.L2(eps=0.1), method=method, **key, **more)


def test_what_is_refused(model, rows) -> None:
    x, y = rows
    threat = THREATS["linf"]
    with pytest.raises(TypeError, match=r"the class CROWN; write CROWN\(\)"):
        jaxsec.certify(model, x, y, threat=threat, method=jaxsec.CROWN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty list"):
        jaxsec.certify(model, x, y, threat=threat, method=[])
    with pytest.raises(TypeError, match=r"a jaxsec\.Model is needed"):
        jaxsec.certify(lambda v: v, x, y, threat=threat)  # type: ignore[arg-type]
    with pytest.raises(jaxsec.UnsupportedPrimitive, match=r"test_certify\.py:\d+"):
        jaxsec.certify(jaxsec.bind(lambda p, v: jnp.linalg.cholesky(v[:, :4, None] * p[None])[..., 0], jnp.eye(4)), x, y % 4, threat=threat)
    with pytest.raises(ValueError, match="x0 spans"):
        jaxsec.certify(model, x + 2, y, threat=threat)
