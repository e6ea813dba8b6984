"""SmoothAdv: the attack on smoothed classifiers, whose successes are judged by fresh samples of the classifier that is certified."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..attack._progress import Report
from ..attack._progress import progress as progress_bar
from ..core._batch import bucket, pad_rows, take_leaves
from ..core._check import check_batch
from ..core._keys import as_key, fold
from ..core._meshes import on_any_mesh
from ..core._model import Model
from ..core._rewrite import tuned
from ..core._struct import Struct, struct
from ..threat import L0, Patch, Threat
from ._exhaustive import ExhaustiveSmoothing
from ._inputs import Inputs, check_call, check_units, ids_of, inputs_of, row_words
from ._method import SmoothingMethod
from ._predict import counts_of
from ._randomizer import Randomizer

_FEWEST = 4  # rows worked on at once, where memory allows no more


@dataclasses.dataclass(frozen=True)
class SmoothAdv:
    """Projected gradient ascent on `-log mean_i softmax(f(x + noise_i))_y`, the loss of the smoothed classifier itself.

    Guarantee: every iterate lies in the threat set; the noise of a step is fresh, so that no draw is fitted.
    Args:
      steps: of each run, the first of length `step * eps` in the threat's norm and the others ever shorter; None is 4 / steps.
      noises: samples in a gradient.
      restarts: the first from the row itself, the others from random points of the set.
    Cost: `restarts * steps * noises` forward and backward passes a row.
    Edge cases: of `L0` and `Patch` each iterate is the best point of the set for the sum of the gradients so far, a corner of the box.
    Source: Salman et al. 2019, eq. (5) and (6), "SmoothAdv PGD". Theirs keeps one set of draws over the steps.
    """

    steps: int = 20
    noises: int = 32
    restarts: int = 1
    step: float | None = None

    def check(self) -> None:
        """Raises ValueError for settings that make no sense."""
        for name in ("steps", "noises", "restarts"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be an int of at least 1.")
        if self.step is not None and not self.step > 0:
            raise ValueError(f"step is {self.step!r}; it must be positive, in multiples of eps, or None.")


@struct
class SmoothedAttack(Struct):
    """One row per input.

    Guarantee: where `success`, `x` lies in the threat set and the smoothed classifier does not answer y there; that is wrong for a row
      with a probability of at most alpha over the samples that judged it, which no gradient saw. Rows wrong before are successes.

    Attributes:
      x: [B, ...] float32 input, the last iterate where none succeeded. success: [B] bool. predict: [B] int, of the smoothed classifier at
      x, -1 where the samples do not tell. distance: [B] in the threat's norm. counts: [B, K] int32 votes at x.
    """

    x: np.ndarray | jax.Array
    success: np.ndarray | jax.Array
    predict: np.ndarray | jax.Array
    distance: np.ndarray | jax.Array
    counts: np.ndarray | jax.Array


@on_any_mesh
def attack_smoothed(
    model: Model, x: Any, y: Any, *, threat: Threat, method: SmoothingMethod, key: Any, attack: SmoothAdv = SmoothAdv(),
    row_ids: Any = None, max_samples: int | None = None, progress: bool | Report | None = None,
) -> SmoothedAttack:  # fmt: skip
    """Searches the threat set around each row for an input that the smoothed classifier gets wrong.

    Guarantee: as `SmoothedAttack`: with certificates of the same classifier, certified <= true robustness <= attacked, up to the
      probabilities of both. A row's result does not depend on its neighbours or on `max_samples`, up to the rounding of XLA's batches.
    Args:
      model, x, y, threat: as in `certify`. method: what the smoothed classifier is (sigma, distribution, dtype), and with how many samples
        (`n`) at what alpha inputs are judged. attack: how the search goes. key: a PRNG key; the search and the judges draw apart.
      row_ids: [B] the rows' numbers, from which they draw, 0 .. B - 1 by default. max_samples, progress: as in `certify`.
    Returns: SmoothedAttack.
    Raises: ValueError, TypeError: as `certify`; rows of integers that are no images have no gradient.
    Cost: that of `attack`, and n forward passes a row and restart.
    Edge cases: where samples abstain, no success is counted. Of noise on a grid the input is moved to the grid, towards the row.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params
      >>> model, method = jaxsec.bind(linear, jnp.eye(2)), jaxsec.Smoothing(sigma=0.1, n=500)
      >>> x, y, key = np.array([[0.9, 0.1], [0.55, 0.45]], np.float32), np.array([0, 0]), jax.random.key(0)
      >>> attack_smoothed(model, x, y, threat=jaxsec.L2(eps=0.3), method=method, key=key).success.tolist()
      [False, True]
    """
    check_call("attack_smoothed", max_samples, model, x, y, threat)
    check_units(x, threat)
    method.check()
    attack.check()
    if not method.randomizer.smooth:
        raise ValueError(
            f"the distribution is {method.randomizer.name}, whose samples move with x in steps: their gradient is 0 and would find "
            "nothing. Attack the model, or another distribution."
        )
    ids, method = ids_of(x, row_ids), method.fitted(np.shape(x)[1:])
    search_key, judge_key = jax.random.split(as_key(key))
    inputs = inputs_of(x, row_words(search_key, ids), method.randomizer, method.sigma)
    if not (np.issubdtype(inputs.x.dtype, np.floating) or inputs.x.dtype == np.uint8):
        raise TypeError(f"x has dtype {inputs.x.dtype}; a gradient attack needs floating rows, or uint8 images.")
    values, labels, classes = check_batch(model, inputs.values, y, threat, 1, inputs.shown)
    values = np.asarray(values)
    rows = len(values)
    found = SmoothedAttack(
        x=values.copy(), success=np.zeros(rows, bool), predict=np.full(rows, -1), distance=np.zeros(rows),
        counts=np.zeros((rows, classes), np.int32)
    )  # fmt: skip
    ball = jax.tree.map(np.asarray, threat.canonical(jnp.asarray(values))) if rows else threat
    search = _Search(tuned(model), inputs, labels, ball, attack, max_samples)
    standing = np.arange(rows)
    exact = isinstance(method, ExhaustiveSmoothing)  # judged by all variations, which no key decides
    with progress_bar(progress, "standing") as report:
        for run in range(attack.restarts + 1 if rows else 0):
            # first the rows as they are, then what each search finds
            at = values[standing] if run == 0 else inputs.randomizer.settled(values[standing], search.run(run, standing))
            judge = method.words(None if exact else jax.random.fold_in(judge_key, run), ids[standing])
            counts = counts_of(model, inputs.taken(standing, at, judge), method, max_samples, report)
            answer = method.answer(counts, looks=attack.restarts + 1)  # every look may err
            inside = search.inside(standing, at)
            found.x[standing], found.predict[standing], found.counts[standing] = at, answer, counts
            hit = (answer >= 0) & (answer != labels[standing]) & inside
            found.success[standing[hit]] = True
            report("smoothadv", (run + 1) / (attack.restarts + 1), int((~hit).sum()))
            if not len(standing := standing[~hit]):
                break
    away = np.asarray(threat.distance(jnp.asarray(values), jnp.asarray(found.x)), np.float64) if rows else found.distance
    return found.replace(distance=away)


@dataclasses.dataclass(frozen=True)
class _Search:
    """The ascent, on chunks of one size so that one program serves all rows, runs and budgets."""

    model: Model
    inputs: Inputs
    y: np.ndarray
    threat: Threat
    attack: SmoothAdv
    max_samples: int | None

    def threat_of(self, rows: np.ndarray) -> Threat:
        return take_leaves(self.threat, rows, len(self.y))

    def inside(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """[len(rows)] bool: in the set. Always of as many rows as there are, so that nothing is compiled for another number."""
        whole = pad_rows(rows, len(self.y))
        moved = at[pad_rows(np.arange(len(rows)), len(self.y))]
        return np.asarray(_contains(self.threat_of(whole), self.inputs.values[whole], moved))[: len(rows)]

    def run(self, run: int, rows: np.ndarray) -> np.ndarray:
        """[len(rows), ...] where the search of that number ends; run 1 starts from the rows."""
        size = max(_FEWEST, self.inputs.batch(self.model, self.max_samples, backward=True) // self.attack.noises)
        size = min(size, bucket(len(self.y), size))
        ends = [self._chunk(run, pad_rows(rows[i : i + size], size))[: len(rows) - i] for i in range(0, len(rows), size)]
        return np.concatenate(ends)

    def _chunk(self, run: int, rows: np.ndarray) -> np.ndarray:
        inputs, attack = self.inputs, self.attack
        step = 4 / attack.steps if attack.step is None else attack.step
        arrays = [a[rows] for a in (inputs.values, self.y, inputs.words, inputs.sigma)]
        how = {"steps": attack.steps, "noises": attack.noises, "randomizer": inputs.randomizer}
        return np.asarray(_ascent(self.model, *arrays, self.threat_of(rows), inputs.shared, np.float32(step), np.uint32(run), **how))


@jax.jit
def _contains(threat: Threat, x0: jax.Array, x: jax.Array) -> jax.Array:
    return threat.contains(x0, x)


@functools.partial(jax.jit, static_argnames=("steps", "noises", "randomizer"))
def _ascent(
    model: Model, x0: jax.Array, y: jax.Array, words: jax.Array, sigma: jax.Array, threat: Threat, shared: tuple[Any, ...], step: jax.Array,
    run: jax.Array, *, steps: int, noises: int, randomizer: Randomizer,
) -> jax.Array:  # fmt: skip
    """[B, ...] the last iterate; steps shorten to nothing, so that noise in the gradients averages out."""

    def loss(x: jax.Array, first: jax.Array) -> jax.Array:
        logits = model(randomizer.draw(words, x, first, sigma, shared, n=noises, dtype=jnp.float32))
        log_p = jax.nn.log_softmax(logits).reshape(len(x), noises, -1)
        mean = jax.nn.logsumexp(log_p, axis=1)
        return -jnp.sum(jnp.take_along_axis(mean, y[:, None], 1))

    corners = isinstance(threat, L0 | Patch)  # whose steepest steps move too little at a time to come to a corner

    def move(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, total = state
        number = (run - 1) * np.uint32(steps) + i.astype(jnp.uint32)  # of the step among those of all runs
        first = jnp.broadcast_to(jnp.stack([number * np.uint32(noises), jnp.uint32(0)])[None], (len(x), 2))
        length = threat.radius(x) * step * (1 - i.astype(jnp.float32) / steps)
        gradient = jax.grad(loss)(x, first)
        if corners:
            total = total + gradient
            return threat.maximise(x0, total), total
        moved = x + length.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype) * threat.steepest(x, gradient)
        return threat.project(x0, moved), total

    keys = jax.vmap(jax.random.wrap_key_data)(words ^ jnp.uint32(0x9E3779B9))  # a start's key, which no sample reads
    start = jnp.where(run == 1, x0, threat.sample(fold(keys, run), x0))
    return jax.lax.fori_loop(0, steps, move, (start, jnp.zeros_like(x0)))[0]
