"""`Defence`: a deployed model, and what an adversary who knows how it is defended attacks in its place."""

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
        return model
    if isinstance(model, Net):
        model = model.model()
    if not isinstance(model, Model):
        raise TypeError(f"a {type(model).__name__} cannot be evaluated; allowed: Model, Net or Defence. jaxsec.bind makes a Model.")
    twin = adaptive(model)
    return Defence(model=model) if twin.apply == model.apply else Defence(model=model, surrogates=(twin,))
