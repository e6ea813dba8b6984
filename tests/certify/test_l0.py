"""Bounds over `L0` sets: exact on linear models, never above what all corners of a small set show; what cannot take the set says so."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec

RNG = np.random.default_rng(0)
D, EPS = 6, 2
AHEAD = np.array([1.0, 0.0, 0.0], np.float32)  # times a factor so that some rows can be certified
LINEAR = jaxsec.bind(lambda w, x: x.reshape(len(x), -1) @ w + 2.7 * AHEAD[None], jnp.asarray(RNG.normal(size=(D, 3)), jnp.float32))
NET = jaxsec.bind(
    lambda p, x: jax.nn.relu(x @ p[0] + p[1][None]) @ p[2] + 0.1 * AHEAD[None],
    [jnp.asarray(0.5 * RNG.normal(size=s), jnp.float32) for s in ((D, 8), (8,), (8, 3))],
)
X = RNG.uniform(0.2, 0.8, (12, D)).astype(np.float32)
THREAT = jaxsec.L0(eps=EPS, lo=0.0, hi=1.0)


def worst_margin(model: jaxsec.Model, x: np.ndarray, y: int) -> float:
    """Over all pairs of positions, each moved to every one of 9 values: where a piecewise linear margin is least, or near it."""
    grid, found = np.linspace(0, 1, 9, dtype=np.float32), []
    for pair in itertools.combinations(range(D), EPS):
        moved = np.repeat(x[None], 81, 0)
        moved[:, pair] = np.array(list(itertools.product(grid, repeat=EPS)))
        found.append(moved)
    logits = np.asarray(model(jnp.asarray(np.concatenate(found))), np.float64)
    return float((logits[:, [y]] - np.delete(logits, y, 1)).min())


@pytest.mark.parametrize("name", ["linear", "net"])
def test_bounds_are_below_every_change_of_two_positions(name: str) -> None:
    model = LINEAR if name == "linear" else NET
    y = np.asarray(jnp.argmax(model(jnp.asarray(X)), 1))
    true = np.array([worst_margin(model, x, int(c)) for x, c in zip(X, y, strict=True)])
    crown = jaxsec.certify(model, X, y, threat=THREAT, method=jaxsec.CROWN())
    ibp = jaxsec.certify(model, X, y, threat=THREAT, method=jaxsec.IBP())
    for found in (crown, ibp):
        assert np.all(np.asarray(found.margin) <= true + 1e-5)
        assert np.all(true[np.asarray(found.robust)] > 0)
    if name == "linear":  # the support function of the set is exact, that of its box is not
        np.testing.assert_allclose(crown.margin, true, atol=1e-5)
    else:
        assert np.mean(crown.margin) > np.mean(ibp.margin)
    assert crown.robust.any() and not crown.robust.all(), (true, crown.margin)


def test_an_infinite_box_certifies_nothing_and_no_change_everything() -> None:
    y = np.asarray(jnp.argmax(LINEAR(jnp.asarray(X)), 1))
    assert not jaxsec.certify(LINEAR, X, y, threat=jaxsec.L0(eps=1)).robust.any()
    assert jaxsec.certify(LINEAR, X, y, threat=THREAT.replace(eps=0)).robust.all()


def test_what_cannot_take_the_set_says_so() -> None:
    y = np.zeros(len(X), np.int32)
    with pytest.raises(ValueError, match="branches on boxes only"):
        jaxsec.certify(LINEAR, X, y, threat=THREAT, method=[jaxsec.IBP(), jaxsec.BetaCROWN()])
    with pytest.raises(ValueError, match=r"the threat is L0.*Ablation certifies L0"):
        jaxsec.certify(LINEAR, X, y, threat=THREAT, method=jaxsec.Smoothing(sigma=0.1), key=jax.random.key(0))
    for attack in (
        jaxsec.PGD(),
        jaxsec.BIM(),
        jaxsec.FGSM(),
        jaxsec.APGD(),
        jaxsec.FAB(),
        jaxsec.Square(layout="chw"),
        jaxsec.AutoAttack(),
    ):
        with pytest.raises(ValueError, match="does not support the threat 'l0'"):
            jaxsec.attack(LINEAR, X.reshape(-1, 1, 2, 3), y, threat=THREAT, method=attack, key=jax.random.key(0))
    with pytest.raises(TypeError, match="an audit needs LInf, L2 or L1"):
        jaxsec.audit(LINEAR, (X, y), threat=THREAT, key=jax.random.key(0))  # pyright: ignore[reportArgumentType]
