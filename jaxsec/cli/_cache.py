"""Compiled programs kept between runs of the command line: compiling is a one-time cost."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import platformdirs

_BYTES = 2**30


def keep_programs() -> Path | None:
    """Points JAX's persistent compilation cache at the user's cache folder; gives the folder, None if another choice was made.

    A choice of the user (`JAX_COMPILATION_CACHE_DIR`, `JAX_ENABLE_COMPILATION_CACHE=false`) stands. The folder is per kind of
    processor, because machine code of one may not run on another that shares the home folder; old programs leave at 1 GiB.
    """
    import jax

    config: Any = jax.config

    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return None
    folder = Path(platformdirs.user_cache_dir("jaxsec")) / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_compilation_cache_max_size", _BYTES)
    config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return folder


def _processor() -> str:
    """A short name of what this processor can execute."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    features = sorted({line.partition(":")[2].strip() for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join([platform.machine(), *features]).encode()).hexdigest()[:12]
