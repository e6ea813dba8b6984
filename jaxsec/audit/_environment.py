"""Where a number came from: versions, machine, fingerprints of model and data."""

import datetime
import hashlib
import os
import platform
import sys
from importlib import metadata
from typing import Any

import jax
import numpy as np

from ..core import Model

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "optax", "flax", "onnx")


def environment() -> dict[str, Any]:
    """Versions of what computes, the platform and the devices."""
    device = jax.devices()[0]
    return {
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    """The time as ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line() -> list[str]:
    """The command that runs, its program by name only: a path tells nothing and may name a person."""
    return [os.path.basename(sys.argv[0]) or "python", *sys.argv[1:]]


def hash_of(tree: Any) -> str:
    """SHA-256 of all array leaves: dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        a = np.asarray(leaf)
        digest.update(f"{a.dtype.str}{a.shape}".encode())
        digest.update(np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()


def model_facts(model: Model, n_classes: int) -> dict[str, Any]:
    """What the report says about the model."""
    leaves = jax.tree.leaves(model.params)
    info = model.info
    return {
        "name": info.name or "model",
        "source": info.source,
        "input_shape": None if info.input_shape is None else [int(s) for s in info.input_shape],
        "n_classes": n_classes,
        "parameters": int(sum(np.size(leaf) for leaf in leaves)),
        "sha256": hash_of(model.params),
        "stochastic": bool(model.stochastic),
        "notes": list(info.notes),
    }
