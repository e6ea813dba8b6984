"""A clock that stands still while XLA compiles: what a time limit buys is then the same with and without a cache of compiled programs."""

import functools
import time

import jax

# Neither is ever inside the other, so that nothing is counted twice.
_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
_spent = [0.0]


def work_time() -> float:
    """Seconds since some moment, less those that this process has spent compiling since the first call. Never goes back."""
    _listening()
    return time.monotonic() - _spent[0]


@functools.cache
def _listening() -> None:
    jax.monitoring.register_event_duration_secs_listener(_note)


def _note(event: str, duration_secs: float, **_: str | int) -> None:
    if event in _COMPILING:
        _spent[0] += duration_secs
