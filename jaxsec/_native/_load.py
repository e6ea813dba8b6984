"""Loading the compiled module once, on first use, and saying why where it is not there."""

import functools
import os

_SWITCH = "JAXSEC_NATIVE"


def available() -> bool:
    """Whether native operations run on the CPU: compiled, accepted by XLA and not switched off."""
    return status() == "loaded"


def status() -> str:
    """Why native operations are there or not.

    Guarantee: the module is loaded at most once a process; no JAX backend is started; the switch is read on each call, so that
    a test may flip it (programs already compiled keep what they were compiled with).

    Returns:
      str: "loaded", or a sentence that begins with "off", "not built" or "refused".

    Raises:
      ValueError: the environment variable `JAXSEC_NATIVE` is neither "0" nor "1".

    Example:
      >>> status().split()[0] in {"loaded", "off:", "not", "refused"}
      True
    """
    switch = os.environ.get(_SWITCH, "1")
    if switch not in {"0", "1"}:
        raise ValueError(f"{_SWITCH} is {switch!r}; allowed are 0 (pure JAX only) and 1 (native where built, the default).")
    return f"off: {_SWITCH}=0" if switch == "0" else _load()


@functools.cache
def _load() -> str:
    import jax

    try:
        from . import _cpu  # pyright: ignore[reportAttributeAccessIssue]  # compiled; absent in a source tree
    except ImportError as error:
        return f"not built: {error}"
    try:
        for name, target in _cpu.registrations().items():
            jax.ffi.register_ffi_target(name, target, platform="cpu")
    except Exception as error:  # jaxlib's own error type, when the headers of the build are newer than the jaxlib that runs
        return f"refused by XLA: {error}"
    return "loaded"
