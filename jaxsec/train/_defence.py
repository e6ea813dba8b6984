"""`Defence`: a deployed model, and what an adversary who knows how it is defended attacks in its place."""

import jax

from ..core import Model, Struct, static, struct
from ._net import Net
from ._transform import adaptive


@struct
class Defence(Struct):
    """A deployed model, and what an adversary who knows the defence differentiates in its place.

    Attributes:
      model: what is deployed and judged.
      surrogates: models of the same rows, such as the twin with straight-through gradients or logits before a temperature; none means that
        the model is its own. They only propose inputs. note: what was done, for reports (static).
    """

    model: Model
    surrogates: tuple[Model, ...] = ()
    note: str = static(default="")


def defence_of(model: Model | Net | Defence) -> Defence:
    """The record of a model: a model behind input transformations with its twin, any other as its own surrogate.

    Of a `Defence` the model and those surrogates that are behind transformations themselves get their twins beside them.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import BitDepth, defended
      >>> def linear(w, x):
      ...     return x @ w
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> len(defence_of(model).surrogates), len(defence_of(defended(model, BitDepth(bits=2))).surrogates)
      (0, 1)
    """
    if isinstance(model, Defence):
        listed = list(model.surrogates)
        for twin in map(_twin_of, (*model.surrogates, model.model)):
            if twin is not None and not any(_same(twin, s) for s in listed):
                listed.append(twin)
        return model.replace(surrogates=tuple(listed)) if len(listed) > len(model.surrogates) else model
    if isinstance(model, Net):
        model = model.model()
    if not isinstance(model, Model):
        raise TypeError(f"a {type(model).__name__} cannot be evaluated; allowed: Model, Net or Defence. jaxsec.bind makes a Model.")
    twin = _twin_of(model)
    return Defence(model=model, surrogates=() if twin is None else (twin,))


def _same(a: Model, b: Model) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        v is w for v, w in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _twin_of(model: Model) -> Model | None:
    """The model with derivatives that see through its transformations; None where it has none, or has them already."""
    twin = adaptive(model)
    # programs are part of the structure, those of models among the parameters too
    return None if jax.tree.structure(twin) == jax.tree.structure(model) else twin
