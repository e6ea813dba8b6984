"""`predict`: what the smoothed classifier answers, with abstention."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..attack._progress import Report
from ..attack._progress import progress as progress_bar
from ..core._check import check_finite, n_classes_of
from ..core._meshes import on_any_mesh
from ..core._model import Model
from ..core._struct import Struct, struct
from ._inputs import Inputs, check_call, ids_of, inputs_of
from ._method import SmoothingMethod
from ._sampling import Sampler, Tally, as_run
from ._schedule import Fixed


@struct
class SmoothedPrediction(Struct):
    """predict: [B] int, -1 where it abstains. counts: [B, K] int32, votes of the samples."""

    predict: np.ndarray | jax.Array
    counts: np.ndarray | jax.Array


@on_any_mesh
def predict(
    model: Model, x: Any, *, method: SmoothingMethod, key: Any, row_ids: Any = None, max_samples: int | None = None,
    progress: bool | Report | None = None,
) -> SmoothedPrediction:  # fmt: skip
    """The smoothed classifier's class of each row, where the samples show it.

    Guarantee: for each row, a class that is returned is not the smoothed classifier's with a probability of at most alpha.
    Args:
      model, x: as in `certify`. key: a PRNG key; row r samples from `fold_in(key, row_ids[r])`, r itself by default.
      method: its `n` samples are all counted; sigma, alpha, distribution and dtype are read too, when it would stop is not.
      max_samples, progress: as in `certify`.
    Returns: SmoothedPrediction.
    Raises: ValueError, TypeError: as `certify`.
    Cost: n forward passes a row.
    Edge cases: an empty batch; a tie abstains. Methods that count all variations take no key and never abstain.
    Source: Cohen et al. 2019, PREDICT and proposition 2.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params
      >>> model, method = jaxsec.bind(linear, jnp.eye(2)), jaxsec.Smoothing(sigma=0.1, n=200)
      >>> predict(model, np.array([[0.9, 0.1], [0.5, 0.5]], np.float32), method=method, key=jax.random.key(0)).predict.tolist()
      [0, -1]
    """
    check_call("predict", max_samples, model, x)
    method.check()
    method = method.fitted(np.shape(x)[1:])
    inputs = inputs_of(x, method.words(key, ids_of(x, row_ids)), method.randomizer, method.sigma)
    check_finite(inputs.values)
    with progress_bar(progress, "open") as report:
        counts = counts_of(model, inputs, method, max_samples, report)
    return SmoothedPrediction(predict=method.answer(counts), counts=counts)


def counts_of(model: Model, inputs: Inputs, method: SmoothingMethod, max_samples: int | None, report: Report) -> np.ndarray:
    """[B, K] votes of samples 0 .. n - 1 of every row."""
    rule, batch = Fixed(method.n, method.alpha), inputs.batch(model, max_samples)
    sampler = Sampler(as_run(model, method.dtype), inputs, 0, rule, batch, jnp.dtype(method.dtype))

    def tell(now: Tally) -> None:
        report("predict", float(now.finished.mean()), int((~now.finished).sum()))

    return sampler.run(Tally.empty(len(inputs.x), n_classes_of(model, inputs.shown)), tell).counts
