"""Probes for masked gradients: attacks whose outcome is known if, and only if, gradients say the truth."""

import jax
import jax.numpy as jnp
import numpy as np

from ..core._keys import fold
from ..core._result import Flag, Status
from ._gradient import PGD
from ._problem import Problem
from ._record import Record
from ._run import Run, advance, finish, opinion, start
from ._verdict import confirmed

ROWS = 64
NOISE_DRAWS = 16
SHORT, LONG = 10, 50


def masking_probes(run: Run, record: Record) -> list[Flag]:
    """Runs all probes on up to 64 rows (at most `max_rows`) that the model gets right.

    Cost: about 200 forwards and 150 backwards on 64 rows, and a few small programs.
    Source: Carlini et al. 2019, section 4 (unbounded attacks, iterations, noise); Pintor et al. 2022 (indicators).
    """
    right = np.flatnonzero((record.status != Status.WRONG_BEFORE) & (record.status != Status.NONFINITE))
    if not len(right):
        return []
    rows = right[: min(ROWS, run.max_rows)]
    problem = run.problem(rows)
    return [*_unbounded(run, rows), *_more_steps(run, rows), *_noise(problem, record, rows)]


def _attack(run: Run, rows: np.ndarray, method: PGD, eps: float | None = None) -> np.ndarray:
    """[n] success of one PGD, at a budget of `eps` where given."""
    problem = run.problem(rows, stage=1000)
    if eps is not None:
        problem = problem.replace(threat=problem.threat.replace(eps=jnp.full_like(problem.threat.eps, eps)))
    fitted, _ = method.fit(run.n_classes, run.x.shape[1:], run.threat.norm)
    state = advance(fitted, problem, start(fitted, problem, jnp.int32(0)), jnp.int32(0), jnp.int32(fitted.total_steps))
    track = finish(fitted, problem, state)
    inside, _, wrong = opinion(problem, track)
    return np.asarray((track.success | track.candidate) & inside & wrong)[: len(rows)]


def _unbounded(run: Run, rows: np.ndarray) -> list[Flag]:
    """With a budget that covers the whole box, every row must fall."""
    if run.threat.norm in ("box", "patch"):  # there is no eps to raise
        return []
    lo, hi = np.asarray(run.threat.lo, np.float64), np.asarray(run.threat.hi, np.float64)
    width = float(np.max(hi - lo))
    if not np.isfinite(width):  # no range is known: as far as the data themselves reach
        width = 2.0 * max(float(np.ptp(run.x)), 1e-6)
    d = int(np.prod(run.x.shape[1:]))
    whole = width * {"linf": 1.0, "l2": d**0.5, "l1": float(d)}[run.threat.norm]
    broken = _attack(run, rows, PGD(steps=LONG), whole)
    rate = float(broken.mean())
    if rate == 1.0:
        return []
    left = len(rows) - int(broken.sum())
    severity = "error" if rate < 0.95 and left > 2 else "warning" if left > 2 else "info"
    text = f"with a budget that covers the whole input range only {broken.sum()} of {len(rows)} rows fall, and all must: "
    text += "flat gradients far from the data explain so few" if left <= 2 else "gradients are masked, or flat far from the data"
    return [Flag("unbounded-attack-fails", severity, text, rate, len(rows))]


def _more_steps(run: Run, rows: np.ndarray) -> list[Flag]:
    """Five times the steps must not find much more."""
    from scipy.stats import binomtest  # half a second to import

    few, many = _attack(run, rows, PGD(steps=SHORT)), _attack(run, rows, PGD(steps=LONG))
    gain, won, lost = float(many.mean() - few.mean()), int(np.sum(many & ~few)), int(np.sum(few & ~many))
    # a sign test over the rows on which the two differ: five against none is the least that chance does not explain
    if gain <= 0.05 or binomtest(won, won + lost, alternative="greater").pvalue >= 0.05:
        return []
    text = f"PGD with {LONG} steps breaks {many.sum()} of {len(rows)} rows, with {SHORT} steps {few.sum()}: the surface is rough"
    return [Flag("more-steps-help", "warning", text, gain, len(rows))]


@jax.jit
def _noise_hits(problem: Problem, scale: jax.Array | None = None) -> jax.Array:
    """[draws, B] bool: wrong beyond doubt at a uniform point of the set, shrunk by `scale` where given."""
    threat = problem.threat if scale is None else problem.threat.scaled(scale)

    def one(d: jax.Array) -> jax.Array:
        x = threat.sample(fold(problem.keys, 5000 + d), problem.x0)
        return confirmed(problem, x, problem.logits(x, d), d)[0]

    return jax.lax.map(one, jnp.arange(NOISE_DRAWS))


def _noise(problem: Problem, record: Record, rows: np.ndarray) -> list[Flag]:
    found = []
    hits = np.asarray(_noise_hits(problem))[:, : len(rows)]
    least = 3 if problem.model.stochastic else 1  # one hit of a randomised model may be luck
    missed = (hits.sum(axis=0) >= least) & ~record.success[rows]
    if missed.any():
        text = f"uniform noise in the set breaks {missed.sum()} of {len(rows)} rows that the attack left standing: the attack fails"
        found.append(Flag("noise-beats-attack", "error", text, float(missed.mean()), len(rows)))
    if problem.threat.norm not in ("box", "patch"):
        near = np.asarray(_noise_hits(problem, jnp.float32(0.01)))[:, : len(rows)].mean(axis=0)
        shaky = (near > 0) & (near < 1)
        if shaky.mean() > 0.05:
            text = f"the answer changes under noise of 1 % of the budget on {shaky.sum()} of {len(rows)} rows: predictions are unstable"
            found.append(Flag("unstable-predictions", "warning", text, float(shaky.mean()), len(rows)))
    return found
