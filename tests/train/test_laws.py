"""The law between the rooms: certified <= true <= attacked, on every row, on every checkpoint of a run that learns to be certified."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import jaxsec
from jaxsec import train
from jaxsec.train._step import train_step

LINF, L2 = jaxsec.LInf(eps=0.04, lo=0.0, hi=1.0), jaxsec.L2(eps=0.3, lo=0.0, hi=1.0)
KEY = jax.random.key(0)
KEPT = (4, 24, 72)  # updates after which the weights are looked at


def mlp(params, x):
    return jax.nn.relu(x @ params["a"] + params["b"][None]) @ params["c"]


def start(outputs=10):
    a, c = jax.random.split(KEY)
    return {"a": jax.random.normal(a, (64, 48)) / 8, "b": jnp.zeros(48), "c": jax.random.normal(c, (48, outputs)) / 7}


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    x, y = (found.images / 16).astype(np.float32).reshape(-1, 64), found.target.astype(np.int32)
    return x[:768], y[:768], x[768:896], y[768:896]


def checkpoints(recipe, digits, monkeypatch):
    """The models of one run after `KEPT` updates."""
    kept = []

    def remember(state, *rest):
        new = train_step(state, *rest)
        if int(new[0].step) in KEPT:
            kept.append(jax.tree.map(np.asarray, new[0].params))
        return new

    monkeypatch.setattr(train._loop, "train_step", remember)
    train.fit(mlp, digits[:2], variables=start(), recipe=recipe, epochs=12, batch_size=128, optimizer=optax.adam(1e-2), key=KEY)
    assert len(kept) == len(KEPT)
    return [jaxsec.bind(mlp, params) for params in kept]


def fallen(model, x, y, threat):
    how = {"threat": threat, "key": KEY, "checks": False, "min_rows": 128, "max_rows": 128}
    return np.any([jaxsec.attack(model, x, y, method=m, **how).success for m in (jaxsec.PGD(steps=20), jaxsec.APGD(steps=40))], axis=0)


@pytest.mark.parametrize(
    "recipe", [train.IBPTraining(threat=LINF, kappa=0.0), train.SABR(threat=LINF, share=0.5, steps=3)], ids=lambda r: r.name
)
def test_no_certified_row_falls_on_any_checkpoint(recipe, digits, monkeypatch):
    x, y = digits[2:]
    shares = []
    for model in checkpoints(recipe, digits, monkeypatch):
        methods = [jaxsec.IBP(), jaxsec.CROWN()]
        proved = np.asarray(jaxsec.certify(model, x, y, threat=LINF, method=methods, sound=True, progress=False).robust)
        broken, right = fallen(model, x, y, LINF), np.argmax(model(x), axis=1) == y
        assert not np.any(proved & broken) and np.all(proved <= right)
        shares.append((proved.mean(), 1 - broken.mean(), right.mean()))
    assert shares[-1][0] > 0.4 > shares[0][0], shares  # it did learn to be certified, so the law had rows to break


def test_no_row_falls_within_its_lipschitz_radius(digits, monkeypatch):
    x, y = digits[2:]
    shares = []
    for model in checkpoints(train.LipschitzMargin(normalise=True), digits, monkeypatch):
        radius = train.lipschitz_certify(model, x, y, sound=True)
        broken = fallen(model, x, y, L2.replace(eps=np.where(radius > 0, radius, 0.0).astype(np.float32)))
        assert not np.any((radius > 0) & broken)
        shares.append(np.mean(radius > 0.1))
    assert shares[-1] > 0.5 > shares[0], shares
