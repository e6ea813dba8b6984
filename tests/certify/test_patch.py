"""Bounds under `Patch`: exact for a linear model, and never broken by brute force over one-pixel patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from tests.threat.oracles import patch_support_oracle

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (12, 4, 4, 1)).astype(np.float32)


def net(p, x):
    return jnp.maximum(x.reshape(len(x), -1) @ p[0], 0) @ p[1]


MODEL = jaxsec.bind(net, [jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((16, 8), (8, 3))])
Y = np.asarray(jax.jit(MODEL)(X)).argmax(1).astype(np.int32)


@pytest.mark.parametrize("sides", [(1, 1), (2, 3)])
def test_crown_is_exact_for_a_linear_model(sides: tuple[int, int]) -> None:
    p = RNG.normal(size=(16, 3)).astype(np.float32)
    model = jaxsec.bind(lambda p, x: x.reshape(len(x), -1) @ p, jnp.asarray(p))
    y = (X.reshape(12, 16) @ p).argmax(1).astype(np.int32)
    threat = jaxsec.Patch(size=sides, layout="hwc", lo=0.0, hi=1.0)
    true = [
        min(-patch_support_oracle(X[i], (p[:, k] - p[:, y[i]]).reshape(4, 4, 1), sides, "hwc", 0, 1) for k in range(3) if k != y[i])
        for i in range(12)
    ]
    found = jaxsec.certify(model, X, y, threat=threat, method=jaxsec.CROWN())
    np.testing.assert_allclose(found.margin, true, atol=1e-5)
    sound = jaxsec.certify(model, X, y, threat=threat, method=jaxsec.CROWN(), sound=True)
    assert np.all(np.asarray(sound.margin, np.float64) <= true) and np.all(np.asarray(sound.margin) >= np.asarray(true) - 1e-3)


def test_certified_rows_are_not_broken_by_any_pixel() -> None:
    threat = jaxsec.Patch(size=1, layout="hwc", lo=0.0, hi=1.0)
    found = jaxsec.certify(MODEL, X, Y, threat=threat, method=[jaxsec.IBP(), jaxsec.CROWN()])
    broken, logits = np.zeros(12, bool), jax.jit(MODEL)
    for at in range(16):
        for value in np.linspace(0, 1, 17, dtype=np.float32):
            x = X.reshape(12, 16).copy()
            x[:, at] = value
            broken |= np.asarray(logits(x.reshape(X.shape))).argmax(1) != Y
    robust = np.asarray(found.robust)
    assert robust.sum() >= 2 and broken.sum() >= 2 and not np.any(robust & broken)
