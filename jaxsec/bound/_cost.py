"""What CROWN costs on a model, before it runs."""

import math
from typing import Any

import jax

from ..core._model import Model
from ._lines import carried
from ._run import of_model, output


def walks(model: Model, x: Any) -> int:
    """How many elements of a row's program CROWN walks back from: about the forward passes that it takes per row, at most.

    Raises: UnsupportedPrimitive: an operation of the model has no rule.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxsec
      >>> from jaxsec.bound import walks
      >>> def net(params, x):
      ...     return jax.nn.relu(x @ params) @ params.T
      >>> walks(jaxsec.bind(net, jnp.ones((3, 7))), np.zeros((1, 3), np.float32))
      7
    """
    graph = of_model(model, jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), native=False)  # pyright: ignore[reportArgumentType]
    return sum(math.prod(graph.nodes[target].shape) for target in carried(graph, output(graph)))
