"""Word substitution on SMS messages: a bag of words trained with masking, certified, and attacked through its exact smoothed form."""

import csv
import gzip
import itertools
import re
from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.smooth import Ablation

MASK, PAD, OTHER, T, KEEP, WORDS, STEPS = 0, 1, 2, 24, 3, 1500, 300
SETS = np.array([[i in s for i in range(T)] for s in itertools.combinations(range(T), KEEP)], np.float32)  # all 2024 ablations
ABLATION = Ablation(keep=KEEP, fill=MASK)


class Texts(NamedTuple):
    model: jaxsec.Model
    weights: np.ndarray  # [V, 2]
    tokens: np.ndarray
    y: np.ndarray


def bag(weights: jax.Array, tokens: jax.Array) -> jax.Array:
    return weights[tokens].sum(1)


def read(path) -> tuple[np.ndarray, np.ndarray]:
    """([N, T] ids of the first T words, 1 for spam)."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [r for r in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if len(r) == 2]
    words = [re.findall(r"[a-z']+|[0-9]+|[£!?]", text.lower()) for _, text in rows]
    words = [["#" if w.isdigit() else w for w in row] for row in words]
    ids = {w: i + 3 for i, (w, _) in enumerate(Counter(itertools.chain(*words[:4000])).most_common(WORDS))}
    tokens = np.full((len(rows), T), PAD, np.int32)
    for row, text in zip(tokens, words, strict=True):
        row[: len(text)] = [ids.get(w, OTHER) for w in text[:T]]
    return tokens, np.array([label == "spam" for label, _ in rows], np.int32)


@pytest.fixture(scope="module")
def texts(shared_data) -> Texts:
    """Logistic regression on masked copies of 4000 messages, spam (13 %) counted twice; the other messages to test."""
    path = shared_data / "text" / "sms.tsv.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    tokens, y = read(path)

    def loss(weights: jax.Array, words: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        shown = ABLATION.draw(words, x, jnp.zeros_like(words), jnp.ones(len(x)), (), n=1, dtype=jnp.float32)
        each = -jnp.take_along_axis(jax.nn.log_softmax(bag(weights, shown)), y[:, None], 1)[:, 0]
        return jnp.mean(each * (1 + y)) + 1e-5 * jnp.sum(weights**2)

    @jax.jit
    def fit(x: jax.Array, y: jax.Array) -> jax.Array:
        def step(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            weights, velocity = state
            words = jax.random.bits(jax.random.fold_in(jax.random.key(0), i), (len(x), 2), jnp.uint32)
            velocity = 0.9 * velocity - 20.0 * (1 - i / STEPS) * jax.grad(loss)(weights, words, x, y)
            return weights + velocity, velocity

        return jax.lax.fori_loop(0, STEPS, step, (jnp.zeros((WORDS + 3, 2)), jnp.zeros((WORDS + 3, 2))))[0]

    weights = fit(jnp.asarray(tokens[:4000]), jnp.asarray(y[:4000]))
    return Texts(jaxsec.bind(bag, weights), np.asarray(weights, np.float64), tokens[4000:], y[4000:])


def probability(texts: Texts, tokens: np.ndarray, y: int) -> np.ndarray:
    """[N] exact: the share of ablations in which the label's score leads; float64, ties count against the label."""
    lead = texts.weights[:, y] - texts.weights[:, 1 - y]
    seen = lead[tokens] - lead[MASK]
    return np.mean(seen @ SETS.T.astype(np.float64) + T * lead[MASK] > 0, axis=1)


def worst(texts: Texts, tokens: np.ndarray, y: int, r: int) -> float:
    """The least probability over r substitutions. A word's lead enters every sum with the same sign, so that the word with the least is
    the best substitute everywhere, and only which positions is to be searched: all, or beyond two the best after two."""
    least = int(np.argmin(texts.weights[:, y] - texts.weights[:, 1 - y]))
    starts = [tokens]
    for step in (min(r, 2), *([1] * max(r - 2, 0))):
        tried = []
        for start, where in itertools.product(starts, itertools.combinations(range(T), step)):
            tried.append(start.copy())
            tried[-1][list(where)] = least
        found = probability(texts, np.array(tried), y)
        starts = [tried[int(i)] for i in np.argsort(found)[:1]]
    return float(found.min())


@pytest.fixture(scope="module")
def found(texts: Texts) -> jaxsec.SmoothedCertificate:
    method = jaxsec.Smoothing(distribution=ABLATION, n=2000)
    return jaxsec.certify(
        texts.model, texts.tokens[:300], texts.y[:300], threat=jaxsec.L0(eps=1), method=method, key=jax.random.key(0), progress=False
    )


def test_messages_are_certified_at_one_and_more_words(texts: Texts, found: jaxsec.SmoothedCertificate) -> None:
    right = found.predict == texts.y[:300]
    for label, least in ((0, (0.9, 0.85, 0.75)), (1, (0.5, 0.3, 0.15))):
        rows = texts.y[:300] == label
        for words, share in enumerate(least, 1):
            assert np.mean((right & (found.radius >= words))[rows]) > share
    assert found.radius.max() == 4  # C(19, 3) / C(24, 3) < 1/2


def test_the_exact_probability_is_above_the_bound(texts: Texts, found: jaxsec.SmoothedCertificate) -> None:
    rows = np.flatnonzero(found.predict >= 0)
    p = np.array([probability(texts, texts.tokens[i][None], int(found.predict[i]))[0] for i in rows])
    assert np.all(found.p_lower[rows] <= p) and np.all(p > 0.5)


def test_no_substitution_breaks_a_certified_message(texts: Texts, found: jaxsec.SmoothedCertificate) -> None:
    """The weakest certified rows of each radius, all pairs of positions, then one by one."""
    attacked = 0
    for radius in (1, 2, 3, 4):
        rows = np.flatnonzero(found.radius == radius)
        for i in rows[np.argsort(found.p_lower[rows])][:12]:
            assert worst(texts, texts.tokens[i], int(found.predict[i]), radius) > 0.5
            attacked += 1
    assert attacked > 30
    # the attack is one: it turns messages within three times the certified radius
    near = np.flatnonzero(found.radius == 1)[:12]
    assert any(worst(texts, texts.tokens[i], int(found.predict[i]), 3) < 0.5 for i in near)


def test_sequential_smoothing_agrees_with_fewer_samples(texts: Texts, found: jaxsec.SmoothedCertificate) -> None:
    method = jaxsec.SequentialSmoothing(distribution=ABLATION, n=2000)
    other = jaxsec.certify(
        texts.model, texts.tokens[:300], texts.y[:300], threat=jaxsec.L0(eps=1), method=method, key=jax.random.key(0), progress=False
    )
    assert np.mean(other.robust == found.robust) > 0.97 and other.samples.mean() < 0.5 * found.samples.mean()
