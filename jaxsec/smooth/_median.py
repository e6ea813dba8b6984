"""Median smoothing: certified lower and upper bounds of real outputs, by order statistics of noised copies."""

import dataclasses
import math
import os
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .. import __version__
from ..attack._checkpoint import held
from ..attack._progress import Report, progress
from ..core._check import check_finite
from ..core._meshes import on_any_mesh
from ..core._model import Model
from ..core._struct import Struct, static, struct
from ..threat import Threat
from ._inputs import Inputs, check_call, check_units, inputs_of, output_shape, row_words, rows_of
from ._kept import Kept
from ._lockstep import Lockstep
from ._method import Smoothing
from ._radius import norm_of
from ._randomizer import eps_of, randomizer_of
from ._ranks import bounds_of, lower_rank, shifted
from ._regression_certificate import RegressionCertificate
from ._sampling import as_run


@struct
class MedianSmoothing(Struct):
    """How outputs are bounded: the q-percentile of n noised copies, and the order statistics that bound it within the threat's radius.

    Guarantee: as `RegressionCertificate`.
    Args:
      sigma: standard deviation of the Gaussian noise in units of x, scalar or [B]. n: samples. q: in (0, 1), 0.5 the median.
      alpha: probability that a bound is wrong, half of it for each side. per: "output", for each output by itself, or "row", for all
        outputs of a row at once (alpha is divided by their number). dtype: "float32" or "bfloat16" for the forward pass.
    Cost: n forward passes a row, and n values of each output kept until its row is sorted.
    Source: Chiang et al. 2020, "Detection as regression: certified object detection by median smoothing".
    """

    name: ClassVar[str] = "median-smoothing"
    sigma: Any = None
    n: int = static(default=10_000)
    alpha: float = static(default=1e-3)
    q: float = static(default=0.5)
    per: str = static(default="output")
    dtype: str = static(default="float32")

    def check(self) -> None:
        """Raises ValueError for settings that make no sense."""
        Smoothing(sigma=self.sigma, n=self.n, alpha=self.alpha, dtype=self.dtype).check()
        if not 0 < self.q < 1:
            raise ValueError(f"q is {self.q!r}; it must be above 0 and below 1, 0.5 for the median.")
        if self.per not in ("output", "row"):
            raise ValueError(f"per is {self.per!r}; allowed are output and row.")


@dataclasses.dataclass
class _Tally:
    """What is known of each row, [N, M]; `finished` rows are not sampled again."""

    lower: np.ndarray
    predict: np.ndarray
    upper: np.ndarray
    nans: np.ndarray
    finished: np.ndarray


def _values(carry: None, outputs: jax.Array, used: jax.Array) -> jax.Array:
    """[S, n, M] float32."""
    return outputs.reshape(*outputs.shape[:2], -1).astype(jnp.float32)


@on_any_mesh
def certify_regression(
    model: Model, x: Any, *, threat: Threat, method: MedianSmoothing, key: Any, max_samples: int | None = None,
    progress: bool | Report | None = None, state: str | os.PathLike[str] | None = None,
) -> RegressionCertificate:  # fmt: skip
    """Certifies between which values the smoothed percentile of each output stays, wherever x moves in the threat set.

    Guarantee: as `RegressionCertificate`. Each row's result depends on the row, its number, the threat, the key and the method alone: to
      the last bit where the model's rows do not depend on the size of the batch (native dense and convolutional layers do not, see
      `tuned`), else up to the rounding in which they do.
    Args:
      model: gives floating values [B, ...], e.g. [B, M] numbers or [B, M, 4] boxes. x: [B, ...] float32, or uint8 that is read as 1/255
        of it, in the threat's box. threat: `L2`; or `L1` and `LInf`, by the L2 balls around them; eps a scalar or [B].
      key: PRNG key; row r samples from `fold_in(key, r)`. max_samples: noised copies in one forward pass.
      progress: as in `certify`. state: a folder; finished rows are kept there, and the same call goes on after a kill.
    Returns: RegressionCertificate.
    Raises: ValueError, TypeError: unusable inputs, or a call under `jit`.
    Cost: n forward passes a row. Memory: 4 n M bytes for each of two rows at once on the device, and twice that of one on the host,
      whatever B is.
    Edge cases: where n samples are too few for the radius the bounds are infinite; an output that is NaN counts against both bounds.
    Source: Chiang et al. 2020, lemma 1: `Phi(Phi^-1(q) -+ eps / sigma)`; where the paper has one percentile for continuous laws, the bound
      here holds for every q-quantile of any law.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> total = jaxsec.bind(lambda p, x: x @ p, jnp.ones((4, 1)) / 2)  # moves by at most eps
      >>> method = MedianSmoothing(sigma=0.5, n=10_000)
      >>> found = certify_regression(total, jnp.zeros((1, 4)), threat=jaxsec.L2(eps=0.25), method=method, key=jax.random.key(0))
      >>> bool(-0.3 < found.lower[0, 0] < -0.25), bool(0.25 < found.upper[0, 0] < 0.3)
      (True, True)
    """
    check_call("certify_regression", max_samples, model, x, threat)
    if not isinstance(method, MedianSmoothing):
        raise TypeError(f"method is {type(method).__name__}; needed: MedianSmoothing(sigma=...).")
    method.check()
    norm = norm_of(threat)
    check_units(x, threat)
    inputs = inputs_of(x, row_words(key, np.arange(rows_of(x))), randomizer_of("gaussian"), method.sigma)
    check_finite(inputs.values)
    threat.check(jnp.asarray(inputs.values))
    shape = output_shape(model, inputs, 2, "one array [B, ...] with at least two axes is needed, e.g. [B, 1] for one number.")
    eps, outputs = eps_of(threat, len(inputs.x)), math.prod(shape)
    # the L1 ball lies in the L2 ball of its radius, the Linf ball in that of sqrt(d) its radius
    reach = eps * (math.sqrt(math.prod(inputs.x.shape[1:])) if norm == "linf" else 1.0)
    share = method.alpha / 2 / (max(outputs, 1) if method.per == "row" else 1)
    below, left = (lower_rank(method.n, q, share) for q in shifted(method.q, reach / inputs.sigma.astype(np.float64)))
    ranks = np.stack([below, np.full(len(below), _middle(method)), method.n + 1 - left], 1)
    tally = _sampled(model, inputs, method, ranks, outputs, max_samples, progress, state)
    found = {name: getattr(tally, name).reshape(-1, *shape) for name in ("predict", "lower", "upper", "nans")}
    return RegressionCertificate(
        **found, eps=eps, samples=method.n, confidence=1 - method.alpha, q=method.q, per=method.per, norm=norm, dtype=method.dtype
    )


def _middle(method: MedianSmoothing) -> int:
    """The rank of the percentile among n samples: the least k with k / n >= q."""
    return max(1, math.ceil(method.n * method.q - 1e-9))  # 0.1 * 30 is above 3


def _sampled(
    model: Model, inputs: Inputs, method: MedianSmoothing, ranks: np.ndarray, outputs: int, max_samples: int | None,
    progress_to: bool | Report | None, state: str | os.PathLike[str] | None,
) -> _Tally:  # fmt: skip
    run = Lockstep(as_run(model, method.dtype), inputs, inputs.batch(model, max_samples), jnp.dtype(method.dtype))
    settings = repr((__version__, method.name, method.n, method.dtype))
    rows = len(inputs.x)
    with held(state), progress(progress_to, "open") as report:
        kept = Kept(state, "" if state is None else inputs.identity(model, settings, run.dtype, ranks), _Tally, "median")
        blank = np.zeros((rows, outputs), np.float32)
        tally: _Tally = kept.load() or _Tally(blank, blank.copy(), blank.copy(), np.zeros((rows, outputs), np.int64), np.zeros(rows, bool))

        def land(index: np.ndarray, found: list[tuple[jax.Array, int]]) -> None:
            values = np.concatenate([np.asarray(chunk)[:, :valid] for chunk, valid in found], 1)
            for slot, row in enumerate(index):
                tally.lower[row], tally.predict[row], tally.upper[row], tally.nans[row] = bounds_of(values[slot], *ranks[row].tolist())

        def tell() -> None:
            report(method.name, float(tally.finished.mean()), int((~tally.finished).sum()))
            kept.tick(tally)

        run.run(tally.finished, lambda index: run.outputs(_values, index, method.n), land, tell)
        kept.save(tally)
    return tally
