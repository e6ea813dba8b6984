"""The stages of `verify`: attack, bounds, then branch and bound on inputs or on neurons, until the time is up."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ._cases import Case
from ._question import Question
from ._search import auto_pgd, search
from ._split_inputs import InputSplit
from ._split_neurons import NeuronSplit

# Inputs that vary, up to which the box is split instead of the neurons: halving a box of n sides n times halves each side once.
_FEW_INPUTS = 16
# The tree on the output grows in spells, each as long as all before; the first has this share of the time and no more than these seconds.
_FIRST_SHARE, _FIRST_SECONDS = 0.1, 3.0
# Ranges are refined in spells of this share of the time that is left.
_REFINE_SHARE = 0.1
# A spell that leaves more than this share of the worst bound shows that its work is not going to prove it: of trees, whose spells double
# (those that closed left 0.3 to 0.65), and of refinement, whose spells are equal.
_STALLED, _REFINED_LITTLE = 0.75, 0.9

Events = Callable[[str, dict[str, Any]], None]


class Done(Exception):
    def __init__(self, verdict: str, method: str, point: tuple[np.ndarray, np.ndarray] | None = None, note: str = ""):
        self.verdict, self.method, self.point, self.note = verdict, method, point, note


class Run:
    def __init__(
        self,
        question: Question,
        deadline: float,
        key: jax.Array,
        on_event: Events | None,
        sound: bool,
        budget: int,
        clock: Callable[[], float],
    ):
        self.question, self.deadline, self.clock, self.key = question, deadline, clock, key
        self.on_event, self.sound, self.budget = on_event, sound, budget
        self.branches, self.margin, self.least = 0, float("nan"), float("inf")

    def late(self) -> bool:
        return self.clock() > self.deadline

    def go(self) -> None:
        """Raises Done."""
        method = "bounds"
        cases = [c for c in self.question.cases if len(c.spec)]  # without a clause nothing is unsafe
        for i, case in enumerate(cases):
            self.attack(case, jax.random.fold_in(self.key, i), rounds=2)
        for case in cases:
            few = len(case.free) <= _FEW_INPUTS
            method, least = self.by_inputs(case) if few else self.by_neurons(case)
            self.least = min(self.least, least)
        raise Done("unsat", method)

    def attack(self, case: Case, key: jax.Array, rounds: int) -> None:
        found = search(self.question, case, key, rounds=rounds, out_of_time=self.late)
        if found is not None:
            raise Done("sat", "attack", found)

    def by_inputs(self, case: Case) -> tuple[str, float]:
        """What proved the case, and how far it is from 0; else raises Done."""
        split = InputSplit(self.question, case, sound=self.sound, budget=self.budget)
        self._until_closed(split, "input split")
        return ("input split", 0.0) if split.done > 1 else ("crown", max(split.least, 0.0))  # or clipping emptied the box

    def by_neurons(self, case: Case) -> tuple[str, float]:
        """As `by_inputs`."""
        split = NeuronSplit(self.question, case, sound=self.sound, budget=self.budget)
        for steps, method in ((0, "crown"), (20, "alpha-crown")):
            if self.late():
                raise Done("timeout", method)
            proved = split.root(steps)
            self.branches += 1
            self._tell(split, method)
            if proved.all():
                return method, split.least
        if (found := auto_pgd(self.question, case, jax.random.fold_in(self.key, 1000))) is not None:
            raise Done("sat", "apgd", found)
        if self._grown(split):
            return "beta-crown", 0.0
        if self.late():
            raise Done("timeout", "beta-crown")
        if self._refined(split):  # the output's own tree is not small
            return "refinement", split.least
        self._tell(split, "refinement")
        self._until_closed(split, "beta-crown")
        return "beta-crown", 0.0

    def _grown(self, split: NeuronSplit) -> bool:
        """Grows the tree for as long as its worst bound rises; whether everything was proved."""
        before, spell = self.margin, min(_FIRST_SHARE * (self.deadline - self.clock()), _FIRST_SECONDS)
        for _ in range(2):  # their programs are compiled now: that is no part of a spell
            if len(split.pool) and not self.late():
                self._round(split, "beta-crown")
        begin = self.clock()
        while not self._closed(split, "beta-crown", min(self.clock() + spell, self.deadline)):
            worst = float(split.pool.bound.min()) if len(split.pool) else 0.0
            if not len(split.pool) or self.late() or split.full or not worst > _STALLED * before:
                return False
            before, spell = worst, self.clock() - begin
        return True

    def _refined(self, split: NeuronSplit) -> bool:
        """Refines ranges for as long as that raises the bound of the whole box, for at most half of the time; whether all was proved.
        The tree grown so far goes on from the new ranges where the new root is not better than all of it."""
        now = self.clock()
        half, share = 0.5 * (now + self.deadline), _REFINE_SHARE * (self.deadline - now)
        tree, least, due = (split.pool, split.stuck), split.least, now + share
        for finished in split.refinements():
            begin = self.clock()
            if not finished and begin < min(due, half):
                continue
            if split.root(20).all():
                return True
            now = self.clock()
            if now > half or (begin >= due and not split.least > _REFINED_LITTLE * least):
                break
            if begin >= due:
                least, due = split.least, now + max(share, now - begin)
        split.resume(*tree)
        return False

    def _until_closed(self, split: InputSplit | NeuronSplit, method: str) -> None:
        if not self._closed(split, method, self.deadline):
            if len(split.pool) and not self.late():
                raise Done("unknown", method, note=f"{len(split.pool)} open subproblems take all the memory they may; raise the budget")
            if len(split.pool):
                raise Done("timeout", method)
            raise Done("unknown", method, note=f"{split.stuck} subproblems with nothing left to cut are open")

    def _closed(self, split: InputSplit | NeuronSplit, method: str, until: float) -> bool:
        """Rounds until nothing is left to cut, or the time is up; whether everything was proved."""
        while len(split.pool):
            if self.clock() > until or split.full:
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
            raise Done("sat", method, found)

    def _tell(self, split: InputSplit | NeuronSplit, method: str) -> None:
        if len(split.pool):
            self.margin = float(split.pool.bound.min())
        elif np.isnan(self.margin) and np.isfinite(split.least):
            self.margin = split.least
        if self.on_event is not None:
            self.on_event("bound", {"open": len(split.pool), "done": self.branches, "bound": self.margin, "method": method})
