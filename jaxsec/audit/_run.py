"""`audit`: runs a plan's probes against a model, judges the numbers, and gives the report."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import __version__
from ..attack._checkpoint import fingerprint, held
from ..attack._progress import Report as ProgressReport
from ..attack._progress import progress as progress_bar
from ..attack._square import NoImage, image_axes
from ..core import Model, as_key
from ..core._check import check_batch
from ..core._meshes import on_any_mesh
from ..threat import Ball
from ._cache import ProbeCache
from ._certified import withheld
from ._clock import Clock
from ._environment import command_line, environment, model_facts
from ._examples import examples_of
from ._facts import CERTIFIED, LIMITS, SMOOTHED, coverage, data_facts, plain, plan_facts, threat_facts
from ._judge import findings_of, nothing_attacked, verdict_of
from ._numbers import numbers_of
from ._plan import PROBES, Plan
from ._probes import PROBE_FUNCTIONS
from ._report import SCHEMA_NAME, SCHEMA_VERSION, Report
from ._scale import scale_findings
from ._subject import Outcome, Subject, Unable

# Share of the whole run's time, for the progress bar only.
_WEIGHTS = {"clean": 1, "noise": 2, "sweep": 25, "attack": 50, "blackbox": 15, "distance": 15, "certify": 15, "smooth": 30}


@on_any_mesh
def audit(
    model: Model,
    data: Any,
    *,
    threat: Ball,
    key: jax.Array,
    plan: Plan | None = None,
    progress: bool | ProgressReport | None = None,
    state: str | os.PathLike[str] | None = None,
    resumed: Callable[[Sequence[str]], None] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Report:
    """Measures a model's ordinary and robust accuracy and judges both.

    Guarantee: the report is a function of model, data, threat, key and plan, apart from its times and environment; every share
    comes with its count, its n and an exact interval; what was not tested is listed as such.

    Args:
      model: `jaxsec.bind` or `jaxsec.load` makes one.
      data: what `jaxsec.io.load_data` gives, or a pair (x [N, ...] floating, y [N] integer).
      threat: `LInf`, `L2` or `L1` with one eps for all rows.
      key: one PRNG key, consumed. It draws the audited rows and everything random in the attacks.
      plan: how much to do; None means `Plan()`, the standard preset.
      progress: True, False, a function `(stage, fraction done, rows still robust)`, or None: a bar on a terminal after 3 s.
      state: a folder; finished probes and running attacks are kept there, and the same call goes on after a kill. It stays until
        the caller deletes it.
      resumed: called once, before the work, where a former call left something in `state`; gets the names of the finished probes.
      context: facts for the record, such as {"seed": 0}.

    Returns:
      Report: `report.save("folder")` writes report.json and its views.

    Raises: ValueError, TypeError: unusable data, threat or plan; the message says how to mend it.

    Cost: with the standard preset about that of AutoAttack on the audited rows, twice over; see `Plan` for what to cut.
    Edge cases: rows whose logits are NaN count as wrong. Rows that are no images leave out Square, and say so. Where a probe of
    the plan cannot run, the report names it and the reason.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxsec
      >>> from jaxsec.audit import Plan, audit
      >>> def linear(params, x):
      ...     return x @ params
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> x = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
      >>> plan = Plan.preset_of("quick").replace(probes=["clean", "noise"])
      >>> report = audit(model, (x, np.array([0, 1])), threat=jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0), key=jax.random.key(0), plan=plan)
      >>> report.data["probes"]["clean"]["accuracy"]["count"]
      2
    """
    plan = plan or Plan()
    plan.check()
    subject, facts = _subject(model, data, threat, as_key(key), plan)
    if "beta-crown" in plan.certify and "certify" in plan.probes and subject.threat.norm != "linf":
        others = ",".join(name for name in plan.certify if name != "beta-crown") or "ibp,crown"
        raise ValueError(
            f"certify has beta-crown, which branches on boxes only, and the threat is {subject.threat.norm}; allowed: {others}."
        )
    off = [name for name, asked in (("certify", plan.certify), ("smooth", plan.smooth_sigma)) if not asked]
    names = [p for p in PROBES if p == "clean" or (p in plan.probes and p not in off)]
    skipped: dict[str, str] = {}
    if subject.layout is None and "blackbox" in names:
        names.remove("blackbox")
        skipped["blackbox"] = (
            f"Square needs images; rows of shape {subject.x.shape[1:]} with layout {plan.layout!r} are none that it can read"
            + ("; --layout NCHW keeps images that a file holds as they are" if _may_be_images(subject.x[0].size) else "")
        )
    folder = None if state is None else Path(state)
    with held(folder):
        outcomes, walls, clock, unable = _measured(subject, names, folder, progress, resumed)
    flags = [f for o in outcomes.values() for f in o.flags]
    if "certify" in outcomes and (reason := withheld(flags)):
        unable["certify"] = reason
    skipped |= unable
    names = [name for name in names if name not in unable]
    outcomes = {name: outcomes[name] for name in names}
    numbers = numbers_of(subject, outcomes)
    more = scale_findings(subject.threat, subject.x.shape[1:], data, plan.smooth_sigma if "smooth" in names else 0.0)
    findings = findings_of(numbers, flags, eps=subject.eps, norm=subject.threat.norm, plan=plan, n_classes=subject.n_classes, more=more)
    nothing = nothing_attacked(numbers, subject.eps)
    for name, outcome in outcomes.items():
        numbers[name]["wall_s"] = round(walls[name], 3)
        numbers[name]["settings"] = outcome.settings
    record = {
        "schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "jaxsec", "version": __version__},
        "started": clock.started,
        "resumed": clock.resumed,
        "command_line": command_line(),
        "context": dict(context or {}),
        "environment": environment(),
        "model": model_facts(model, subject.n_classes),
        "data": facts,
        "threat": threat_facts(subject.threat),
        "key": {"impl": str(jax.random.key_impl(key)), "data": np.asarray(jax.random.key_data(as_key(key))).tolist()},
        "plan": plan_facts(plan),
        "verdict": verdict_of(numbers, findings, plan.fail_under, nothing=nothing, reduced=plan.reduced),
        "probes": numbers,
        "skipped": skipped,
        "findings": [f.to_json() for f in findings],
        "coverage": coverage(names, skipped, findings, nothing),
        "examples": examples_of(subject, outcomes),
        "limits": [*LIMITS, *([CERTIFIED] if "certify" in numbers else []), *([SMOOTHED] if "smooth" in numbers else [])],
        "wall_s": round(clock.wall_s, 3),
    }
    return Report(plain(record))


def _measured(
    subject: Subject,
    names: Sequence[str],
    folder: Path | None,
    progress: bool | ProgressReport | None,
    resumed: Callable[[Sequence[str]], None] | None,
) -> tuple[dict[str, Outcome], dict[str, float], Clock, dict[str, str]]:
    """Each probe's outcome and seconds, taken from `folder` where a former run has finished it, and why others could not run."""
    identity = _identity(subject)
    caches, clock = {name: ProbeCache(folder, _own(identity, name, subject.plan)) for name in names}, Clock(folder, identity)
    if clock.resumed and resumed is not None:
        resumed([name for name in names if caches[name].load(name) is not None])
    outcomes: dict[str, Outcome] = {}
    walls: dict[str, float] = {}
    unable: dict[str, str] = {}
    with progress_bar(progress) as report:
        total, done = sum(_WEIGHTS[n] for n in names), 0.0
        for name in names:
            cache = caches[name]
            saved = cache.load(name)
            if saved is None:
                first, weight = done / total, _WEIGHTS[name] / total

                def inner(stage: str, fraction: float, live: int, name: str = name, first: float = first, weight: float = weight) -> None:
                    clock.tick()
                    report(stage if stage == name else f"{name}: {stage}", first + fraction * weight, live)

                try:
                    with clock.probe(name):
                        outcome = PROBE_FUNCTIONS[name](subject, inner, cache.attack_state(name))
                except Unable as reason:
                    unable[name] = str(reason)
                    continue
                saved = outcome, clock.of(name)
                cache.save(name, *saved)
            outcomes[name], walls[name] = saved
            done += _WEIGHTS[name]
    return outcomes, walls, clock, unable


def _subject(model: Model, data: Any, threat: Ball, key: jax.Array, plan: Plan) -> tuple[Subject, dict[str, Any]]:
    x, y = (data[0], data[1]) if isinstance(data, tuple | list) else (data.x, data.y)
    if not isinstance(threat, Ball):
        raise TypeError(f"threat is {type(threat).__name__}; an audit needs LInf, L2 or L1, whose eps it can sweep.")
    if np.size(threat.eps) != 1 or not np.isfinite(np.asarray(threat.eps)).all():
        raise ValueError(f"threat has eps={threat.eps}; an audit needs one finite eps for all rows.")
    threat = threat.replace(eps=float(np.asarray(threat.eps).reshape(())))
    x, y, n_classes = check_batch(model, x, y, threat, plan.max_rows)
    x = np.asarray(x)
    if not len(y):
        raise ValueError("the data has no rows; give at least one.")
    ids = np.arange(len(y))
    for name in ("lo", "hi"):
        bound = np.asarray(getattr(threat, name))
        if bound.ndim == x.ndim and bound.shape[0] == len(x) and 0 < plan.rows < len(y):
            raise ValueError(f"threat has one {name} per row; use Plan(rows=0), which audits all rows, with it.")
    if 0 < plan.rows < len(y):
        seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, 0x726F7773))).astype(np.uint32).tolist()
        ids = np.sort(np.random.default_rng(seed).choice(len(y), plan.rows, replace=False))
    subject = Subject(
        model=model,
        x=x[ids],
        y=y[ids],
        ids=ids,
        threat=threat,
        key=key,
        plan=plan,
        n_classes=n_classes,
        layout=_layout(x.shape[1:], plan, data),
    )
    return subject, data_facts(data, x, y, subject)


def _may_be_images(size: int) -> bool:
    """Whether a row of so many numbers may be a square image of one or three channels that was laid flat."""
    return size >= 16 and any(size % c == 0 and math.isqrt(size // c) ** 2 == size // c for c in (1, 3))


def _layout(row_shape: tuple[int, ...], plan: Plan, data: Any) -> str | None:
    """The layout of image rows: the plan's, else the one that the data set says it has, resolved; None where they are no images."""
    stated = {"NCHW": "chw", "NHWC": "hwc"}.get(getattr(data, "layout", ""), "auto") if plan.layout == "auto" else plan.layout
    try:
        h, _, c = image_axes(row_shape, stated)
    except NoImage as error:
        if plan.layout == "auto":
            return None
        raise ValueError(
            f"the plan's layout is {plan.layout!r}, and rows of shape {row_shape} are no such images; name the layout that they have, "
            "chw, hwc or hw, or auto, which leaves Square out where rows are no images."
        ) from error
    return "hw" if c is None else "chw" if h == 1 else "hwc"


def _identity(subject: Subject) -> str:
    """Digest of what decides the outcomes; a limit, the confidence and the number of examples do not, for attacks nor what bounds do."""
    said = {
        "fail_under": None,
        "confidence": 0.95,
        "examples": 0,
        "preset": "",
        "certify": (),
        "certify_timeout": 1.0,
        "certify_sound": False,
        "smooth_sigma": 0.0,
        "smooth_samples": 1,
        "smooth_alpha": 0.1,
        "smooth_steps": 1,
        "smooth_noises": 1,
    }
    plan = dataclasses.replace(subject.plan, probes=PROBES, **said)
    key = jax.random.key_data(subject.key)
    return fingerprint(subject.model, subject.x, subject.y, subject.ids, subject.threat, key, repr((__version__, plan)))


def _own(identity: str, probe: str, plan: Plan) -> str:
    """The identity of one probe's outcome: with other bound methods the attacks stay, the certificates do not."""
    read: dict[str, tuple[str, ...]] = {"certify": ("certify", "certify_timeout", "certify_sound")}
    read["smooth"] = ("smooth_sigma", "smooth_samples", "smooth_alpha", "smooth_steps", "smooth_noises")
    return fingerprint(identity, repr(tuple(getattr(plan, name) for name in read[probe]))) if probe in read else identity
