"""The host driver behind `certify(..., method=Smoothing(...))`."""

import os
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import __version__
from ..attack._checkpoint import held
from ..attack._progress import Report, progress
from ..core._check import check_batch
from ..core._meshes import on_any_mesh
from ..core._model import Model
from ..threat import Threat
from ._certificate import SmoothedCertificate
from ._inputs import check_call, check_units, inputs_of, rows_of
from ._kept import Kept
from ._method import SmoothingMethod
from ._randomizer import eps_of
from ._sampling import Sampler, Tally, as_run
from ._schedule import Fixed


@on_any_mesh
def certify_smoothed(
    model: Model, x: Any, y: Any, *, threat: Threat, method: SmoothingMethod, key: Any, max_samples: int | None = None,
    progress_to: bool | Report | None = None, state: str | os.PathLike[str] | None = None,
) -> SmoothedCertificate:  # fmt: skip
    """As `certify` with a smoothing method.

    x: [B, ...] float32, or uint8 that is read as 1/255 of it.
    max_samples: samples in one forward pass, by default what fits a CPU's caches, or 4096 elsewhere.
    """
    check_call("certify with a smoothing method", max_samples, model, x, y, threat)
    check_units(x, threat)
    method.check()
    method = method.fitted(np.shape(x)[1:])
    inputs = inputs_of(x, method.words(key, np.arange(rows_of(x))), method.randomizer, method.sigma)
    rows = len(inputs.x)
    reach = inputs.randomizer.reach(threat, inputs.sigma.astype(np.float64), np.shape(x)[1:])
    _, labels, classes = check_batch(model, inputs.values, y, threat, 1, inputs.shown)
    eps, rule = eps_of(threat, rows), method.rule(reach.p0, reach.radius)
    batch, dtype = inputs.batch(model, max_samples), jnp.dtype(method.dtype)
    sampler = Sampler(as_run(model, method.dtype), inputs, method.n0, rule, batch, dtype)
    identity = ""
    if state is not None:
        # when a row stops, and what its stop means, depends on the probability that certifies eps in this norm
        asked = () if isinstance(rule, Fixed) else (eps, reach.p0, np.frombuffer(reach.norm.encode(), np.uint8))
        identity = inputs.identity(model, repr((__version__, method.name, type(rule).__name__)), dtype, method, *asked, classes=classes)
    with held(state), progress(progress_to, "open") as report:
        kept = Kept(state, identity, Tally, "smooth")
        tally: Tally = kept.load() or Tally.empty(rows, classes)

        def tell(now: Tally) -> None:
            report(method.name, float(now.finished.mean()), int((~now.finished).sum()))
            kept.tick(now)

        tally = sampler.run(tally, tell)
        kept.save(tally)
    return method.conclude(tally, labels, eps, rule, reach)
