"""Forms on patches: both ways through a convolution, the small matrix and the transposed convolution, give the same bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxsec
from jaxsec.bound import _patches


@pytest.mark.parametrize("stride", [1, 2])
def test_the_transposed_convolution_is_the_matrix(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(0)
    kernels = [jnp.asarray(r.normal(size=s) * 0.4, jnp.float32) for s in ((4, 1, 3, 3), (5, 4, 3, 3), (4, 5, 2, 2))]
    last = jnp.asarray(r.normal(size=(4 * {1: 16, 2: 1}[stride], 3)), jnp.float32)

    def net(params, x):
        for i, w in enumerate(params[0]):
            x = jax.nn.relu(lax.conv_general_dilated(x, w, (stride if i == 0 else 1,) * 2, "VALID"))
        return x.reshape(x.shape[0], -1) @ params[1]

    model = jaxsec.bind(net, (kernels, last))
    x = r.uniform(0, 1, (4, 1, 9, 9)).astype(np.float32)
    y = np.asarray(model(jnp.asarray(x))).argmax(1)
    ask = {"threat": jaxsec.LInf(eps=0.01, lo=0.0, hi=1.0), "method": jaxsec.CROWN()}
    dense = jaxsec.certify(model, x, y, **ask)
    jax.clear_caches()
    monkeypatch.setattr(_patches, "_DENSE_ENTRIES", 0)
    wide = jaxsec.certify(model, x, y, **ask)
    np.testing.assert_allclose(np.asarray(wide.margin), np.asarray(dense.margin), rtol=1e-5, atol=1e-5)
    assert np.isfinite(np.asarray(dense.margin)).all()
