"""The host driver behind `certify(..., method=Smoothing(...))`."""

import math
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
from .._native import key_words
from ..attack._checkpoint import fingerprint, held, of_programs, read_npz, write_npz
from ..attack._progress import Report, progress
from ..core._check import check_batch, program_of
from ..core._keys import as_key, row_keys
from ..core._model import Model
from ..core._rewrite import tuned
from ..core._working_set import rows_in_cache
from ..threat import Threat
from ._certificate import SmoothedCertificate, SmoothedVerdict
from ._method import SmoothingMethod
from ._radius import norm_of, probability_for, radius_of
from ._sampling import Sampler, Tally
from ._schedule import CERTIFIED, REFUTED, Fixed, Rule, Within

_EVERY = 5.0  # seconds between two writes of the state


def certify_smoothed(
    model: Model, x: Any, y: Any, *, threat: Threat, method: SmoothingMethod, key: Any, max_samples: int | None = None,
    progress_to: bool | Report | None = None, state: str | os.PathLike[str] | None = None,
) -> SmoothedCertificate:  # fmt: skip
    """As `certify` with a smoothing method.

    x: [B, ...] float32 or uint8. max_samples: noised copies in one forward pass, by default what fits a CPU's caches, or 4096 elsewhere.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, x, y, threat))):
        raise TypeError(
            "certify with a smoothing method drives the device from the host and cannot run under jit or vmap; call it eagerly."
        )
    if max_samples is not None and (not isinstance(max_samples, int) or max_samples < 1):
        raise ValueError(f"max_samples is {max_samples!r}; it must be an int of at least 1, or None.")
    method.check()
    norm, sharding = norm_of(threat), _slots(x)
    host = np.asarray(x)
    _, labels, classes = check_batch(model, _floating(host), y, threat, 1)
    host = host if host.dtype == np.uint8 else host.astype(np.float32)
    rows, d = len(host), math.prod(host.shape[1:])
    eps = np.broadcast_to(np.asarray(threat.eps, np.float64).reshape(-1), (rows,))  # pyright: ignore[reportAttributeAccessIssue]  # a ball's
    sigma = np.broadcast_to(np.asarray(method.sigma, np.float32).reshape(-1), (rows,))

    def radius(p: np.ndarray, of: np.ndarray) -> np.ndarray:
        return radius_of(p, method.distribution, norm, sigma[of].astype(np.float64), d)

    rule = method.rule(probability_for(eps, method.distribution, norm, sigma.astype(np.float64), d), radius)
    words = (
        np.asarray(jax.vmap(key_words)(row_keys(as_key(key), jnp.arange(rows, dtype=jnp.uint32)))) if rows else np.zeros((0, 2), np.uint32)
    )
    one = _floating(host[:1]) if rows else np.zeros((1, *host.shape[1:]), np.float32)
    batch = max_samples or min(4096, rows_in_cache(model, one))
    sampler = Sampler(
        model=tuned(model) if method.dtype == "float32" else model,
        x=host, words=words, sigma=sigma, n0=method.n0, rule=rule,
        batch=batch, dtype=jnp.dtype(method.dtype), distribution=method.distribution, sharding=sharding,
    )  # fmt: skip
    with held(state), progress(progress_to, "open") as report:
        kept = _Kept(state, "" if state is None else _identity(model, host, words, sigma, eps, rule, method))
        tally = kept.load() or Tally.empty(rows, classes)

        def tell(now: Tally) -> None:
            report(method.name, float(now.finished.mean()), int((~now.finished).sum()))
            kept.save(now, at_least=_EVERY)

        tally = sampler.run(tally, tell)
        kept.save(tally)
    return _certificate(tally, labels, eps, rule, radius, method, norm)


def _certificate(
    tally: Tally, y: np.ndarray, eps: np.ndarray, rule: Rule, radius: Any, method: SmoothingMethod, norm: str
) -> SmoothedCertificate:
    hits, every = tally.hits, np.arange(len(y))
    p = rule.lower(hits, tally.n) if len(y) else np.zeros(0)
    found = np.where(p > 0.5, radius(p, every), 0.0)
    fixed = isinstance(rule, Fixed | Within)
    # a test that says yes at eps certifies eps, whatever the interval that is left says
    found = np.where((tally.shown == CERTIFIED) & (not fixed), np.maximum(found, eps), found)
    predict = np.where((p > 0.5) | ((tally.shown == CERTIFIED) & (not fixed)), tally.top, -1)
    right = tally.top == y
    robust = right & (predict >= 0) & (found >= eps)
    status = np.where(robust, SmoothedVerdict.CERTIFIED, SmoothedVerdict.OPEN)
    status = np.where(~robust & (tally.shown == REFUTED), SmoothedVerdict.REFUTED, status)
    status = np.where(~right, SmoothedVerdict.WRONG, status)
    return SmoothedCertificate(
        robust=robust, radius=found, predict=predict, p_lower=p, counts=tally.counts, samples=tally.n + method.n0,
        status=status.astype(np.int32), confidence=1 - method.alpha, method=method.name, distribution=method.distribution, norm=norm,
        dtype=method.dtype,
    )  # fmt: skip


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


def _floating(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def _identity(
    model: Model, x: np.ndarray, words: np.ndarray, sigma: np.ndarray, eps: np.ndarray, rule: Rule, method: SmoothingMethod
) -> str:
    """What decides the counts. How many samples run at once does not."""
    one = _floating(x[:1]) if len(x) else np.zeros((1, *x.shape[1:]), np.float32)
    asked = () if isinstance(rule, Fixed | Within) else (eps,)
    settings = repr((__version__, method.name, type(rule).__name__))
    return fingerprint(model, x, words, sigma, method, *asked, *of_programs(settings, [program_of(model, one)]))


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
