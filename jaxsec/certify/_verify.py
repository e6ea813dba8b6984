"""`verify`: does any input in the property's boxes give unsafe outputs? Attack, bounds, then branch and bound until the time is up."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..bound._door import BUDGET
from ..core._keys import as_key
from ..core._model import Model
from ..io import Property
from ._cases import Case
from ._question import Question
from ._search import auto_pgd, search
from ._split_inputs import InputSplit
from ._split_neurons import NeuronSplit

# Inputs that vary, up to which the box is split instead of the neurons: halving a box of n sides n times halves each side once.
_FEW_INPUTS = 16
# The tree on the output grows in spells, each as long as all before; the first has this share of the time and no more than these seconds.
_FIRST_SHARE, _FIRST_SECONDS = 0.1, 3.0
# A spell that leaves more than this share of the worst bound shows that the tree is not going to close.
_STALLED = 0.9

Events = Callable[[str, dict[str, Any]], None]


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


class _Done(Exception):
    def __init__(self, verdict: str, method: str, point: tuple[np.ndarray, np.ndarray] | None = None, note: str = ""):
        self.verdict, self.method, self.point, self.note = verdict, method, point, note


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
    Raises: ValueError: counts that do not fit, constraints that mix inputs and outputs. UnsupportedPrimitive.
    Cost: until `timeout`. Memory about `budget`.
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
    start = time.monotonic()
    run = _Run(Question(model, prop), start + timeout, as_key(jax.random.key(0) if key is None else key), on_event, sound, budget)
    try:
        run.go()
    except _Done as done:
        end = done
    x, y = end.point if end.point is not None else (None, None)
    margin = float(prop.margin(x, y)) if x is not None else run.least if end.verdict == "unsat" else run.margin
    seconds = time.monotonic() - start
    return Verification(end.verdict, x, y, seconds, end.method, run.branches, margin, "sound" if sound else "highest", end.note)


class _Run:
    def __init__(self, question: Question, deadline: float, key: jax.Array, on_event: Events | None, sound: bool, budget: int):
        self.question, self.deadline, self.key = question, deadline, key
        self.on_event, self.sound, self.budget = on_event, sound, budget
        self.branches, self.margin, self.least = 0, float("nan"), float("inf")

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def go(self) -> None:
        """Raises _Done."""
        method = "bounds"
        cases = [c for c in self.question.cases if len(c.spec)]  # without a clause nothing is unsafe
        for i, case in enumerate(cases):
            self.attack(case, jax.random.fold_in(self.key, i), rounds=2)
        for case in cases:
            few = len(case.free) <= _FEW_INPUTS
            method, least = self.by_inputs(case) if few else self.by_neurons(case)
            self.least = min(self.least, least)
        raise _Done("unsat", method)

    def attack(self, case: Case, key: jax.Array, rounds: int) -> None:
        found = search(self.question, case, key, rounds=rounds, out_of_time=self.late)
        if found is not None:
            raise _Done("sat", "attack", found)

    def by_inputs(self, case: Case) -> tuple[str, float]:
        """What proved the case, and how far it is from 0; else raises _Done."""
        split = InputSplit(self.question, case, sound=self.sound, budget=self.budget)
        self._until_closed(split, "input split")
        return ("input split", 0.0) if split.done > 1 else ("crown", max(split.least, 0.0))  # or clipping emptied the box

    def by_neurons(self, case: Case) -> tuple[str, float]:
        """As `by_inputs`."""
        split = NeuronSplit(self.question, case, sound=self.sound, budget=self.budget)
        for steps, method in ((0, "crown"), (20, "alpha-crown")):
            if self.late():
                raise _Done("timeout", method)
            proved = split.root(steps)
            self.branches += 1
            self._tell(split, method)
            if proved.all():
                return method, split.least
        if (found := auto_pgd(self.question, case, jax.random.fold_in(self.key, 1000))) is not None:
            raise _Done("sat", "apgd", found)
        if self._grown(split):
            return "beta-crown", 0.0
        # the output's own tree is not small: ranges are refined before it is grown again, for at most half of the time
        half = 0.5 * (time.monotonic() + self.deadline)
        if split.refine(lambda: time.monotonic() > half).all():
            return "refinement", split.least
        self._tell(split, "refinement")
        self._until_closed(split, "beta-crown")
        return "beta-crown", 0.0

    def _grown(self, split: NeuronSplit) -> bool:
        """Grows the tree for as long as its worst bound rises; whether everything was proved."""
        before, spell = self.margin, min(_FIRST_SHARE * (self.deadline - time.monotonic()), _FIRST_SECONDS)
        for _ in range(2):  # their programs are compiled now: that is no part of a spell
            if len(split.pool) and not self.late():
                self._round(split, "beta-crown")
        begin = time.monotonic()
        while not self._closed(split, "beta-crown", min(time.monotonic() + spell, self.deadline)):
            worst = float(split.pool.bound.min()) if len(split.pool) else 0.0
            if not len(split.pool) or self.late() or not worst > _STALLED * before:
                return False
            before, spell = worst, time.monotonic() - begin
        return True

    def _until_closed(self, split: InputSplit | NeuronSplit, method: str) -> None:
        if not self._closed(split, method, self.deadline):
            if len(split.pool):
                raise _Done("timeout", method)
            raise _Done("unknown", method, note=f"{split.stuck} subproblems with nothing left to cut are open")

    def _closed(self, split: InputSplit | NeuronSplit, method: str, until: float) -> bool:
        """Rounds until nothing is left to cut, or the time is up; whether everything was proved."""
        while len(split.pool):
            if time.monotonic() > until:
                return False
            self._round(split, method)
        return not split.stuck

    def _round(self, split: InputSplit | NeuronSplit, method: str) -> None:
        done = split.done
        with np.errstate(invalid="ignore"):  # boxes without an end have no middle
            points = split.round()
        self.branches += split.done - done
        self._tell(split, method)
        if points is not None and (found := self.question.counterexample(points)) is not None:
            raise _Done("sat", method, found)

    def _tell(self, split: InputSplit | NeuronSplit, method: str) -> None:
        self.margin = float(split.pool.bound.min()) if len(split.pool) else self.margin
        if self.on_event is not None:
            self.on_event("bound", {"open": len(split.pool), "done": self.branches, "bound": self.margin, "method": method})
