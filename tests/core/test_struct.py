import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.core._struct import Struct, static, struct


@struct
class Left(Struct):
    value: jax.Array
    name: str = static(default="same")


@struct
class Right(Struct):
    value: jax.Array
    name: str = static(default="same")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Doubles:
    weight: jax.Array

    def __call__(self, x):
        return 2 * x @ self.weight


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Halves:
    weight: jax.Array

    def __call__(self, x):
        return 0.5 * x @ self.weight


def test_structures_of_different_classes_differ():
    """`jit` looks a program up by the structure: equal ones would run one class's program on another's values."""
    assert jax.tree.structure(Left(value=1.0)) != jax.tree.structure(Right(value=1.0))
    assert jax.tree.structure(Left(value=1.0)) == jax.tree.structure(Left(value=2.0))
    assert jax.tree.structure(Left(value=1.0)) != jax.tree.structure(Left(value=1.0, name="other"))


BALLS = [jaxsec.LInf(eps=1.0), jaxsec.L2(eps=1.0), jaxsec.L1(eps=1.0)]


@pytest.mark.parametrize("a", BALLS, ids=lambda t: t.norm)
def test_no_two_threats_share_a_structure(a):
    assert [jax.tree.structure(a) == jax.tree.structure(b) for b in BALLS] == [a is b for b in BALLS]


def test_callables_of_different_dataclasses_are_different_models():
    a, b = jaxsec.bind(Doubles(jnp.eye(2))), jaxsec.bind(Halves(jnp.eye(2)))
    assert jax.tree.structure(a) != jax.tree.structure(b) and a.apply != b.apply
    assert jaxsec.bind(Doubles(jnp.ones((2, 2)))).apply == a.apply


def test_round_trip_replace_and_paths():
    node = Left(value=jnp.arange(2.0), name="n")
    leaves, structure = jax.tree.flatten(node)
    back = jax.tree.unflatten(structure, leaves)
    assert back.name == "n" and back.value is leaves[0]
    assert jax.tree_util.keystr(jax.tree_util.tree_flatten_with_path(node)[0][0][0]) == ".value"
    assert node.replace(name="m").name == "m"
    with pytest.raises(TypeError):
        node.replace(nothing=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        node.name = "x"


def test_a_noun_shows_shapes_not_numbers():
    model = jaxsec.bind(lambda p, x: x @ p, jnp.eye(300))
    assert "params=float32[300,300]" in repr(model) and len(repr(model)) < 400
    assert "eps=0.1" in repr(jaxsec.LInf(eps=0.1)) and "eps=float32[4]" in repr(jaxsec.LInf(eps=jnp.zeros(4)))
    assert "step_size=0.5" in repr(jaxsec.PGD(step_size=np.float32(0.5)))
    shown = []
    jax.jit(lambda m: shown.append(repr(m)) or m.params)(model)  # under a trace too
    assert "float32[300,300]" in shown[0]
