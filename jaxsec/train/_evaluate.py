"""`evaluate`: what a defence is worth against an adversary who does not know it, and against one who does, side by side."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..attack import PGD, AutoAttack, Method, attack
from ..core import Model, ModelInfo, Status, as_key, row_keys
from ..core._batch import bucket, pad_rows, take_leaves
from ..core._check import check_batch
from ..core._keys import fold
from ..core._rewrite import untuned
from ..threat import Threat
from ._defence import Defence, defence_of
from ._evaluation import Evaluation, EvaluationRow
from ._net import Net


def evaluate(
    models: Model | Net | Defence | Mapping[str, Model | Net | Defence],
    x: Any,
    y: Any,
    *,
    threat: Threat,
    key: jax.Array,
    method: Method | AutoAttack | None = None,
    adaptive_method: Method | AutoAttack | Sequence[Method | AutoAttack] | None = None,
    draws: int = 10,
    judged: int = 50,
    falls: float = 0.1,
    row_ids: Any = None,
    max_rows: int = 512,
    min_rows: int = 1,
) -> Evaluation:
    """Clean accuracy, and robust accuracy against a naive and an adaptive adversary, of one or several defences.

    Guarantee: adaptive <= naive <= clean, row by row. An input counts only where it is inside the threat set and the deployed model, asked
      again here, gets it wrong, whatever proposed it. A row's outcome depends on its own id and the key, not on its neighbours.
    What counts: a deterministic model is right where all logits are finite and the largest is the label's. A stochastic one is judged by
      the mean of its softmax over `judged` draws with fresh keys, used for this one input: right where that mean is largest at the label.
      The naive adversary attacks the deployed model with one draw per step. The adaptive one attacks each surrogate of the `Defence`
      (`defence_of` says which) with `draws` draws per step, by each method in turn, on the rows that still stand; a row falls if any of the
      inputs of either adversary is judged wrong.
    Args:
      models: a `Model`, `Net` or `Defence`, or several by name. x [B, ...], y [B] integer labels, B at least 1.
      threat: any set that the methods attack. key: consumed.
      method: of the naive adversary, by default `PGD(steps=40)`, and then of the adaptive one as well (of AutoAttack on a stochastic model
        the version "rand"). adaptive_method: one or several; by default that of the naive one and `PGD(steps=40, loss="margin")`, whose
        gradient no confidence switches off.
      draws, judged: of stochastic models only. falls: a loss of robust accuracy from naive to adaptive above this is the verdict "falls";
        a naive robust accuracy of at most this is "broken".
      row_ids, max_rows, min_rows: as in `attack`.
    Raises: ValueError, TypeError: as `attack`; no rows.
    Cost: per defence `1 + surrogates * methods` attacks, each on the rows that stand before it.
    Edge cases: a surrogate that gets a clean row wrong is not attacked there; a note says on how many rows. An attack ends at the first
      input that its surrogate gets wrong, so a surrogate should decide as the deployed model does, as twins and temperatures do.
    Source: Athalye et al. 2018, sections 4 and 6; Tramer et al. 2020; expectation over transformation: Athalye et al. 2018b.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import BitDepth, defended
      >>> def linear(w, x):
      ...     return x @ w
      >>> model = jaxsec.bind(linear, jnp.eye(2))
      >>> x, y, threat = jnp.array([[0.7, 0.3]]), jnp.array([0]), jaxsec.LInf(eps=0.3, lo=0.0, hi=1.0)
      >>> coarse = defended(model, BitDepth(bits=1))
      >>> how = {"threat": threat, "key": jax.random.key(0), "method": jaxsec.BIM(), "adaptive_method": jaxsec.BIM()}
      >>> found = evaluate({"none": model, "1 bit": coarse}, x, y, **how)
      >>> print(found.table())
      defence    clean    naive  adaptive  verdict
      -------  -------  -------  --------  -------
      none     100.0 %    0.0 %     0.0 %  broken
      1 bit    100.0 %  100.0 %     0.0 %  falls
    """
    named = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not named:
        raise ValueError("models is empty; name at least one, e.g. {'plain': model}.")
    naive = PGD(steps=40) if method is None else method
    if adaptive_method is None:
        known = (naive, PGD(steps=40, loss="margin"))
    else:
        known = tuple(adaptive_method) if isinstance(adaptive_method, Sequence) else (adaptive_method,)
    for name, value in (("draws", draws), ("judged", judged)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1.")
    asked = _Asked(x, y, threat, as_key(key), naive, known, draws, judged, row_ids, max_rows, min_rows)
    rows = tuple(_row(name, defence_of(model), asked, falls) for name, model in named.items())
    shown = tuple(_shown(m) for m in known)
    return Evaluation(
        rows=rows, n=len(rows[0].correct), threat=repr(threat), naive_method=_shown(naive), adaptive_methods=shown, draws=draws
    )


@dataclasses.dataclass(frozen=True)
class _Asked:
    x: Any
    y: Any
    threat: Threat
    key: jax.Array
    naive: Method | AutoAttack
    known: tuple[Method | AutoAttack, ...]
    draws: int
    judged: int
    row_ids: Any
    max_rows: int
    min_rows: int


def _shown(method: Method | AutoAttack) -> str:
    return method.name if isinstance(method, Method) and not hasattr(method, "loss") else repr(method)


def _row(name: str, defence: Defence, asked: _Asked, falls: float) -> EvaluationRow:
    model = _plain(defence.model)
    x, y, _ = check_batch(model, asked.x, asked.y, asked.threat, asked.max_rows)
    x, n = np.asarray(x), len(y)
    if n == 0:
        raise ValueError("x has no rows; accuracies need at least one.")
    ids = np.arange(n, dtype=np.uint32) if asked.row_ids is None else np.asarray(asked.row_ids)
    trial = _Trial(model, x, y, ids, asked)
    correct, _ = trial.judge(x, np.arange(n), 0)
    standing, found = correct.copy(), x.copy()
    notes: list[str] = [defence.note] if defence.note else []
    flags: tuple[str, ...] = ()

    def put(target: Model, method: Method | AutoAttack, draws: int, number: int, who: str) -> None:
        nonlocal flags
        rows = np.flatnonzero(standing)
        if not len(rows):
            return
        result = trial.attack(target, method, draws, rows, number)
        right, inside = trial.judge(np.asarray(result.x), rows, number)
        fell = rows[~right & inside]
        found[fell] = np.asarray(result.x)[~right & inside]
        standing[fell] = False
        if number == 1:
            flags = tuple(f.name for f in result.flags if f.severity != "info")
        if before := int(np.sum(np.asarray(result.status) == Status.WRONG_BEFORE)):
            notes.append(f"{who} got {before} of {len(rows)} clean rows wrong that the model gets right, and was not attacked there")

    put(model, asked.naive, 1, 1, "the model, judged with other draws,")
    robust = standing.copy()
    surrogates = tuple(_plain(s) for s in defence.surrogates) or (model,)
    number = 2
    for s, surrogate in enumerate(surrogates):
        for method in asked.known:
            if surrogate.stochastic and isinstance(method, AutoAttack):
                method = dataclasses.replace(method, version="rand")
            put(surrogate, method, asked.draws if surrogate.stochastic else 1, number, f"surrogate {s + 1}")
            number += 1
    clean, before, after = (float(np.mean(v)) for v in (correct, robust, standing))
    return EvaluationRow(
        name=name,
        clean=clean,
        naive=before,
        adaptive=after,
        verdict="broken" if before <= falls else "falls" if before - after > falls else "holds",
        correct=correct,
        naive_robust=robust,
        adaptive_robust=standing,
        x=found,
        judged=asked.judged if model.stochastic else 1,
        surrogates=len(surrogates),
        flags=flags,
        notes=tuple(dict.fromkeys(notes)),
    )


def _plain(model: Model) -> Model:
    return untuned(model).replace(info=ModelInfo())  # names are static: they must not decide what is compiled


class _Trial:
    """The deployed model and its rows: attacks on some of them, and the judge."""

    def __init__(self, model: Model, x: np.ndarray, y: np.ndarray, ids: np.ndarray, asked: _Asked):
        self.model, self.x, self.y, self.ids, self.asked = model, x, y, ids, asked
        self.threat = jax.tree.map(np.asarray, asked.threat.canonical(jnp.asarray(x)))

    def attack(self, target: Model, method: Method | AutoAttack, draws: int, rows: np.ndarray, number: int) -> Any:
        a = self.asked
        return attack(
            target,
            self.x[rows],
            self.y[rows],
            threat=take_leaves(self.threat, rows, len(self.y)),
            method=method,
            key=jax.random.fold_in(a.key, number),
            draws=draws,
            row_ids=self.ids[rows],
            max_rows=a.max_rows,
            min_rows=a.min_rows,
            checks=False,
            progress=False,
        )

    def judge(self, at: np.ndarray, rows: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """([R] bool: the deployed model is right at `at`, [R] bool: inside the set) of the named rows, `at` [R, ...] being theirs."""
        right, inside = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        keys = row_keys(jax.random.fold_in(self.asked.key, 0), jnp.asarray(self.ids))
        judged = self.asked.judged if self.model.stochastic else 1
        for first in range(0, len(rows), self.asked.max_rows):
            part = np.arange(first, min(first + self.asked.max_rows, len(rows)))
            padded = pad_rows(part, bucket(len(part), self.asked.max_rows, self.asked.min_rows))
            whole = rows[padded]
            own = fold(keys[whole], number)
            threat = take_leaves(self.threat, whole, len(self.y))
            ok = _judged(self.model, threat, self.x[whole], at[padded], self.y[whole], own, judged)
            right[part], inside[part] = (np.asarray(v)[: len(part)] for v in ok)
        return right, inside


@functools.partial(jax.jit, static_argnums=6)
def _judged(
    model: Model, threat: Threat, x0: jax.Array, x: jax.Array, y: jax.Array, keys: jax.Array, judged: int
) -> tuple[jax.Array, jax.Array]:
    if model.stochastic:

        def one(d: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = model(x, fold(keys, d)).astype(jnp.float32)
            return jax.nn.softmax(z), jnp.all(jnp.isfinite(z), axis=1)

        p, finite = jax.lax.map(one, jnp.arange(judged))
        answer, finite = jnp.mean(p, axis=0), jnp.all(finite, axis=0)
    else:
        answer = model(x).astype(jnp.float32)
        finite = jnp.all(jnp.isfinite(answer), axis=1)
    return (jnp.argmax(answer, axis=1) == y) & finite, threat.contains(x0, x)
