"""The embedded model and data: good enough to be worth attacking, and the same each time."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsec.audit import _default


def test_the_embedded_model_learns_and_repeats() -> None:
    model, data = _default.default_audit(0)
    accuracy = float((jax.jit(model)(jnp.asarray(data.x)).argmax(axis=1) == data.y).mean())
    assert accuracy > 0.95 and data.x.shape[1:] == model.info.input_shape
    assert "no robust training" in model.info.notes[0]
    again, _ = _default.default_audit(0)
    for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.apply == model.apply, "a rebuilt net must share the compiled programs"
