"""The optimizer of a run: AdamW with a schedule over its updates, or the user's own."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import optax


def default_optimizer(total: int, learning_rate: float = 2e-3, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """AdamW with a warm-up over the first twentieth of `total` updates, a cosine to 0, and gradients clipped to length 10."""
    warm = max(1, total // 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm, max(total, warm + 1))
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adamw(schedule, weight_decay=weight_decay))


def optimizer_of(asked: Any, total: int) -> Any:
    """The transformation that is meant: the default one, one that a function of the number of updates makes, or the given one."""
    if asked is None:
        asked = default_optimizer
    if callable(asked) and not hasattr(asked, "update"):
        if next(iter(inspect.signature(asked).parameters), "") == "learning_rate":
            name = getattr(asked, "__name__", "adam")
            raise TypeError(
                f"optimizer is the function {name}, whose first argument is a learning rate; call it, as in optax.{name}(1e-3), or pass a "
                f"function of the number of updates: lambda total: optax.{name}(optax.cosine_decay_schedule(1e-3, total))."
            )
        asked = _made(asked, total)
    if not (hasattr(asked, "init") and hasattr(asked, "update")):
        raise TypeError(f"optimizer is {type(asked).__name__}; an optax transformation is needed, or a function of the number of updates.")
    return asked


@functools.lru_cache(maxsize=32)
def _made(make: Callable[[int], Any], total: int) -> Any:
    """The same functions for the same run, so that a second seed compiles nothing."""
    return make(total)
