"""Loading the compiled module once, on first use, and saying why where it is not there."""

import functools
import importlib
import os
import pathlib
import re

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
      >>> status().split()[0] in {"loaded", "off:", "not", "refused:"}
      True
    """
    return f"off: {_SWITCH}=0" if _switched_off() else _load()


def cuda_status() -> str:
    """As `status`, of the native operations for CUDA devices, which are built where nvcc is.

    Example:
      >>> cuda_status().split()[0] in {"loaded", "off:", "not", "refused:"}
      True
    """
    return f"off: {_SWITCH}=0" if _switched_off() else _load("cuda")


def _switched_off() -> bool:
    switch = os.environ.get(_SWITCH, "1")
    if switch not in {"0", "1"}:
        raise ValueError(f"{_SWITCH} is {switch!r}; allowed are 0 (pure JAX only) and 1 (native where built, the default).")
    return switch == "0"


def platforms() -> tuple[str, ...]:
    """The platforms, in words of `jax.lax.platform_dependent`, that have kernels here; those for TPUs (Pallas) need no compiled code."""
    return tuple(p for p, s in (("cpu", status()), ("cuda", cuda_status())) if s == "loaded") + (() if _switched_off() else ("tpu",))


def on_one_cpu() -> bool:
    """Whether a program traced here may call native code with whole arrays: it is there, and there is one CPU device.

    Among several XLA gathers the shards around a native call, so they run the twins.
    """
    return available() and cpu_devices() == 1


def cpu_devices() -> int:
    """How many there are among all processes; none where JAX was told to leave the CPU out."""
    import jax

    try:
        return len(jax.devices("cpu"))
    except RuntimeError:
        return 0


@functools.cache
def _load(platform: str = "cpu") -> str:
    try:
        module = importlib.import_module(f"._{platform}", __package__)
    except ImportError as error:
        return f"not built: {error}"
    refusal = _refusal(module.api_version, _running_api_version())
    if refusal:
        return refusal
    import jax

    for name, target in module.registrations().items():
        jax.ffi.register_ffi_target(name, target, platform="CUDA" if platform == "cuda" else platform)
    return "loaded"


def _refusal(built: tuple[int, int], running: tuple[int, int] | None) -> str:
    """Why a module built for the XLA FFI version `built` must not be registered, or nothing.

    JAX registers when the backend starts, and a handler from newer headers than the running jaxlib's then stops the whole CPU
    backend from starting. So the check comes first. XLA accepts older minor versions of the same major one.
    """
    if running is None:
        return "refused: the running jaxlib ships no readable XLA FFI header, so its version is unknown; reinstall jaxlib."
    if built[0] == running[0] and built[1] <= running[1]:
        return ""
    return (
        f"refused: built for XLA FFI {built[0]}.{built[1]}, but the running jaxlib has {running[0]}.{running[1]}; "
        "upgrade jax, or reinstall jaxsec with --no-build-isolation beside the jax you run."
    )


def _running_api_version() -> tuple[int, int] | None:
    """Read from the header in jaxlib: the version has no Python name."""
    import jax

    try:
        header = (pathlib.Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h").read_text()
    except OSError:
        return None
    found = [re.search(rf"#define XLA_FFI_API_{part} (\d+)", header) for part in ("MAJOR", "MINOR")]
    return (int(found[0][1]), int(found[1][1])) if found[0] and found[1] else None
