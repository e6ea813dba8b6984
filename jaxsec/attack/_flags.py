"""What a finished run says about itself: flags from its record, and from a few forward passes of the model."""

import jax
import jax.numpy as jnp
import numpy as np

from ..core._check import program_of
from ..core._model import Model
from ..core._result import Flag, Status
from ..core._rewrite import untuned
from ..core._walk import equations
from ._masking import ROWS, masking_probes
from ._problem import Problem
from ._record import Record
from ._run import Run

# Primitives whose derivative is zero or absent: a gradient attack sees nothing through them.
_FLAT = {"round", "floor", "ceil", "sign", "argmax", "argmin", "sort", "nextafter"}
_HOST = {"pure_callback", "io_callback"}
_RANDOM = {"random_bits", "threefry2x32", "rng_bit_generator", "random_wrap", "rng_uniform"}
_LOOPS = {"while", "scan"}


@jax.jit
def _logits(problem: Problem, draw: jax.Array) -> jax.Array:
    return problem.logits(problem.x0, draw)


def flags_of(run: Run, record: Record, notes: tuple[str, ...], *, full: bool) -> tuple[Flag, ...]:
    """All flags of a run, errors first; `full` adds the masking probes, which attack a few rows again."""
    if not len(run.y):
        return ()
    found = [Flag("fallback", "info", note) for note in notes]
    found += _from_record(run, record) + _from_outputs(run) + _from_program(run.model, run.x)
    if full:
        found += masking_probes(run, record)
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda f: order[f.severity]))


def _from_record(run: Run, record: Record) -> list[Flag]:
    n = len(run.y)
    found: list[Flag] = []

    def flag(name: str, severity: str, count: int, of: int, message: str) -> None:
        found.append(Flag(name, severity, message.format(count=count, of=of), count / max(of, 1), of))

    clean_right = n - int(np.sum(record.status == Status.WRONG_BEFORE))
    for status, name in ((Status.NONFINITE, "nonfinite-logits"), (Status.INFEASIBLE, "infeasible"), (Status.UNVERIFIED, "unverified")):
        if count := int(np.sum(record.status == status)):
            flag(name, "warning" if status is Status.UNVERIFIED else "error", count, n, "{count} of {of} rows: " + status.message)
    asked = record.gradients > 0
    rows = int(asked.sum())
    if count := int(np.sum(record.bad_gradients > 0)):
        flag("nonfinite-gradients", "error", count, rows, "{count} of {of} attacked rows had NaN or infinite gradients")
    if count := int(np.sum(record.zero_gradients > 0)):
        severity = "warning" if count > max(2, 0.05 * rows) else "info"
        text = "{count} of {of} attacked rows met an all-zero gradient (quantisation, saturation, dead units)"
        text += ": gradients are masked" if severity == "warning" else "; so few say little"
        flag("zero-gradients", severity, count, rows, text)
    standing = asked & ~record.success
    if (count := int(np.sum(record.rising & standing))) > 0.1 * max(int(standing.sum()), 1):
        text = "on {count} of {of} standing rows the objective still rose by over 5 % in the last tenth of the steps: take more steps"
        flag("incomplete-optimisation", "warning", count, int(standing.sum()), text)
    names = [name for name, _ in run.stages]
    for s, name in enumerate(names):
        white = any(m.needs_gradient for _, m in run.stages[:s])
        count = int(np.sum(record.stage == s))
        if not run.stages[s][1].needs_gradient and white and count > max(min(2, 0.02 * n), 0.002 * n):
            text = f"{name}, which sees no gradient, broke {{count}} of {{of}} rows that the gradient attacks left: gradients are masked, "
            text += "or these attacks had too few steps"
            flag("black-box-beats-white-box", "error", count, n, text)
    chance = 1 / run.n_classes
    if not run.targeted and n >= 20 and clean_right / n <= chance + 2 * np.sqrt(chance * (1 - chance) / n):
        text = "clean accuracy is {count} of {of}, the level of chance: check labels, normalisation and layout"
        flag("chance-accuracy", "error", clean_right, n, text)
    worst = run.distances(record).max(initial=0.0)
    span = f"values in [{record.x.min():.4g}, {record.x.max():.4g}], {int(np.isnan(record.x).sum())} NaN"
    found.append(Flag("returned-inputs", "info", f"largest distance of a returned input {worst:.6g}; {span}", float(worst), n))
    return found


def _from_outputs(run: Run) -> list[Flag]:
    """Probabilities instead of logits; answers that differ from call to call."""
    rows = np.arange(min(len(run.y), ROWS))
    chunks = [(len(part), run.problem(part)) for part in run.chunks(rows)]
    z = [np.concatenate([np.asarray(_logits(problem, jnp.int32(d)))[:n] for n, problem in chunks]) for d in range(5)]
    found = []
    sums = z[0].sum(axis=1)
    if z[0].min() >= 0 and z[0].max() <= 1 and np.all(np.abs(sums - 1) < 1e-5):
        text = "the model gives probabilities, not logits: gradients of a saturated softmax vanish; remove the final softmax"
        found.append(Flag("probabilities", "warning", text, float(np.abs(sums - 1).max()), len(rows)))
    scale = np.maximum(np.abs(z[0]).max(axis=1, keepdims=True), 1e-12)
    spread = max(float(np.max(np.abs(v - z[0]) / scale)) for v in z[1:])
    right = {int(np.sum(v.argmax(axis=1) == run.y[rows])) for v in z}
    if len(right) > 1 or spread > 1e-4:
        declared = run.model.stochastic and run.draws > 1
        text = f"five evaluations of the same rows differ by up to {spread:.2g} of the largest logit"
        more = "" if declared else ": the model is randomised; use AutoAttack(version='rand') on a model bound with stochastic=True"
        found.append(Flag("randomised", "info" if declared else "warning", text + more, spread, len(rows)))
    return found


def primitives_of(model: Model, x: np.ndarray) -> set[str]:
    """Names of all primitives in the model's program, inner ones included."""
    return {eqn.primitive.name for eqn in equations(program_of(model, x).jaxpr)}


def _from_program(model: Model, x: np.ndarray) -> list[Flag]:
    """What the traced program shows before anything runs; AutoAttack's `check_dynamic`, which counts calls, cannot work under jit."""
    names = primitives_of(untuned(model), x)
    found = []
    if flat := sorted(names & _FLAT):
        found.append(Flag("flat-operations", "warning", f"the model contains {', '.join(flat)}, whose derivative is zero or absent"))
    if host := sorted(names & _HOST):
        found.append(Flag("host-callback", "warning", f"the model calls Python during inference ({', '.join(host)}): gradients end there"))
    if not model.stochastic and (random := sorted(names & _RANDOM)):
        text = f"the model draws random numbers ({', '.join(random)}) from a key of its own: bind it with stochastic=True"
        found.append(Flag("hidden-randomness", "warning", text))
    if loops := sorted(names & _LOOPS):
        found.append(
            Flag("inner-loop", "info", f"the model runs a loop ({', '.join(loops)}); if it optimises at inference, use adaptive attacks")
        )
    return found
