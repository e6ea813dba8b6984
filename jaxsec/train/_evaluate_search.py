"""The adversary of `evaluate`: one search after another on the rows that stand, and what is remembered of them."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from ..attack import PGD, AutoAttack, Method, Square
from ..attack._gradient import SCHEDULES
from ..attack._square import NoImage
from ..core import Model, Status
from ._evaluate_slopes import FALSE, UNTOLD
from ._evaluate_trial import Trial

# Signs that the gradients of an attack said nothing. Of a surrogate only what its gradients did: that it has steps is why it was given.
DEAD = frozenset({"zero-gradients", "nonfinite-gradients"})
MASKING = DEAD | {"flat-operations", "host-callback"}


@dataclasses.dataclass(frozen=True)
class Falling:
    """A schedule of `PGD`: from `first` times the step to 0 along half a cosine."""

    first: float

    def __call__(self, done: jax.Array) -> jax.Array:
        return self.first * SCHEDULES["cosine"](done)


def margin_pgd(steps: int = 40, loss: str = "margin") -> PGD:
    """PGD on the margin, whose gradient no confidence switches off, with steps from half the radius to 0.

    On "dlr", the margin by the spread of the logits, no scale of theirs that changes with the input leads it astray. Of steps of one
    length no single one is right: through the JPEG surrogate 40 steps of `2.5 / 40` radii left 55 % of the rows of an undefended MNIST
    net, these 39 %.
    """
    return PGD(steps=steps, loss=loss, schedule=Falling(steps / 5))


def methods_for(
    known: Sequence[Method | AutoAttack], deployed: Model, surrogate: Model
) -> Iterator[tuple[Method | AutoAttack, bool]]:  # fmt: skip
    """(method, whether it climbs the margin of the mean over the draws) of each attack that an adaptive adversary makes."""
    for method in known:
        if surrogate.stochastic and isinstance(method, AutoAttack):
            method = dataclasses.replace(method, version="rand")
        yield method, False
    if deployed.stochastic or surrogate.stochastic:
        pgds = [m for m in known if isinstance(m, PGD)]
        margin = margin_pgd(max((m.steps for m in pgds), default=40))
        if all(m.loss != "margin" for m in pgds):
            yield margin, False
        if surrogate.stochastic:
            yield margin, True


class Search:
    """What is left of a defence's rows.

    Attributes:
      correct: [B] bool, right without an attack. standing: [B] bool, right and not fallen yet. x: [B, ...] the input that a row fell
        to, or the clean row. lowest: [B] the smallest margin that an attack has brought a row to, at first the clean one.
      notes: sentences on the way.

    Args: falls: as in `evaluate`.
    """

    def __init__(self, trial: Trial, notes: list[str], falls: float):
        self.trial, self.notes, self.x, self.number = trial, notes, trial.x.copy(), 0
        self.few = max(2, falls * len(trial.y))
        clean = trial.judge(trial.x, np.arange(len(trial.y)))
        self.correct, self.margin = clean.right, clean.margin
        self.standing, self.lowest = clean.right.copy(), clean.margin.copy()
        self.strange = np.zeros(len(trial.y), bool)  # a surrogate got the clean row wrong

    def put(self, target: Model, method: Method | AutoAttack, draws: int, who: str, mean: bool = False) -> frozenset[str] | None:
        """Attacks the standing rows through `target`; warnings and errors by name, None where no row stands."""
        rows, trial = np.flatnonzero(self.standing), self.trial
        self.number += 1
        if not len(rows):
            return None
        if trial.model.stochastic or target.stochastic:
            if parts := trial.stages(method):
                inputs, flags = trial.unstopped(target, parts, draws, rows, self.number, mean=mean)
                self._accept(inputs, rows)
                return flags
        result = trial.attack(target, method, draws, rows, self.number)
        self._accept([np.asarray(result.x)], rows)
        # the search ended where the target was wrong, or furthest from right, and the deployed model need not be there
        over = self.standing[rows] if target is not trial.model else np.asarray(result.success) & self.standing[rows]
        if over.any():
            parts = trial.stages(method if isinstance(method, PGD) else margin_pgd())
            inputs, _ = trial.unstopped(target, parts, draws, rows[over], self.number, mean=mean)
            self._accept(inputs, rows[over])
        strange = np.asarray(result.status) == Status.WRONG_BEFORE
        self.strange[rows] |= strange
        if before := int(np.sum(strange)):
            self.notes.append(f"{who} got {before} of {len(rows)} clean rows wrong that the model gets right; PGD attacked it there")
        return frozenset(f.name for f in result.flags if f.severity != "info")

    def around(self, method: PGD, draws: int) -> None:
        """Attacks the standing rows along the gradient of the model averaged over the set, which no ripple turns."""
        rows, trial = np.flatnonzero(self.standing), self.trial
        self.number += 1
        if len(rows) and trial.threat.norm in method.norms:
            inputs, _ = trial.unstopped(trial.model, trial.stages(method), draws, rows, self.number, around=True)
            self._accept(inputs, rows)

    def blind(self, method: Square | None, draws: int, hidden: bool) -> bool:
        """Attacks the standing rows without gradients; whether that finds more than honest gradients leave to find.

        Args: method: beside the search that suits any model and set, on a deterministic one of images. hidden: the deployed model's own
          gradients say nothing, so that those of its surrogates have to be better than none.
        """
        rows, model = np.flatnonzero(self.standing), self.trial.model
        if not len(rows):
            return False
        seen = self.margin[rows] - self.lowest[rows]
        self.lowest[rows] = self.margin[rows]
        self.number += 1
        self._accept([self.trial.blind(rows, draws, self.number)], rows)
        if method is not None and not model.stochastic and self.trial.threat.norm in method.norms:
            with contextlib.suppress(NoImage):
                self.put(model, method, 1, "the model")
        unseen = self.margin[rows] - self.lowest[rows]
        broke, further = int(np.sum(~self.standing[rows])), int(np.sum(unseen > 1.1 * seen))
        # where nothing moves a row, none is better than another, but for a surrogate that does not even know the row's class
        no_better = int(np.sum((unseen >= seen) & ((unseen > 0) | self.strange[rows])))
        if broke > max(2, 0.05 * len(rows)):
            found = f"broke {broke} of {len(rows)} rows that the others left"
        elif further > self._few(rows):
            found = f"lowered the margin of {further} of {len(rows)} rows further than the others"
        elif hidden and no_better > len(rows) / 2:
            found = f"did as well as the surrogates on {no_better} of {len(rows)} rows, and the model's own gradients say nothing"
        else:
            return False
        self.notes.append(f"a search without gradients {found}: gradients are masked, or those attacks had too few steps")
        return True

    def misled(self) -> bool:
        """Whether the deployed model's own gradients do not say how it changes, on most of the rows that stand; of fewer, but more than a
        verdict could bear to lose, a note tells (there honest maxima of equal numbers are, too)."""
        rows = np.flatnonzero(self.standing)
        self.number += 1
        if not len(rows):
            return False
        if self.trial.rounds():
            self.notes.append("the model computes in half precision, so that it was not tried whether it changes as its gradients say")
            return False
        found = self.trial.false_slopes(rows, self.number)
        false, untold = int(np.sum(found == FALSE)), int(np.sum(found == UNTOLD))
        if untold > self._few(rows):
            self.notes.append(
                f"on {untold} of {len(rows)} rows all changes nearby are lost in float32's rounding, so that it was not tried whether "
                "the model changes as its gradients say"
            )
        if false > self._few(rows):
            masked = "are masked" if false > len(rows) / 2 else "may be masked there"
            self.notes.append(f"on {false} of {len(rows)} rows the model does not change as its gradient says: gradients {masked}")
        return false > len(rows) / 2

    def _few(self, rows: np.ndarray) -> float:
        """So many of these rows, those that stand, are passed over: a share `falls` of all (two at least), and never more than half."""
        return min(self.few, len(rows) / 2)

    def _accept(self, inputs: list[np.ndarray], rows: np.ndarray) -> None:
        """Rows fall where an input is inside the set, not the clean row itself, and judged wrong."""
        for at in inputs:
            live = self.standing[rows]
            if not live.any():
                return
            here, mine = at[live], rows[live]
            judged = self.trial.judge(here, mine)
            moved = np.any((here != self.trial.x[mine]).reshape(len(mine), -1), axis=1)
            fell = judged.wrong & judged.inside & moved
            self.lowest[mine] = np.where(judged.inside, np.fmin(self.lowest[mine], judged.margin), self.lowest[mine])
            self.x[mine[fell]], self.standing[mine[fell]] = here[fell], False
