"""Probes: pure functions from a subject (model, rows, threat, plan, key) to numbers. They judge nothing and write nothing.

Attacks are here; `_certified` is the one that proves.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..attack import FAB, PGD, AutoAttack, Method, Problem, Square, attack
from ..core import AttackResult, row_keys
from ..core._batch import bucket, pad_rows, take_leaves
from ..core._keys import fold
from ._certified import certified
from ._smoothed import smoothed
from ._subject import Outcome, Progress, Subject


def _problems(subject: Subject, probe: str, x: np.ndarray) -> Any:
    """(rows, problem) for each padded chunk; `problem.x0` are the rows of `x`."""
    keys = row_keys(subject.key_for(probe), jnp.asarray(subject.ids, jnp.uint32))
    threat = subject.threat.canonical(jnp.asarray(subject.x))
    for first in range(0, len(x), subject.plan.max_rows):
        rows = np.arange(first, min(first + subject.plan.max_rows, len(x)))
        padded = pad_rows(rows, bucket(len(rows), subject.plan.max_rows))
        yield (
            rows,
            Problem(
                model=subject.model,
                x0=jnp.asarray(x[padded]),
                y=jnp.asarray(subject.y[padded]),
                threat=take_leaves(threat, jnp.asarray(padded), len(x)),
                keys=keys[padded],
                targeted=False,
                draws=1,
                n_classes=subject.n_classes,
            ),
        )


@jax.jit
def _logits(problem: Problem) -> jax.Array:
    return problem.logits(problem.x0, 0)


@jax.jit
def _noisy_wrong(problem: Problem, draw: jax.Array) -> jax.Array:
    x = problem.threat.sample(fold(problem.keys, draw), problem.x0)
    return problem.wrong(problem.logits(x, draw))


def logits_of(subject: Subject, probe: str, x: np.ndarray) -> np.ndarray:
    """[N, K] the model's logits at `x`."""
    out = np.zeros((len(x), subject.n_classes), np.float32)
    for rows, problem in _problems(subject, probe, x):
        out[rows] = np.asarray(_logits(problem))[: len(rows)]
    return out


def clean(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """The model's answers to the rows as they are. Cost: one forward."""
    z = logits_of(subject, "clean", subject.x)
    return Outcome({"predicted": z.argmax(axis=1), "finite": np.isfinite(z).all(axis=1), "confidence": softmax(z).max(axis=1)}, {})


def noise(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """The control: uniform points of the threat set, which no adversary chose. Cost: `noise_draws` forwards."""
    draws = subject.plan.noise_draws
    wrong = np.zeros((draws, len(subject.y)), bool)
    for rows, problem in _problems(subject, "noise", subject.x):
        for d in range(draws):
            wrong[d, rows] = np.asarray(_noisy_wrong(problem, jnp.int32(d)))[: len(rows)]
            report("noise", (d + 1) / draws, 0)
    return Outcome({"wrong": wrong}, {"draws": draws, "distribution": "uniform in the ball, then moved into the valid range"})


def sweep(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """PGD at each budget, independently: a curve that does not fall shows a failing attack. eps is traced: no second compile."""
    plan = subject.plan
    method = PGD(steps=plan.sweep_steps, restarts=plan.sweep_restarts)
    broken = np.zeros((len(plan.sweep), len(subject.y)), bool)
    for i, multiple in enumerate(plan.sweep):

        def inner(stage: str, fraction: float, live: int, i: int = i) -> None:
            report("sweep", (i + fraction) / len(plan.sweep), live)

        found = _attack(subject, "sweep", method, inner, _part(state, f"{i}"), eps=subject.eps * multiple)
        broken[i] = np.asarray(found.success)
    eps = np.asarray(plan.sweep, np.float64) * subject.eps
    return Outcome({"broken": broken, "eps": eps}, settings_of(method))


def worst(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """AutoAttack at eps with all of its checks."""
    plan = subject.plan
    method = AutoAttack(
        version=plan.attack,
        steps=plan.attack_steps,
        queries=plan.attack_queries,
        targets=plan.attack_targets,
        layout=subject.layout or "auto",
    )
    found = _attack(subject, "attack", method, report, state, checks=True)
    x_adv = np.asarray(found.x)
    z = logits_of(subject, "clean", x_adv)
    arrays = {"predicted": z.argmax(axis=1), "confidence": softmax(z).max(axis=1), "x": x_adv}
    arrays |= {k: np.asarray(getattr(found, k)) for k in ("success", "distance", "queries", "gradients", "stage", "status")}
    flags = tuple(dataclasses.asdict(f) for f in found.flags)
    return Outcome(arrays, settings_of(method) | {"stages": list(found.stages), "reduced": plan.reduced}, flags)


def blackbox(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """Square alone, as an adversary with scores only would run it, counting queries."""
    if subject.layout is None:
        raise ValueError(f"Square needs image rows; rows of shape {subject.x.shape[1:]} are none.")
    method = Square(steps=subject.plan.blackbox_queries, layout=subject.layout)
    found = _attack(subject, "blackbox", method, report, state)
    return Outcome({"success": np.asarray(found.success), "queries": np.asarray(found.queries)}, settings_of(method))


def distance(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """How far the nearest adversarial input is: FAB without a budget, nearest boundary of all classes (of one, above 20 classes)."""
    method = FAB(steps=subject.plan.distance_steps, targets=0 if subject.n_classes <= 20 else 1)
    lo, hi = np.min(np.asarray(subject.threat.lo)), np.max(np.asarray(subject.threat.hi))
    width = float(hi - lo) if np.isfinite(hi - lo) else 100.0 * float(max(np.abs(subject.x).max(initial=1.0), 1.0))
    d = int(np.prod(subject.x.shape[1:]))
    whole = width * {"linf": 1.0, "l2": d**0.5, "l1": float(d)}[subject.threat.norm]
    found = _attack(subject, "distance", method, report, state, eps=max(whole, subject.eps))
    far = np.where(np.asarray(found.success), np.asarray(found.distance, np.float64), np.inf)
    return Outcome({"distance": far}, settings_of(method) | {"budget": "none: the whole input range"})


PROBE_FUNCTIONS: dict[str, Callable[[Subject, Progress, str | None], Outcome]] = {
    "clean": clean,
    "noise": noise,
    "sweep": sweep,
    "attack": worst,
    "blackbox": blackbox,
    "distance": distance,
    "certify": certified,
    "smooth": smoothed,
}


def _attack(
    subject: Subject,
    probe: str,
    method: Method | AutoAttack,
    report: Progress,
    state: str | None,
    *,
    eps: float | None = None,
    checks: bool = False,
) -> AttackResult:
    threat = subject.threat if eps is None else subject.threat.replace(eps=float(eps))
    return attack(
        subject.model,
        subject.x,
        subject.y,
        threat=threat,
        method=method,
        key=subject.key_for(probe),
        row_ids=subject.ids,
        max_rows=subject.plan.max_rows,
        checks=checks,
        progress=report,
        state=state,
    )


def _part(state: str | None, name: str) -> str | None:
    return None if state is None else os.path.join(state, name)


def settings_of(method: Any) -> dict[str, Any]:
    """A method's hyper-parameters, and its class as `method`, for the record."""
    values = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    plain = {k: v if isinstance(v, bool | int | float | str | None) else str(v) for k, v in values.items()}
    return {"method": type(method).__name__} | plain


def softmax(z: np.ndarray) -> np.ndarray:
    """[N, K] -> [N, K] probabilities; rows with NaN stay NaN."""
    with np.errstate(invalid="ignore"):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
