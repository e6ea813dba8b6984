"""`LocalModel`: a model asked again after a change inside one window of each image, which computes only what the change reaches."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._native import Images, on_one_cpu
from ._local_rules import Local, Tape, local_rules
from ._model import Model
from ._rewrite import Tuned, run

Caches = tuple[jax.Array, ...]
_ROOM = 32  # times an image, for what is remembered of it: wide nets would need more than their weights


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """The logits of `model` for images that differ from known ones inside a window.

    Guarantee: equal to the model's up to float32 rounding, which does not add up over changes; for convolutions, ReLU, pools and dense
    layers a row's logits are the same bits whatever its window, as long as that holds all that changed, and whatever the batch.
    Args: axes: those of a row that are height, width and channels.
    Cost: memory, up to 32 times the images, for the outputs of the convolutions and of the dense layer that open the program. From the
    first operation on that no rule knows, or that would need more, the whole model is evaluated.
    """

    model: Model
    axes: tuple[int, int, int]

    def start(self, x: jax.Array) -> tuple[jax.Array, Caches]:
        """(logits [B, K], what to remember of them: arrays with the batch axis first)."""
        h, w, _ = self.axes
        whole = jnp.asarray([0, x.shape[1 + h], 0, x.shape[1 + w]], jnp.int32)
        logits, found = self.ask(None, x, jnp.broadcast_to(whole, (x.shape[0], 4)))
        return logits, tuple(images.fresh for images in found)

    def ask(self, caches: Caches | None, x: jax.Array, window: jax.Array) -> tuple[jax.Array, list[Images]]:
        """Logits [B, K] of `x`, which differs from the remembered images inside `window` [B, 4] at most (top, bottom, left, right; the
        ends excluded), and what to `settle` to remember `x` instead. The logits of a row with an empty window mean nothing."""

        def whole(params: Any, caches: Caches | None, x: jax.Array, window: jax.Array) -> tuple[jax.Array, list[Images]]:
            logits, found = jax.eval_shape(self._ask, params, caches, x, window)
            return self.model.apply.inner(params, x).astype(logits.dtype), jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), found)

        return lax.platform_dependent(self.model.params, caches, x, window, cpu=self._ask, default=whole)

    def _ask(self, params: Any, caches: Caches | None, x: jax.Array, window: jax.Array) -> tuple[jax.Array, list[Images]]:
        n = x.shape[0]
        if n == 1:  # rules tell constants from rows by the length of the first axis
            x, window, caches = jax.tree.map(lambda a: jnp.repeat(a, 2, axis=0), (x, window, caches))
        order = (0, *(1 + a for a in self.axes))
        tape = Tape(caches, _ROOM * math.prod(x.shape[1:]))
        start = Local.known(jnp.transpose(x, order), order, x.shape, window, tape)
        closed = jax.make_jaxpr(self.model.apply.inner)(params, x)
        (logits,) = run(closed, [*jax.tree.leaves(params), start], local_rules())
        return logits[:n], [Images(*(a[:n] for a in images)) for images in tape.found()]


def local(model: Model, axes: Sequence[int | None], dtype: Any) -> LocalModel | None:
    """The model as a `LocalModel`, None where that is of no use: not tuned, stochastic, no channel axis, no native code,
    another platform."""
    h, w, c = axes
    useful = isinstance(model.apply, Tuned) and not model.stochastic and jax.default_backend() == "cpu" and on_one_cpu()
    if not useful or h is None or w is None or c is None or dtype != jnp.float32:
        return None
    return LocalModel(model, (h, w, c))
