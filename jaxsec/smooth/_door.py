"""The host driver behind `certify(..., method=Smoothing(...))`."""

import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from .. import __version__
from ..attack._checkpoint import fingerprint, held, of_programs, read_npz, write_npz
from ..attack._progress import Report, progress
from ..core._check import check_batch, program_of
from ..core._model import Model
from ..core._rewrite import tuned
from ..core._working_set import rows_in_cache
from ..threat import Threat
from ._certificate import SmoothedCertificate
from ._method import SmoothingMethod
from ._randomizer import Randomizer, eps_of
from ._sampling import Sampler, Tally
from ._schedule import Fixed, Rule, Within

_EVERY = 5.0  # seconds between two writes of the state


def certify_smoothed(
    model: Model, x: Any, y: Any, *, threat: Threat, method: SmoothingMethod, key: Any, max_samples: int | None = None,
    progress_to: bool | Report | None = None, state: str | os.PathLike[str] | None = None,
) -> SmoothedCertificate:  # fmt: skip
    """As `certify` with a smoothing method.

    x: [B, ...] float32, or uint8 that is read as 1/255 of it.
    max_samples: samples in one forward pass, by default what fits a CPU's caches, or 4096 elsewhere.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, x, y, threat))):
        raise TypeError(
            "certify with a smoothing method drives the device from the host and cannot run under jit or vmap; call it eagerly."
        )
    if max_samples is not None and (not isinstance(max_samples, int) or max_samples < 1):
        raise ValueError(f"max_samples is {max_samples!r}; it must be an int of at least 1, or None.")
    method.check()
    sharding, host = _slots(x), np.asarray(x)
    method = method.fitted(host.shape[1:])
    randomizer, rows = method.randomizer, len(host)
    sigma = np.broadcast_to(np.asarray(method.sigma if randomizer.scaled else 1.0, np.float32).reshape(-1), (rows,))
    reach = randomizer.reach(threat, sigma.astype(np.float64), host.shape[1:])
    host, shared = randomizer.held(host), randomizer.shared(sigma)
    shown = _shown(randomizer, host, shared)
    values = host.astype(np.float32) / 255 if host.dtype == np.uint8 else host
    _, labels, classes = check_batch(model, values, y, threat, 1, shown)
    eps, rule, words = eps_of(threat, rows), method.rule(reach.p0, reach.radius), method.words(key, rows)
    batch = max_samples or min(4096, rows_in_cache(model, shown))
    sampler = Sampler(
        model=tuned(model) if method.dtype == "float32" else model,
        x=host, words=words, sigma=sigma, n0=method.n0, rule=rule,
        batch=batch, randomizer=randomizer, dtype=jnp.dtype(method.dtype), shared=shared, sharding=sharding,
    )  # fmt: skip
    with held(state), progress(progress_to, "open") as report:
        kept = _Kept(state, "" if state is None else _identity(model, host, words, sigma, eps, rule, method, shown))
        tally = kept.load() or Tally.empty(rows, classes)

        def tell(now: Tally) -> None:
            report(method.name, float(now.finished.mean()), int((~now.finished).sum()))
            kept.save(now, at_least=_EVERY)

        tally = sampler.run(tally, tell)
        kept.save(tally)
    return method.conclude(tally, labels, eps, rule, reach)


def _shown(randomizer: Randomizer, x: np.ndarray, shared: tuple[Any, ...]) -> jax.ShapeDtypeStruct:
    """[1, ...] what the model is shown of a row."""

    def one(words: jax.Array, x: jax.Array, sigma: jax.Array, shared: tuple[Any, ...]) -> jax.Array:
        return randomizer.draw(words, x, words, sigma, shared, n=1, dtype=jnp.float32)

    row = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    return jax.eval_shape(one, jax.ShapeDtypeStruct((1, 2), jnp.uint32), row, jax.ShapeDtypeStruct((1,), jnp.float32), shared)


def _slots(x: Any) -> NamedSharding | None:
    """How slots lie on devices: as the rows of x do; None where that is one device."""
    if not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1:
        return None
    if not isinstance(x.sharding, NamedSharding) or not x.sharding.spec or x.sharding.spec[0] is None:
        raise ValueError(
            f"x lies on {len(x.sharding.device_set)} devices by {x.sharding}; shard its first axis by a NamedSharding, or give "
            "np.asarray(x)."
        )
    return NamedSharding(x.sharding.mesh, PartitionSpec(x.sharding.spec[0]))


def _identity(
    model: Model, x: np.ndarray, words: np.ndarray, sigma: np.ndarray, eps: np.ndarray, rule: Rule, method: SmoothingMethod, shown: Any
) -> str:
    """What decides the counts. How many samples run at once does not."""
    asked = () if isinstance(rule, Fixed | Within) else (eps,)
    settings = repr((__version__, method.name, type(rule).__name__))
    return fingerprint(model, x, words, sigma, method, *asked, *of_programs(settings, [program_of(model, shown)]))


class _Kept:
    """The tally on disk, one file for each question."""

    def __init__(self, folder: str | os.PathLike[str] | None, identity: str):
        self._path = None if folder is None else Path(folder) / f"smooth-{identity[:16]}.npz"
        self._saved = time.monotonic()

    def load(self) -> Tally | None:
        """What a former call found; None where there is nothing that can be read."""
        file = None if self._path is None else read_npz(self._path)
        return Tally(**file) if file is not None and set(file) == set(Tally.__dataclass_fields__) else None

    def save(self, tally: Tally, at_least: float = 0.0) -> None:
        """Writes unless the last time is less than `at_least` seconds ago; a kill while writing leaves the former file whole."""
        if self._path is None or time.monotonic() - self._saved < at_least:
            return
        write_npz(self._path, {name: getattr(tally, name) for name in Tally.__dataclass_fields__})
        self._saved = time.monotonic()
