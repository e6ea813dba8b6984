"""The probe that proves: which rows no input of the threat set can turn, for each budget of the curve."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..bound import BetaCROWN, UnsupportedPrimitive, by_name, walks
from ..certify import Certificate, Verdict, certify
from ..core._batch import bucket, take_leaves
from ._subject import Outcome, Progress, Subject, Unable

# Rows bounded at once, all batches of one size: a program of CROWN takes longer to compile than most batches take to run.
MAX_ROWS = 64
# Up to so many elements of a row's program CROWN takes no longer than the attacks of a standard audit (about 10,000 forward passes a
# row): measured 0.25 forward passes for an element of a ResNet with 11,000.
MOST_WALKS = 20_000
# Flags that say the rows are not answered by one function; a bound is about one.
_MANY = {"randomised", "hidden-randomness"}


def certified(subject: Subject, report: Progress, state: str | None) -> Outcome:
    """The plan's bound methods at 0, at every budget of the curve and at eps, from small to large.

    A row left open at one budget is not tried at larger ones, whose sets contain the smaller: what is certified never rises.
    Cost: a forward pass or two per row for intervals; CROWN's see `jaxsec.CROWN`.
    """
    plan, n = subject.plan, len(subject.y)
    if subject.model.stochastic:
        raise Unable("the model draws random numbers, and a bound is about one function")
    if subject.x.dtype not in (np.float32, np.float64):
        raise Unable(f"the rows are {subject.x.dtype}, and only float32 and float64 can be bounded")
    with _noted():
        ladder, note = _ladder(subject)
    multiples = np.array(sorted({0.0, 1.0, *plan.sweep}), np.float64) if subject.eps else np.zeros(1)
    robust, method = np.zeros((len(multiples), n), bool), np.full((len(multiples), n), -1, np.int32)
    margin, broken, rows = np.full((len(multiples), n), -np.inf), np.zeros((len(multiples), n), bool), np.arange(n)
    size = bucket(n, min(MAX_ROWS, plan.max_rows))
    for i, multiple in enumerate(multiples):

        def inner(stage: str, fraction: float, live: int, i: int = i) -> None:
            report(stage, (i + fraction) / len(multiples), live)

        with _noted():
            found = _certificate(subject, rows, float(multiple) * subject.eps, ladder, size, inner, state)
        robust[i, rows], method[i, rows], margin[i, rows] = (np.asarray(v) for v in (found.robust, found.method, found.margin))
        broken[i, rows] = np.asarray(found.status) == Verdict.BROKEN
        rows = np.flatnonzero(robust[i])
    settings = {"methods": ladder, "note": note, "precision": "sound" if plan.certify_sound else "highest", "max_rows": size}
    arrays = {"eps": multiples * subject.eps, "multiple": multiples, "robust": robust, "method": method, "margin": margin, "broken": broken}
    return Outcome(arrays, settings)


def _ladder(subject: Subject) -> tuple[list[str], str]:
    """The plan's methods, and what to say of them; "auto" runs CROWN where it is no dearer than the attacks."""
    if subject.plan.certify != ("auto",):
        return list(subject.plan.certify), ""
    if (count := walks(subject.model, subject.x)) <= MOST_WALKS:
        return ["ibp", "crown"], ""
    text = f"CROWN would walk back from {count} elements of each row, more than {MOST_WALKS}, so CROWN-IBP ran, which is looser; "
    return ["ibp", "crown-ibp"], text + "--certify ibp,crown runs CROWN all the same"


def _certificate(
    subject: Subject, rows: np.ndarray, eps: float, ladder: list[str], size: int, report: Progress, state: str | None
) -> Certificate:
    plan = subject.plan
    methods = [m.replace(timeout=plan.certify_timeout) if isinstance(m, BetaCROWN) else m for m in by_name(ladder)]
    threat = jax.tree.map(np.asarray, subject.threat.replace(eps=eps).canonical(jnp.asarray(subject.x)))
    return certify(
        subject.model,
        subject.x[rows],
        subject.y[rows],
        threat=take_leaves(threat, rows, len(subject.y)),
        method=methods,
        sound=plan.certify_sound,
        max_rows=size,
        min_rows=size,
        progress=report,
        state=state,
    )


@contextmanager
def _noted() -> Iterator[None]:
    """Turns whatever goes wrong, but for the disk, into `Unable`: hours of attacks must not be lost for the curve below theirs."""
    try:
        yield
    except OSError:
        raise
    except UnsupportedPrimitive as error:
        raise Unable(str(error).rstrip(".")) from error
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise Unable("the bounds need more memory than there is; name cheaper methods: --certify ibp") from error
        said = " ".join(str(error).split()).rstrip(".")[:300]
        raise Unable(f"certification failed ({type(error).__name__}: {said}); jaxsec certify on the same model shows where") from error


def withheld(flags: list[dict[str, Any]]) -> str:
    """Why nothing may be called certified, by what the attack says of the model; "" where nothing speaks against it."""
    said = [f["message"] for f in flags if f["name"] in _MANY and f["severity"] != "info"]
    return f"a bound is about one function, and {said[0]}" if said else ""
