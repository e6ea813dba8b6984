"""`verify`: does any input in the property's boxes give unsafe outputs? Attack, bounds, then branch and bound until the time is up."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from ..bound._door import BUDGET
from ..core._keys import as_key
from ..core._model import Model
from ..io import Property
from ._question import Question
from ._verify_run import Done, Events, Run


@dataclasses.dataclass(frozen=True)
class Verification:
    """The answer to one property.

    Guarantee: "sat" comes with a counterexample that was replayed on the running model and in float64; "unsat" means that `method` proved
      every clause empty on every box, in the arithmetic that `precision` names.

    Attributes:
      verdict: "sat" (unsafe), "unsat" (safe), "timeout", or "unknown" (the method ended undecided: `note` says why).
      x, y: the counterexample, flat float64, or None.
      seconds: wall time. method: what decided. branches: subproblems bounded.
      margin: of "sat" the replayed violation. Of "unsat" what every clause is proved to stay away from 0 by, and 0 where branch and bound
        proved its sign alone. Of others the worst open bound, NaN where no bound was computed.
      precision: "highest" (float32 at full precision; a bound counts above 4e-6 of the numbers that it was summed from at the input, which
        large numbers that cancel inside the network may exceed) or "sound" (rounding included).
      note: anything to know.
    """

    verdict: str
    x: np.ndarray | None
    y: np.ndarray | None
    seconds: float
    method: str
    branches: int
    margin: float
    precision: str
    note: str = ""


def verify(
    model: Model,
    prop: Property,
    *,
    timeout: float,
    key: jax.Array | None = None,
    on_event: Events | None = None,
    sound: bool = False,
    budget: int = BUDGET,
) -> Verification:
    """Decides a property of a network: attack, bounds, then branch and bound.

    Complete, given time, for networks of affine layers and kinks (ReLU, max-pooling, |x|, clip) none of which reads an input element
    directly, up to the tolerance of `Verification.precision`: leaves with every sign known are decided by a linear program. For other
    networks subproblems shrink until bounds are tight, and "timeout" may be the answer however long it runs. Where at most 16 inputs vary,
    their box is split; otherwise the neurons are.

    Guarantee: see `Verification`. No "unsat" rests on an attack that failed, no "sat" on a bound.
    Args:
      model: logits of rows; any network that `bound` takes.
      prop: `jaxsec.io.load_vnnlib` reads one.
      timeout: seconds of wall time; a round of work in progress is finished first (compilation included).
      key: for the attack's random starts (default 0).
      on_event: called as `on_event("bound", {...})` from time to time.
      sound: bounds include the rounding of floating-point arithmetic; looser and about twice the work.
      budget: bytes that the bounds' working arrays may take.
    Raises: ValueError: counts that do not fit. UnsupportedPrimitive.
    Cost: until `timeout`. Memory about `budget`, and for open subproblems four times that, beyond which the answer
      is "unknown".
    Source: Wang et al. 2021 (beta-CROWN), Xu et al. 2021 (alpha-CROWN), Bunel et al. 2020 (branching), Zhou et al. 2025 (clipping of
      boxes by linear bounds), Singh et al. 2019 (refinement of ranges).

    Example:
      >>> import jax.numpy as jnp, jaxsec, numpy as np
      >>> from jaxsec.certify import verify
      >>> from jaxsec.io import Case, Clause, Property
      >>> def relu_gap(params, x):
      ...     return jnp.abs(x @ params)
      >>> case = Case(lo=np.array([-1.0]), hi=np.array([1.0]), clauses=(Clause(Cx=None, Cy=np.array([[1.0]]), d=np.array([-0.5])),))
      >>> prop = Property(n_inputs=1, n_outputs=1, cases=(case,))
      >>> verify(jaxsec.bind(relu_gap, jnp.ones((1, 1))), prop, timeout=60).verdict
      'unsat'
    """
    return verified(model, prop, timeout=timeout, key=key, on_event=on_event, sound=sound, budget=budget)


def verified(
    model: Model,
    prop: Property,
    *,
    timeout: float,
    key: jax.Array | None = None,
    on_event: Events | None = None,
    sound: bool,
    budget: int,
    clock: Callable[[], float] = time.monotonic,
) -> Verification:
    """`verify`, its seconds counted by a clock of the caller's choice."""
    start = clock()
    run = Run(Question(model, prop), start + timeout, as_key(jax.random.key(0) if key is None else key), on_event, sound, budget, clock)
    try:
        run.go()
    except Done as done:
        end = done
    x, y = end.point if end.point is not None else (None, None)
    margin = float(prop.margin(x, y)) if x is not None else run.least if end.verdict == "unsat" else run.margin
    return Verification(end.verdict, x, y, clock() - start, end.method, run.branches, margin, "sound" if sound else "highest", end.note)
