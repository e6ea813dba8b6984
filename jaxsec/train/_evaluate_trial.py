"""The rows of one defence on trial: searches for inputs, and the judge, who believes no search."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..attack import AutoAttack, Method, attack
from ..core import Model, row_keys
from ..core._batch import bucket, pad_rows, take_leaves
from ..core._keys import fold
from ..threat import Threat
from ._evaluate_blind import margin_of, search
from ._evaluate_slopes import false_slopes, rounds
from ._evaluate_unstopped import stages, unstopped


class Judgement(NamedTuple):
    """[R] each: right by the mean of both judgements; wrong by each of them; inside the set; the margin (the mean over the draws)."""

    right: np.ndarray
    wrong: np.ndarray
    inside: np.ndarray
    margin: np.ndarray


class Trial:
    """The deployed model and its rows.

    Args: x, y, ids: host arrays [B, ...], [B], [B]. judged: draws of each of the two judgements of a stochastic model.
      key: number 0 of it belongs to the judge, each search brings another.
    """

    def __init__(
        self, model: Model, x: np.ndarray, y: np.ndarray, ids: np.ndarray, threat: Threat, key: jax.Array, *,
        n_classes: int, judged: int, max_rows: int, min_rows: int,
    ):  # fmt: skip
        self.model, self.x, self.y, self.ids, self.key, self.n_classes, self.judged = model, x, y, ids, key, n_classes, judged
        self.max_rows, self.min_rows = max_rows, min_rows
        self.threat = jax.tree.map(np.asarray, threat.canonical(jnp.asarray(x)))

    def attack(self, target: Model, method: Method | AutoAttack, draws: int, rows: np.ndarray, number: int) -> Any:
        """The result of `attack` on the named rows."""
        return attack(
            target,
            self.x[rows],
            self.y[rows],
            threat=take_leaves(self.threat, rows, len(self.y)),
            method=method,
            key=jax.random.fold_in(self.key, number),
            draws=draws,
            row_ids=self.ids[rows],
            max_rows=self.max_rows,
            min_rows=self.min_rows,
            checks=False,
            progress=False,
        )

    def stages(self, method: Method | AutoAttack) -> list[Method]:
        """As `stages`, for these rows."""
        return stages(method, self.n_classes, self.x.shape[1:], self.threat.norm)

    def unstopped(
        self, target: Model, parts: list[Method], draws: int, rows: np.ndarray, number: int, *, mean: bool = False, around: bool = False
    ) -> tuple[list[np.ndarray], frozenset[str]]:
        """(inputs [R, ...] of the named rows, to be judged in turn; flags, by the counts that `attack` goes by)."""
        deployed = self.model if around or not (target is self.model or self.model.stochastic) else None
        keys = row_keys(jax.random.fold_in(self.key, number), jnp.asarray(self.ids))
        found, flat, bad = [], np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        for part, whole in self._chunks(rows):
            threat = take_leaves(self.threat, whole, len(self.y))
            given = (target, parts, self.x[whole], self.y[whole], threat, keys[whole])
            how = {"draws": draws, "n_classes": self.n_classes, "mean": mean, "around": around}
            inputs, zero, infinite = unstopped(*given, deployed=deployed, **how)
            found.append([np.asarray(v)[: len(part)] for v in inputs])
            flat[part], bad[part] = (np.asarray(v)[: len(part)] for v in (zero, infinite))
        flags = {"nonfinite-gradients"} if bad.any() else set()
        flags |= {"zero-gradients"} if flat.sum() > max(2, 0.05 * len(rows)) else set()
        return [np.concatenate(chunks) for chunks in zip(*found, strict=True)], frozenset(flags)

    def blind(self, rows: np.ndarray, draws: int, number: int) -> np.ndarray:
        """The inputs [R, ...] that a search without gradients ends at, for the named rows."""
        return self._asked(functools.partial(search, draws=draws), rows, number)

    def false_slopes(self, rows: np.ndarray, number: int) -> np.ndarray:
        """[R] whether the deployed model's gradient says how it changes, as `_evaluate_slopes.false_slopes` answers."""
        return self._asked(false_slopes, rows, number)

    def rounds(self) -> bool:
        """Whether the deployed model computes in half precision."""
        return rounds(self.model, jnp.asarray(self.x[:1]), row_keys(self.key, jnp.asarray(self.ids[:1])))

    def _asked(self, ask: Callable[..., jax.Array], rows: np.ndarray, number: int) -> np.ndarray:
        """[R, ...] `ask(model, x, y, threat, keys)` of the named rows, at least one, batch by batch."""
        keys = row_keys(jax.random.fold_in(self.key, number), jnp.asarray(self.ids))
        found = []
        for part, whole in self._chunks(rows):
            threat = take_leaves(self.threat, whole, len(self.y))
            found.append(np.asarray(ask(self.model, self.x[whole], self.y[whole], threat, keys[whole]))[: len(part)])
        return np.concatenate(found)

    def judge(self, at: np.ndarray, rows: np.ndarray) -> Judgement:
        """What the deployed model says at `at` [R, ...] of the named rows.

        Each row has its own draws, and the same at every input: so that clean and attacked inputs differ by the inputs alone.
        """
        found = Judgement(*(np.zeros(len(rows), kind) for kind in (bool, bool, bool, np.float32)))
        keys = row_keys(jax.random.fold_in(self.key, 0), jnp.asarray(self.ids))
        judged = self.judged if self.model.stochastic else 1
        for part, whole in self._chunks(rows):
            threat = take_leaves(self.threat, whole, len(self.y))
            padded = pad_rows(part, len(whole))
            ok = _judged(self.model, threat, self.x[whole], at[padded], self.y[whole], keys[whole], judged)
            for to, v in zip(found, ok, strict=True):
                to[part] = np.asarray(v)[: len(part)]
        return found

    def _chunks(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """(places in `rows`, these rows padded to a batch's size) of each batch."""
        places = [np.arange(i, min(i + self.max_rows, len(rows))) for i in range(0, len(rows), self.max_rows)]
        return [(part, rows[pad_rows(part, bucket(len(part), self.max_rows, self.min_rows))]) for part in places]


@functools.partial(jax.jit, static_argnums=6)
def _judged(
    model: Model, threat: Threat, x0: jax.Array, x: jax.Array, y: jax.Array, keys: jax.Array, judged: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    inside = threat.contains(x0, x)
    if not model.stochastic:
        z = model(x).astype(jnp.float32)
        right = (jnp.argmax(z, axis=1) == y) & jnp.all(jnp.isfinite(z), axis=1)
        return right, ~right, inside, margin_of(z, y)

    def one(h: jax.Array) -> tuple[jax.Array, ...]:
        def add(carry: tuple[jax.Array, ...], d: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
            z = model(x, fold(own, d)).astype(jnp.float32)
            return (carry[0] + jax.nn.softmax(z), carry[1] & jnp.all(jnp.isfinite(z), axis=1), carry[2] + margin_of(z, y)), None

        own = fold(keys, h)
        none = jnp.zeros(jax.eval_shape(model, x, own).shape, jnp.float32), jnp.ones(y.shape, bool), jnp.zeros(y.shape, jnp.float32)
        return jax.lax.scan(add, none, jnp.arange(judged))[0]

    p, finite, margin = jax.lax.map(one, jnp.arange(2))
    finite = jnp.all(finite, axis=0)
    wrong = jnp.all(jnp.argmax(p, axis=2) != y[None], axis=0)
    return (jnp.argmax(jnp.sum(p, axis=0), axis=1) == y) & finite, wrong | ~finite, inside, jnp.sum(margin, axis=0) / (2 * judged)
