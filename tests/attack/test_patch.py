"""PGD under `Patch`: inside the set, beside an attack by every pixel and value; other methods refuse it by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec import APGD, BIM, FAB, FGSM, PGD, AutoAttack, Square, Status

RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, (24, 5, 5, 1)).astype(np.float32)


def net(p, x):
    return jnp.tanh(x.reshape(len(x), -1) @ p[0]) @ p[1]


MODEL = jaxsec.bind(net, [jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((25, 12), (12, 3))])
Y = np.asarray(jax.jit(MODEL)(X)).argmax(1).astype(np.int32)
THREAT = jaxsec.Patch(size=1, layout="hwc", lo=0.0, hi=1.0)


def breakable() -> np.ndarray:
    """[B] bool: some pixel with some of 33 values changes the class, by trying all."""
    found = np.zeros(len(X), bool)
    logits = jax.jit(MODEL)
    for at in range(25):
        for value in np.linspace(0, 1, 33, dtype=np.float32):
            x = X.reshape(24, 25).copy()
            x[:, at] = value
            found |= np.asarray(logits(x.reshape(X.shape))).argmax(1) != Y
    return found


def test_pgd_finds_what_brute_force_finds_and_no_more_than_a_window() -> None:
    how = {"threat": THREAT, "method": PGD(steps=8, restarts=12), "key": jax.random.key(0), "min_rows": 24, "max_rows": 24}
    found = jaxsec.attack(MODEL, X, Y, **how)
    moved = (np.asarray(found.x) != X).reshape(24, -1).sum(1)
    success, true = np.asarray(found.success), breakable()
    assert moved.max() == 1 and np.asarray(found.x).min() >= 0 and np.asarray(found.x).max() <= 1
    assert np.all((np.asarray(jax.jit(MODEL)(found.x)).argmax(1) != Y) == success)
    assert 4 <= true.sum() <= 20 and (success & true).sum() >= 0.8 * true.sum() and (success & ~true).sum() <= 1
    assert not np.isin(np.asarray(found.status), [Status.INFEASIBLE, Status.UNVERIFIED, Status.NONFINITE]).any()
    np.testing.assert_array_equal(np.asarray(found.distance), moved)
    part = jaxsec.attack(MODEL, X[:5], Y[:5], **how)
    np.testing.assert_array_equal(part.success, found.success[:5])


@pytest.mark.parametrize(
    "method", [FGSM(), BIM(steps=2), APGD(steps=2), FAB(steps=2), Square(steps=2), AutoAttack()], ids=lambda m: type(m).__name__
)
def test_others_refuse_it_by_name(method) -> None:
    with pytest.raises(ValueError, match="patch"):
        jaxsec.attack(MODEL, X, Y, threat=THREAT, method=method, key=jax.random.key(0))
