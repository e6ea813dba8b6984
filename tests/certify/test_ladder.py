"""The eager run of `certify`: it goes on after a kill, reports how far it is, and says what cannot be bounded whatever the rows are."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound._graph import UnsupportedPrimitive
from jaxsec.certify import Certificate
from jaxsec.certify._ladder import Ladder

LADDER = [jaxsec.IBP(), jaxsec.CROWN()]
THREAT = jaxsec.LInf(eps=0.08, lo=0.0, hi=1.0)


def net(params, x):
    return jax.nn.relu(jax.nn.relu(x @ params["a"]) @ params["b"]) @ params["c"]


def turning(params, x):
    return jnp.abs(jnp.fft.fft(x @ params["a"]))


@pytest.fixture(scope="module")
def model() -> jaxsec.Model:
    r = np.random.default_rng(0)
    sizes = (("a", (5, 12)), ("b", (12, 12)), ("c", (12, 3)))
    return jaxsec.bind(net, {k: jnp.asarray(r.normal(size=s), jnp.float32) for k, s in sizes})


@pytest.fixture(scope="module")
def rows(model: jaxsec.Model) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(1).uniform(0, 1, (23, 5)).astype(np.float32)
    y = np.asarray(model(jnp.asarray(x))).argmax(1)
    y[:2] = (y[:2] + 1) % 3
    return x, y


@pytest.fixture(scope="module")
def whole(model: jaxsec.Model, rows: Any) -> Certificate:
    found = jaxsec.certify(model, *rows, threat=THREAT, method=LADDER, max_rows=8, min_rows=8)
    counts = [int(np.sum(found.method == i)) for i in (0, 1, -1)]
    assert min(counts) > 2, "the threat is chosen so that each method proves some rows and none proves all"
    return found


def same(a: Certificate, b: Certificate) -> None:
    for name in ("robust", "margin", "method", "status"):
        np.testing.assert_array_equal(np.asarray(getattr(a, name)), np.asarray(getattr(b, name)), err_msg=name)


class Counted:
    """Counts batches that are bounded; a kill after `last` of them."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int = 1000):
        self.batches: list[int] = []
        real = Ladder._bounded

        def bounded(ladder: Ladder, found: Any, rows: np.ndarray, i: int) -> None:
            if len(self.batches) == last:
                raise KeyboardInterrupt
            self.batches.append(len(rows))
            real(ladder, found, rows, i)

        patch.setattr(Ladder, "_bounded", bounded)


@pytest.mark.parametrize("last", range(5))
def test_a_killed_run_goes_on_behind_its_last_batch(
    model: jaxsec.Model, rows: Any, whole: Certificate, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    call = {"threat": THREAT, "method": LADDER, "state": tmp_path, "min_rows": 8, "max_rows": 8}
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        jaxsec.certify(model, *rows, **call | {"state": None})
        batches = len(counted.batches)
    with monkeypatch.context() as patch:
        Counted(patch, last)
        with pytest.raises(KeyboardInterrupt):
            jaxsec.certify(model, *rows, **call)
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        same(jaxsec.certify(model, *rows, **call), whole)
        assert len(counted.batches) == batches - last
        same(jaxsec.certify(model, *rows, **call), whole)
        assert len(counted.batches) == batches - last, "what is finished is only read"


def test_a_run_goes_on_with_other_batches(
    model: jaxsec.Model, rows: Any, whole: Certificate, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Counted(patch, 1)
        jaxsec.certify(model, *rows, threat=THREAT, method=LADDER, state=tmp_path, max_rows=8)
    counted = Counted(monkeypatch)
    found = jaxsec.certify(model, *rows, threat=THREAT, method=LADDER, state=tmp_path, max_rows=5, budget=2**20)
    np.testing.assert_array_equal(np.asarray(found.method), np.asarray(whole.method))
    assert counted.batches[:3] == [5, 5, 3], "21 rows are right, 8 of them were done"


def test_another_question_reads_no_former_answer(
    model: jaxsec.Model, rows: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rows
    other = model.replace(params=jax.tree.map(lambda v: v * 1.5, model.params))
    counted, before = Counted(monkeypatch), 0
    questions: list[tuple[Any, ...]] = [
        (model, x, y, 0.08, False, LADDER),
        (other, x, y, 0.08, False, LADDER),
        (model, x[::-1], y[::-1], 0.08, False, LADDER),
        (model, x, y, 0.01, False, LADDER),
        (model, x, y, 0.08, True, LADDER),
        (model, x, y, 0.08, False, [jaxsec.IBP()]),
    ]
    for net_, x_, y_, eps, sound, method in questions:
        jaxsec.certify(net_, x_, y_, threat=THREAT.replace(eps=eps), method=method, sound=sound, state=tmp_path, max_rows=8, min_rows=8)
        assert len(counted.batches) > before
        before = len(counted.batches)
    assert len(list(tmp_path.glob("certify-*.npz"))) == len(questions)


def test_a_damaged_file_counts_as_none(model: jaxsec.Model, rows: Any, whole: Certificate, tmp_path: pathlib.Path) -> None:
    call = {"threat": THREAT, "method": LADDER, "state": tmp_path, "min_rows": 8, "max_rows": 8}
    jaxsec.certify(model, *rows, **call)
    (file,) = tmp_path.glob("certify-*.npz")
    for cut in (0, 100, file.stat().st_size - 30):
        file.write_bytes(file.read_bytes()[:cut])
        same(jaxsec.certify(model, *rows, **call), whole)


def test_progress_rises_to_the_end(model: jaxsec.Model, rows: Any) -> None:
    said: list[tuple[str, float, int]] = []
    call = {"threat": THREAT, "method": LADDER, "max_rows": 8, "min_rows": 8}
    found = jaxsec.certify(model, *rows, **call, progress=lambda *words: said.append(words))
    fractions = [s[1] for s in said]
    assert [s[0] for s in said][:3] == ["ibp"] * 3 and said[-1][0] == "crown" and len(said) >= 5
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert said[-1][2] == int(np.sum(found.method == -1)) - 2, "two rows were wrong before"


def test_a_batch_size_of_its_own_is_compiled_once(model: jaxsec.Model, rows: Any) -> None:
    traces: list[int] = []

    def counted(params, x):
        traces.append(len(x))
        return net(params, x)

    own, (x, y) = jaxsec.bind(counted, model.params), rows
    jaxsec.certify(own, x, y, threat=THREAT, method=LADDER, max_rows=4, min_rows=4)
    before = len(traces)
    for n in (1, 2, 7):
        jaxsec.certify(own, x[-n:], y[-n:], threat=THREAT.replace(eps=0.01 * n), method=LADDER, max_rows=4, min_rows=4)
    assert len(traces) == before


@pytest.mark.parametrize("n", [0, 4])
def test_what_cannot_be_bounded_says_so_though_no_row_is_right(model: jaxsec.Model, rows: Any, n: int) -> None:
    x = rows[0][:n]
    unbounded = jaxsec.bind(turning, model.params)
    wrong = (np.asarray(unbounded(jnp.asarray(x))).argmax(1) + 1) % 12 if n else np.zeros(0, int)
    with pytest.raises(UnsupportedPrimitive, match="complex"):
        jaxsec.certify(unbounded, x, wrong, threat=THREAT)
    wrong = (np.asarray(model(jnp.asarray(x))).argmax(1) + 1) % 3
    assert not np.asarray(jaxsec.certify(model, x, wrong, threat=THREAT).robust).any(), "of a model that can be, no row is certified"


def test_unusable_arguments_are_refused(model: jaxsec.Model, rows: Any, tmp_path: pathlib.Path) -> None:
    for least in (0, 9):
        with pytest.raises(ValueError, match=f"min_rows is {least}; it must be from 1 to max_rows, which is 8"):
            jaxsec.certify(model, *rows, threat=THREAT, min_rows=least, max_rows=8)
    with pytest.raises(ValueError, match="needs the eager run"):
        jax.jit(lambda x, y: jaxsec.certify(model, x, y, threat=THREAT, state=tmp_path))(*rows)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="give a folder"):
        jaxsec.certify(model, *rows, threat=THREAT, state=tmp_path / "file")
