"""Success is argmax; margins agree with it; broken logits never win."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.threat import Targeted, Untargeted

LOGITS = jnp.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [jnp.nan, 5.0, 0.0], [jnp.inf, 0.0, 1.0], [-jnp.inf, 0.0, 1.0]])


def test_untargeted():
    y = jnp.zeros(6, jnp.int32)
    assert Untargeted(y=y).success(LOGITS).tolist() == [False, False, True, False, False, True]
    assert Untargeted(y=y).margin(LOGITS).tolist() == [1.0, 0.0, -1.0, np.inf, np.inf, -np.inf]
    # a tie that argmax gives to the lower class is a success against the upper one, at margin 0
    tied = Untargeted(y=jnp.array([1])).canonical(1)
    assert tied.success(LOGITS[1:2]).tolist() == [True] and tied.margin(LOGITS[1:2]).tolist() == [0.0]


def test_targeted():
    t = jnp.array([1, 0, 1, 1, 0, 2], jnp.int32)
    assert Targeted(target=t).success(LOGITS).tolist() == [False, True, True, False, True, True]
    assert Targeted(target=t).margin(LOGITS).tolist() == [2.0, 0.0, 0.0, np.inf, -np.inf, -1.0]


@pytest.mark.parametrize("kind", ["untargeted", "targeted"])
def test_margin_and_success_agree(kind):
    r = np.random.default_rng(0)
    logits = jnp.asarray(r.integers(-2, 3, (500, 4)), jnp.float32)  # many ties
    y = jnp.asarray(r.integers(0, 4, 500), jnp.int32)
    goal = Untargeted(y=y) if kind == "untargeted" else Targeted(target=y)
    success, margin = jax.jit(lambda g, z: (g.success(z), g.margin(z)))(goal, logits)
    assert bool(success[margin < 0].all()) and not bool(success[margin > 0].any())
    predicted = np.argmax(np.asarray(logits), axis=1)
    np.testing.assert_array_equal(success, predicted != y if kind == "untargeted" else predicted == y)
    assert bool(jnp.isfinite(jax.grad(lambda z: jnp.sum(goal.margin(z)))(logits)).all())


def test_goals_are_trees_of_rows():
    goal = Untargeted(y=jnp.arange(4, dtype=jnp.int32))
    assert jax.tree.map(lambda v: v[1:3], goal).label.tolist() == [1, 2]
    assert not goal.targeted and Targeted(target=3).targeted


def test_must_raise():
    with pytest.raises(ValueError, match="argmax"):
        Untargeted(y=jnp.eye(3)).canonical(3)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        Targeted(target=jnp.zeros(2, jnp.int32)).canonical(3)
    assert Targeted(target=2).canonical(3).target.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="stack"):
        Untargeted(y=jnp.zeros(2, jnp.int32)).margin(jnp.zeros((2, 1)))
