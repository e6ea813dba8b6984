"""One table, every method on every threat: what the front door promises must hold for each pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxsec
from jaxsec import APGD, BIM, FAB, FGSM, PGD, Square, Status
from tests.attack.conftest import CLASSES, SHAPE, TRACES, mlp, weights

METHODS = {
    "fgsm": FGSM(),
    "bim": BIM(steps=4),
    "pgd": PGD(steps=5, restarts=2),
    "apgd-ce": APGD(steps=8),
    "apgd-dlr": APGD(steps=8, loss="dlr"),
    "apgd-t": APGD(steps=8, targets=2),
    "fab": FAB(steps=4),
    "fab-t": FAB(steps=4, targets=2, minimise=False),
    "square": Square(steps=25),
}
EPS = {"linf": 0.08, "l2": 0.4, "l1": 1.5}


def threat_of(norm: str, scale: float = 1.0):
    if norm == "box":
        return jaxsec.Box(lower=jnp.full(SHAPE, 0.5 - 0.3 * scale), upper=jnp.full(SHAPE, 0.5 + 0.3 * scale))
    return {"linf": jaxsec.LInf, "l2": jaxsec.L2, "l1": jaxsec.L1}[norm](eps=EPS[norm] * scale, lo=0.0, hi=1.0)


PAIRS = [(m, n) for m in METHODS for n in ("linf", "l2", "l1", "box") if not (n == "box" and m in ("fab", "fab-t", "square"))]


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_contract(name, norm, small):
    model, x, y = small
    method, threat = METHODS[name], threat_of(norm)
    x = np.clip(x, 0.2, 0.8)
    y = np.asarray(jax.jit(model)(jnp.asarray(x)).argmax(axis=1)).astype(np.int32)
    y[2] = (y[2] + 1) % CLASSES
    key = jax.random.key(7)

    def run(**kwargs):
        arguments = {"model": model, "x": x, "y": y, "threat": threat, "method": method, "key": key} | kwargs
        return jaxsec.attack(**arguments)

    a = run()
    # feasible and verified: recomputed here in float64 NumPy, without the library's own checks
    delta = np.asarray(a.x, np.float64) - x
    flat = np.abs(delta.reshape(len(x), -1))
    if norm == "box":
        inside = (np.asarray(a.x) >= 0.2 - 1e-6) & (np.asarray(a.x) <= 0.8 + 1e-6)
        assert inside.reshape(len(x), -1).all(axis=1)[np.asarray(a.status) == Status.ADVERSARIAL].all()
    else:
        length = {"linf": flat.max(axis=1), "l2": np.sqrt((flat**2).sum(axis=1)), "l1": flat.sum(axis=1)}[norm]
        found = np.asarray(a.status) == Status.ADVERSARIAL
        assert (length[found] <= EPS[norm] * (1 + 1e-5)).all()
        np.testing.assert_allclose(np.asarray(a.distance), length, rtol=1e-4, atol=1e-6)
        assert np.asarray(a.x).min() >= 0 and np.asarray(a.x).max() <= 1
    wrong = np.asarray(jax.jit(model)(a.x)).argmax(axis=1) != y
    assert np.array_equal(wrong[np.asarray(a.success)], np.ones(int(a.success.sum()), bool))
    assert not np.isin(np.asarray(a.status), [Status.INFEASIBLE, Status.UNVERIFIED, Status.NONFINITE]).any()
    assert a.status[2] == Status.WRONG_BEFORE and a.success[2] and a.distance[2] == 0 and a.first_step[2] == 0
    assert np.asarray(a.success).sum() > 1, "the table is meant to be attackable: a method that finds nothing here is broken"
    spent = np.asarray(a.queries)[np.asarray(a.status) != Status.WRONG_BEFORE]
    assert (spent > 1).all() and np.asarray(a.first_step)[np.asarray(a.status) == Status.ADVERSARIAL].min() >= 0

    # deterministic by key; nothing is traced again for the same call, another budget, other weights, another key
    before = len(TRACES)
    b = run()
    assert np.array_equal(np.asarray(a.x), np.asarray(b.x)) and np.array_equal(np.asarray(a.queries), np.asarray(b.queries))
    assert len(TRACES) == before
    # with one batch size, whatever survives; budgets far apart, so that nearly all rows stand and then nearly all fall
    run(min_rows=16, max_rows=16)
    before = len(TRACES)
    for factor in (1.2, 1.6) if norm == "box" else (0.1, 3.0):
        run(threat=threat_of(norm, factor), min_rows=16, max_rows=16)
    run(model=jaxsec.bind(mlp, weights(1)), min_rows=16, max_rows=16)
    run(key=jax.random.key(8), min_rows=16, max_rows=16)
    assert len(TRACES) == before

    # batch-invariant: four rows alone, under their ids, end as they do among twelve
    rows = np.array([3, 4, 5, 6])
    c = run(x=x[rows], y=y[rows], row_ids=rows)
    assert np.array_equal(np.asarray(c.success), np.asarray(a.success)[rows])
    np.testing.assert_allclose(np.asarray(c.x), np.asarray(a.x)[rows], atol=2e-5)


@pytest.mark.parametrize(("name", "norm"), [p for p in PAIRS if p[1] in ("linf", "l1") or p[0] == "apgd-ce"])
def test_sharding_is_kept_and_numbers_agree(name, norm, small, devices):
    model, x, y = small
    x, y = np.concatenate([x, x[:4]]), np.concatenate([y, y[:4]])
    if norm == "box":
        x = np.clip(x, 0.2, 0.8)
    mesh = jax.make_mesh((8,), ("rows",))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    arguments = {"threat": threat_of(norm), "method": METHODS[name], "key": jax.random.key(7)}
    a = jaxsec.attack(model, jax.device_put(x, rows), jax.device_put(y, rows), **arguments)
    assert a.x.sharding.is_equivalent_to(rows, x.ndim), a.x.sharding
    assert a.success.sharding.is_equivalent_to(rows, 1)
    b = jaxsec.attack(model, x, y, checks=False, **arguments)
    assert np.array_equal(np.asarray(a.success), np.asarray(b.success))
    np.testing.assert_allclose(np.asarray(a.x), np.asarray(b.x), atol=2e-5)
    assert np.array_equal(np.asarray(a.first_step), np.asarray(b.first_step))


@pytest.mark.parametrize(("name", "norm"), [p for p in PAIRS if p[0] in ("pgd", "apgd-ce", "fab") or p == ("square", "linf")])
def test_shard_map_needs_no_exception(name, norm, small, devices):
    """Loops start from values marked like the rows, so `shard_map` may keep its check of what varies."""
    model, x, y = small
    x, y = np.concatenate([x, x[:4]]), np.concatenate([y, y[:4]])
    if norm == "box":
        x = np.clip(x, 0.2, 0.8)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("rows")

    def part(x, y, ids):
        return jaxsec.attack(model, x, y, threat=threat_of(norm), method=METHODS[name], key=jax.random.key(7), row_ids=ids).success

    sharded = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=spec, out_specs=spec))
    ids = np.arange(len(y))
    alone = jaxsec.attack(model, x, y, threat=threat_of(norm), method=METHODS[name], key=jax.random.key(7), checks=False)
    np.testing.assert_array_equal(np.asarray(sharded(x, y, ids)), np.asarray(alone.success))


@pytest.mark.parametrize("name", [*METHODS, "momentum"])
def test_half_precision_stays_half(name, small):
    """Rows in bfloat16: every method keeps the dtype, stays inside, and finds about as much."""
    _, x, y = small
    method = PGD(steps=5, momentum=0.9) if name == "momentum" else METHODS[name]
    half = jaxsec.bind(mlp, jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights(0)))
    r = jaxsec.attack(half, jnp.asarray(x, jnp.bfloat16), y, threat=threat_of("linf"), method=method, key=jax.random.key(7), checks=False)
    assert r.x.dtype == jnp.bfloat16
    found = np.asarray(r.status) == Status.ADVERSARIAL
    moved = np.abs(np.asarray(r.x, np.float64) - np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)).reshape(len(x), -1).max(axis=1)
    assert (moved <= EPS["linf"] * (1 + 1e-6)).all() and found.any()
    assert not np.isin(np.asarray(r.status), [Status.INFEASIBLE, Status.NONFINITE]).any()
