"""The host's side of a run: epochs, validation, the best weights, rollbacks and checkpoints."""

import dataclasses
import logging
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Model
from ..core._plural import plural
from ._batches import Batches, Reader
from ._checkpoint import Checkpoints
from ._log import Log
from ._net import Net
from ._recipe import Recipe
from ._step import Setting, TrainState, train_step
from ._validate import Validation

# A one-step adversary that loses half of the robust accuracy that the net had, and so much of it, has been overfitted to. (A net that has
# hardly begun to learn goes from 0.13 to 0.07 and comes back.)
_CATASTROPHE, _FALL = 0.5, 0.1
_LOGGER = logging.getLogger("jaxsec.train")


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training made.

    Attributes:
      model: the classifier, in evaluation mode: the one that was best on the validation rows (`fit`), without them the last.
      net: the same, to train further. history: a row per epoch: means of the recipe's metrics, validation_clean, validation_robust
        (validation_noisy of a recipe with noise, validation_certified of one on bounds), seconds. best_epoch: the epoch whose weights
        these are. rollbacks: how often training went back.
      stopped: why it ended: "done", "patience", or "catastrophic overfitting".
    """

    model: Model
    net: Net
    history: list[dict[str, Any]]
    best_epoch: int
    stopped: str
    rollbacks: int


@dataclasses.dataclass
class Loop:
    """A run and where it stands."""

    recipe: Recipe
    batches: Batches
    read: Reader
    setting: Setting
    key: jax.Array
    epochs: int
    decay: float
    judge: Validation | None
    validate_every: int
    patience: int | None
    kept: Checkpoints | None
    save_every: int
    max_rollbacks: int
    log: Log

    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_score: list[float] = dataclasses.field(default_factory=list)  # what decides first; then what breaks ties
    seen: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # of the steps of this epoch
    seconds: float = 0.0
    stopped: str = "done"

    def run(self, state: TrainState) -> Fit:
        """Trains to the end and gives what was best."""
        per_epoch = self.batches.steps * self.recipe.replays
        total, decay = jnp.float32(self.epochs * per_epoch), jnp.float32(self.decay)
        best = jax.tree.map(jnp.copy, self._weights(state))
        state, best = self._resumed(state, best)
        self.log.begin(self.history)
        good, at = (state, self._record()), int(state.step)
        while at < self.epochs * per_epoch and self.stopped == "done":
            begun, epoch = time.monotonic(), at // per_epoch
            before = self.seconds
            until = min((epoch + 1) * per_epoch, (at // self.save_every + 1) * self.save_every)
            state, seen = self._steps(state, epoch, at, until, total, decay)
            if bool(state.bad):
                state = self._rolled_back(good, seen)
                good, at = (state, good[1]), int(state.step)
                continue
            self.seen += jax.device_get(seen)
            self.seconds, at = before + time.monotonic() - begun, until
            if at % per_epoch == 0:
                best = self._epoch_done(state, best, epoch)
            if at % self.save_every == 0 or at % per_epoch == 0 or self.stopped != "done":
                good = (state, self._record())
                if self.kept is not None:
                    self.kept.save(state, best, self._record())
        params, statistics = best if self.judge is not None else self._weights(state)
        net = Net(params=params, state=statistics, program=self.setting.program, dtype=self.setting.dtype)
        best_epoch = self.best_epoch if self.judge is not None else len(self.history) - 1
        return Fit(net.model(), net, self.history, best_epoch, self.stopped, int(state.attempt))

    def _steps(
        self, state: TrainState, epoch: int, at: int, until: int, total: jax.Array, decay: jax.Array
    ) -> tuple[TrainState, list[dict[str, Any]]]:
        """Updates number `at` to `until`, all of one epoch; stops early after one that is not finite."""
        first, replays = epoch * self.batches.steps * self.recipe.replays, self.recipe.replays
        seen: list[dict[str, Any]] = []
        while at < until:
            x, y = self.read(epoch, (at - first) // replays)
            for _ in range((at - first) % replays, replays):
                state, metrics = train_step(state, self.recipe, x, y, self.key, total, decay, self.setting)
                seen.append(metrics)
                at += 1
                if at % 32 == 0 or at == until:  # asking waits for the device
                    self.log.step(at, float(metrics["loss"]))
                    if bool(state.bad):
                        return state, seen
                if at == until:
                    break
        return state, seen

    def _weights(self, state: TrainState) -> tuple[Any, Any]:
        """What is validated and returned."""
        return state.average if self.setting.averaged else (state.params, state.state)

    def _epoch_done(self, state: TrainState, best: Any, epoch: int) -> Any:
        """Enters the epoch's row; gives the best weights so far."""
        names = self.seen[0] if self.seen else {}
        means = {name: float(np.mean([float(row[name]) for row in self.seen])) for name in names}
        row: dict[str, Any] = {"epoch": epoch, "step": int(state.step), **means, "seconds": round(self.seconds, 3)}
        self.seen, self.seconds = [], 0.0
        if self.judge is not None and ((epoch + 1) % self.validate_every == 0 or epoch + 1 == self.epochs):
            row.update(self.judge(self.setting.averaged_net(state)))
            best = self._judged(row, state, best)
        self.history.append(row)
        self.log.row(row)
        return best

    def _judged(self, row: dict[str, Any], state: TrainState, best: Any) -> Any:
        score = self._score(row, state)
        if score > self.best_score:
            self.best_score, self.best_epoch = score, row["epoch"]
            return self._weights(state)
        waited = sum("validation_clean" in past for past in self.history[self.best_epoch + 1 :]) + 1
        now, once = score[-2], self.best_score[-2]
        if self.recipe.single_step and now < min(_CATASTROPHE * once, once - _FALL):
            self.stopped = "catastrophic overfitting"
            warnings.warn(
                f"catastrophic overfitting after {row['epoch'] + 1} epochs: robust accuracy on the validation rows fell from {once:.1%} "
                f"to {now:.1%}, as one-step training may; training stops, and the weights after {self.best_epoch + 1} are returned. "
                "Remedies: GradAlign (align=0.2), a smaller step_size, or pgd-at.",
                RuntimeWarning,
                stacklevel=6,
            )
        elif self.patience is not None and waited >= self.patience:
            self.stopped = "patience"
        return best

    def _score(self, row: dict[str, Any], state: TrainState) -> list[float]:
        """By what epochs are compared: certified accuracy, else the robust or noisy one, then the clean one; while a recipe's own eps still
        grows a later epoch is a better one."""
        total = self.epochs * self.batches.steps * self.recipe.replays
        if int(state.step) < (self.recipe.settled - 1e-6) * total:
            return [0.0, float(row["epoch"])]
        names = ("validation_certified", "validation_robust", "validation_noisy", "validation_clean")
        return [1.0, *(row[name] for name in names if name in row)]

    def _rolled_back(self, good: tuple[TrainState, dict[str, Any]], seen: list[dict[str, Any]]) -> TrainState:
        """The last good state, with other draws to come and half the step."""
        state, record = good
        attempt = int(state.attempt) + 1
        lost = len(seen)
        rows = [{name: float(value) for name, value in row.items()} for row in jax.device_get(seen)]
        found = next((row for row in rows if not all(map(np.isfinite, row.values()))), rows[-1] if rows else {})
        if attempt > self.max_rollbacks:
            bounds = " of the net's bounds, too, which a logarithm or a division at its end makes infinite" if self.recipe.bounds else ""
            shown = ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in found.items())
            raise FloatingPointError(
                f"the loss or its gradient was not finite again after {self.max_rollbacks} rollbacks ({shown}); use a "
                f"smaller learning rate, clip gradients (optax.clip_by_global_norm), and look for infinite values in the data{bounds}."
            )
        warnings.warn(
            f"a step was not finite (loss {found.get('loss')}, gradient norm {found.get('gradient_norm')}; if these are, its weights or "
            f"statistics were not); training goes back to update {int(state.step)}, {lost} updates are lost, and updates are halved from "
            "here on.",
            RuntimeWarning,
            stacklevel=5,
        )
        self._recall(record)
        return state.replace(attempt=state.attempt + 1, scale=state.scale * 0.5)

    def _record(self) -> dict[str, Any]:
        return {
            "history": list(self.history),
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "seen": [{name: float(value) for name, value in row.items()} for row in self.seen],
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    def _recall(self, record: dict[str, Any]) -> None:
        for name in ("history", "seen"):
            setattr(self, name, list(record[name]))
        for name in ("best_epoch", "best_score", "seconds", "stopped"):
            setattr(self, name, record[name])

    def _resumed(self, state: TrainState, best: Any) -> tuple[TrainState, Any]:
        found = None if self.kept is None else self.kept.restore(state, best)
        if found is None:
            return state, best
        state, best, record = found
        self._recall(record)
        over = len(self.history) == self.epochs or self.stopped != "done"
        _LOGGER.info("%s: %s done", "finished before, nothing to train" if over else "going on", plural(len(self.history), "epoch"))
        return state, best
