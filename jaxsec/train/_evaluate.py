"""`evaluate`: what a defence is worth against an adversary who does not know it, and against one who does, side by side."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..attack import PGD, AutoAttack, Method, Square
from ..core import Model, ModelInfo, as_key
from ..core._check import check_batch
from ..core._meshes import on_any_mesh
from ..core._rewrite import untuned
from ..threat import Threat
from ._defence import Defence, defence_of
from ._evaluate_search import DEAD, MASKING, Search, margin_pgd, methods_for
from ._evaluate_trial import Trial
from ._evaluation import Evaluation, EvaluationRow
from ._net import Net


@on_any_mesh
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
      again here, gets it wrong, whatever proposed it. A row's outcome depends on its own id and the key, not on its neighbours. Every
      method searched around a row that stands, but `Square` where rows are no images.
    What counts: a deterministic model is right where all logits are finite and the largest is the label's. A stochastic one is judged
      twice, each time by the mean of its softmax over `judged` draws: a clean row is right where the mean of both is largest at the
      label; an attacked one has fallen where each of them says another class. The draws are a row's own, at its clean input as at every
      other: chance is not charged to the defence a second time, and the clean input itself is no attack.
      The naive adversary attacks the deployed model with one draw per step. The adaptive one attacks each surrogate of the `Defence`
      (`defence_of` says which) with `draws` draws per step, by each method in turn, on the rows that still stand; a row falls if any of the
      inputs of either adversary is judged wrong. Where the model draws, no search stops at a wrong answer, which may be luck: all steps
      are run, and of each restart the iterate of the largest margin over its draws and the last one are judged.
    Verdicts, the first that fits:
      "broken": the naive attack leaves at most `falls`.
      "falls": the adaptive ones leave at most `falls`, or less than the naive one by more than `falls`.
      "masked": the gradients were of no use, so give a `Defence` with a (better) surrogate. Said where every attack's flags say so; where a
        model without surrogates does not change nearby as its gradient says, by a tenth of the squared changes and on most rows (a note
        says where on more than `falls` of all, or where it computes in half precision, of which that cannot be told); or where the search
        without gradients, which always comes last, broke more than 5 % of what the others left, lowered the margins of more than `falls` of
        the rows further than they did, or did as well as surrogates of a model whose own gradients say nothing.
      "holds": none of these, and no proof: a surrogate of another model may tell of nothing, and no search here goes along the decision
        boundary.
    Args:
      models: a `Model`, `Net` or `Defence`, or several by name. x [B, ...], y [B] integer labels, B at least 1.
      threat: any set that the methods attack. key: consumed.
      method: of the naive adversary, by default `PGD(steps=40)`, and then of the adaptive one as well (of AutoAttack on a stochastic model
        the version "rand"). adaptive_method: one or several; by default that of the naive one; PGD of 40 steps on the margin, whose
        gradient no confidence switches off, and on DLR, which no scale of the logits leads astray, with steps that fall from half the
        radius to 0; on a deterministic deployed model without surrogates PGD along the gradient averaged over `draws` points of the
        set around the iterate, which no ripple turns; and, where its rows are images, 500 queries of `Square`. On stochastic
        models PGD on the margin, per draw and of the mean over the draws, is always among them. Of AutoAttack there FAB is left out.
      draws, judged: of stochastic models only. falls: in [0, 1]; a naive robust accuracy of at most this is "broken"; an adaptive one of at
        most this, or further than this below the naive one, "falls".
      row_ids, max_rows, min_rows: as in `attack`.
    Returns: an `Evaluation`: `found["name"]` is a defence's row (clean, naive, adaptive, verdict, flags, notes, and arrays behind them),
      `found.table()` the table as text, or as Markdown, `found.to_dict()` as JSON takes it.
    Raises: ValueError, TypeError: as `attack`; no rows.
    Cost: per defence `1 + surrogates * methods` attacks, each on the rows that stand before it; of stochastic ones all steps of each, and
      `4 * judged` forwards per restart; and 980 queries of each row that is left, `draws` forwards each.
    Edge cases: an attack on a deterministic surrogate ends at the first input that the surrogate gets wrong; on rows that the deployed
      model then still gets right PGD is run a second time through all its steps, and the iterate where a deterministic deployed model has
      its largest margin and the last one are judged. A note says where a surrogate got clean rows wrong.
    Source: Athalye et al. 2018, sections 4 and 6; Tramer et al. 2020; expectation over transformation: Athalye et al. 2018b.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import BitDepth, defended, evaluate
      >>> def linear(w, x):
      ...     return x @ w
      >>> model = jaxsec.bind(linear, 3 * jnp.eye(2))
      >>> x, y, threat = jnp.array([[0.7, 0.25]]), jnp.array([0]), jaxsec.LInf(eps=0.3, lo=0.0, hi=1.0)
      >>> coarse = defended(model, BitDepth(bits=1))
      >>> how = {"threat": threat, "key": jax.random.key(0), "method": jaxsec.BIM(), "adaptive_method": jaxsec.BIM()}
      >>> found = evaluate({"none": model, "1 bit": coarse}, x, y, **how)
      >>> print(found.table())
      defence    clean    naive  adaptive  verdict
      -------  -------  -------  --------  ---------
      none     100.0 %    0.0 %     0.0 %  broken
      1 bit    100.0 %  100.0 %     0.0 %  falls [1]
      [1] 1 bit: flat-operations
    """
    named = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not named:
        raise ValueError("models is empty; name at least one, e.g. {'plain': model}.")
    naive = PGD(steps=40) if method is None else method
    if adaptive_method is None:
        known, blind = (naive, margin_pgd(), margin_pgd(loss="dlr")), Square(steps=500, rescale=True)
    else:
        known = tuple(adaptive_method) if isinstance(adaptive_method, Sequence) else (adaptive_method,)
        blind = None
    for name, value in (("draws", draws), ("judged", judged)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1.")
    if not 0 <= falls <= 1:
        raise ValueError(f"falls is {falls}; it is a share of the rows, from 0 to 1.")
    asked = _Asked(x, y, threat, as_key(key), naive, known, blind, draws, judged, row_ids, max_rows, min_rows)
    rows = tuple(_row(name, defence_of(model), asked, falls) for name, model in named.items())
    shown = tuple(_shown(m) for m in (*known, *([blind] if blind else [])))
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
    blind: Square | None
    draws: int
    judged: int
    row_ids: Any
    max_rows: int
    min_rows: int


def _shown(method: Method | AutoAttack) -> str:
    return method.name if isinstance(method, Method) and not hasattr(method, "loss") else repr(method)


def _row(name: str, defence: Defence, asked: _Asked, falls: float) -> EvaluationRow:
    model = _plain(defence.model)
    x, y, n_classes = check_batch(model, asked.x, asked.y, asked.threat, asked.max_rows)
    if not len(y):
        raise ValueError("x has no rows; accuracies need at least one.")
    ids = np.arange(len(y), dtype=np.uint32) if asked.row_ids is None else np.asarray(asked.row_ids)
    sizes = {"n_classes": n_classes, "judged": asked.judged, "max_rows": asked.max_rows, "min_rows": asked.min_rows}
    trial = Trial(model, np.asarray(x), y, ids, asked.threat, asked.key, **sizes)
    search = Search(trial, [defence.note] if defence.note else [], falls)
    flags = search.put(model, asked.naive, 1, "the model")
    robust = search.standing.copy()
    surrogates, given = tuple(_plain(s) for s in defence.surrogates) or (model,), bool(defence.surrogates)
    signs = [] if given or flags is None else [flags & MASKING]
    for s, surrogate in enumerate(surrogates):
        for method, mean in methods_for(asked.known, model, surrogate):
            raised = search.put(surrogate, method, asked.draws if surrogate.stochastic else 1, f"surrogate {s + 1}", mean)
            if raised is not None and (isinstance(method, AutoAttack) or method.needs_gradient):
                signs.append(raised & (DEAD if given else MASKING))
    if asked.blind and not given and not model.stochastic:
        search.around(margin_pgd(), asked.draws)
    hidden = given and bool((flags or frozenset()) & MASKING)
    masked = search.blind(asked.blind, asked.draws if model.stochastic else 1, hidden)
    masked |= not given and search.misled()
    dead = frozenset.intersection(*signs) if signs else frozenset()
    clean, before, after = (float(np.mean(v)) for v in (search.correct, robust, search.standing))
    verdict = "holds"
    if before <= falls:
        verdict = "broken"
    elif before - after > falls or after <= falls:
        verdict = "falls"
    elif dead or masked:
        verdict = "masked"
    if dead and after > falls:
        search.notes.append("no gradient attack saw through the model, so the rows left say little: give a Defence with a surrogate")
    return EvaluationRow(
        name=name,
        clean=clean,
        naive=before,
        adaptive=after,
        verdict=verdict,
        correct=search.correct,
        naive_robust=robust,
        adaptive_robust=search.standing,
        x=search.x,
        judged=asked.judged if model.stochastic else 1,
        surrogates=len(surrogates),
        flags=tuple(sorted(flags or ())),
        notes=tuple(dict.fromkeys(search.notes)),
    )


def _plain(model: Model) -> Model:
    return untuned(model).replace(info=ModelInfo())  # names are static: they must not decide what is compiled
