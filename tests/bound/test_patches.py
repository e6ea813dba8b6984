"""Forms on patches: both ways through a convolution, the small matrix and the transposed convolution, give the same bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxsec
from jaxsec.bound import _patches


def made(params) -> jaxsec.Model:
    """A net of convolutions; each call makes a function of its own, so that nothing compiled for another is used."""

    def net(params, x):
        for i, w in enumerate(params[:-1]):
            x = jax.nn.relu(lax.conv_general_dilated(x, w, (2 if i == 0 else 1,) * 2, "VALID"))
        return x.reshape(x.shape[0], -1) @ params[-1]

    return jaxsec.bind(net, params)


def test_the_transposed_convolution_is_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(0)
    shapes = ((4, 1, 3, 3), (5, 4, 3, 3), (4, 5, 2, 2), (4, 3))
    params = [jnp.asarray(r.normal(size=s) * 0.4, jnp.float32) for s in shapes]
    model = made(params)
    x = r.uniform(0, 1, (4, 1, 9, 9)).astype(np.float32)
    y = np.asarray(model(jnp.asarray(x))).argmax(1)
    ask = {"threat": jaxsec.LInf(eps=0.01, lo=0.0, hi=1.0), "method": jaxsec.CROWN()}
    dense = np.asarray(jaxsec.certify(model, x, y, **ask).margin)
    monkeypatch.setattr(_patches, "_DENSE_ENTRIES", 0)
    wide = np.asarray(jaxsec.certify(made(params), x, y, **ask).margin)
    np.testing.assert_allclose(wide, dense, rtol=1e-5, atol=1e-5)
    assert np.isfinite(dense).all()
