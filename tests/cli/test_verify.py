"""`jaxsec verify` on small files with an engine that is told what to answer, and once with the real one."""

import csv
import dataclasses
import importlib.util
import json
import pathlib
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxsec.certify import Verification
from jaxsec.cli import _verify_ask
from jaxsec.cli._verify_progress import Bar
from jaxsec.io import read_result

from .conftest import Run

helper = pytest.importorskip("onnx.helper")

COLUMNS = ["onnx", "vnnlib", "timeout", "verdict", "seconds", "method", "branches", "margin", "note"]
UNSAFE = "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)\n"
UNSAFE += "(assert (<= 0 X_0 1)) (assert (<= 0 X_1 1))\n(assert (<= Y_0 {limit}))\n"
W = np.array([[1.0, -1.0], [2.0, 0.5]], np.float32)


Engine = Callable[..., Verification]


def at_the_corner(model: Any, prop: Any, *, timeout: float, key: Any = None, on_event: Any = None, sound: bool = False) -> Verification:
    """Exact for Y_0 = X_0 + 2 X_1 on [0, 1]^2, whose minimum is at 0; limits of 7, 8 and 9 stand for other outcomes."""
    assert timeout > 0 and key is not None
    limit = float(prop.cases[0].clauses[0].d[0])
    if limit == 9:
        raise NotImplementedError("no rule bounds the operation 'sort' (...), used at net.py:3. Write it with others.")
    if limit in (7, 8):
        return Verification("timeout" if limit == 7 else "unknown", None, None, 2.0, "beta-crown", 5, -0.5, "highest", "")
    on_event("bound", {"open": 1, "done": 0, "bound": -limit, "method": "crown"})
    x = np.zeros(2)
    y = np.asarray(model(np.zeros((1, *model.info.input_shape), np.float32)), np.float64)[0]
    assert prop.violated(x, y) == (limit >= 0)
    if limit >= 0:
        return Verification("sat", x, y, 0.25, "attack", 0, -limit, "highest", "")
    return Verification("unsat", None, None, 0.5, "crown", 1, -limit, "highest", "")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], list[float]]:
    """Puts an engine in the place of `jaxsec.certify`; gives the list of timeouts that it was asked with."""

    def put(verify: Engine) -> list[float]:
        asked: list[float] = []

        def counted(*args: Any, **more: Any) -> Verification:
            asked.append(more["timeout"])
            return verify(*args, **more)

        module: Any = types.ModuleType("jaxsec.certify")
        module.verify, module.Verification = counted, Verification
        monkeypatch.setitem(sys.modules, "jaxsec.certify", module)
        return asked

    return put


@pytest.fixture
def asked(engine: Callable[[Engine], list[float]]) -> list[float]:
    return engine(at_the_corner)


def write_net(path: pathlib.Path, weights: np.ndarray = W, last: str | None = None) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z" if last else "y"])]
    nodes += [helper.make_node(last, ["z"], ["y"])] if last else []
    ends = [[helper.make_tensor_value_info(n, 1, (1, d))] for n, d in zip("xy", weights.shape, strict=True)]
    graph = helper.make_graph(nodes, "net", *ends, [helper.make_tensor("w", 1, weights.shape, weights.ravel())])
    path.write_bytes(helper.make_model(graph).SerializeToString())


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two nets and properties of every outcome, with their list and the truth about it."""
    for net in ("a.onnx", "b.onnx"):
        write_net(tmp_path / net)
    limits = {"sat": 0, "unsat": -1, "deep": -2, "timeout": 7, "unknown": 8, "unsupported": 9}
    for name, limit in limits.items():
        (tmp_path / f"{name}.vnnlib").write_text(UNSAFE.format(limit=limit))
    (tmp_path / "broken.vnnlib").write_text(UNSAFE.format(limit="Y_7"))
    lines = [f"{net}.onnx,{name}.vnnlib,{10 * k + 10}" for k, name in enumerate([*limits, "broken"]) for net in "ab"]
    (tmp_path / "instances.csv").write_text("\n".join(lines) + "\n")
    truth = {"sat": "sat", "unsat": "unsat", "deep": "unsat", "timeout": "sat", "unknown": "unknown"}
    rows = [f'x,{net}.onnx,./{name}.vnnlib,{verdict},"3,votes"' for name, verdict in truth.items() for net in "ab"]
    (tmp_path / "truth.csv").write_text("idx,onnx,vnnlib,verdict,evidence\n" + "\n".join(rows))
    return tmp_path


def table(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# One property


def test_sat_shows_and_writes_its_counterexample(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    words = ("verify", folder / "a.onnx", folder / "sat.vnnlib", "--timeout", 5, "--out", folder / "r" / "result")
    code, out, err = run(*words)
    assert (code, err, asked) == (0, "", [5.0])
    assert out.startswith("sat: an input violates it (attack, 0.25 s, margin 0)\nX: 0.0 0.0\nY: 0.0 0.0\nsaved: ")
    verdict, found = read_result(folder / "r" / "result")
    assert verdict == "sat" and found is not None and found[0].tolist() == [0, 0] and found[1].tolist() == [0, 0]
    code, out, _ = run(*words[:3], "--format", "vnncomp")
    assert code == 0 and out == (folder / "r" / "result").read_text()
    assert run(*words, "-q")[:2] == (0, "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unsat", "unsat: no input violates it (crown, 0.50 s, margin 1, 1 branch, not rounded outward)"),
        ("timeout", "timeout: not decided within 120 s (beta-crown, 2.00 s, margin -0.5, 5 branches)"),
        ("unknown", "unknown: not decided"),
    ],
)
def test_other_verdicts(run: Run, folder: pathlib.Path, asked: list[float], name: str, said: str) -> None:
    code, out, _ = run("verify", folder / "a.onnx", folder / f"{name}.vnnlib", "--out", folder / "result")
    assert code == 0 and out.startswith(said) and asked == [120.0]
    assert read_result(folder / "result") == (name, None)


def test_a_verdict_changes_the_exit_code_only_if_asked(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    words = ("verify", folder / "a.onnx", folder / "unknown.vnnlib", "-q")
    assert run(*words, "--fail-on", "sat")[0] == 0
    assert run(*words, "--fail-on", "sat, unknown,timeout")[0] == 1


def test_json(run: Run, folder: pathlib.Path, engine: Callable[[Engine], list[float]]) -> None:
    engine(lambda *args, **more: dataclasses.replace(at_the_corner(*args, **more), margin=float("-inf"), note="a note"))
    code, out, _ = run("verify", folder / "a.onnx", folder / "sat.vnnlib", "--json", "-q")
    found = json.loads(out)
    assert code == 0 and (found["verdict"], found["x"], found["y"], found["margin"]) == ("sat", [0, 0], [0, 0], None)
    assert (found["note"], found["precision"], found["timeout"]) == ("a note", "highest", 120)
    assert json.loads(run("verify", folder / "a.onnx", folder / "unsat.vnnlib", "--format", "json")[1])["x"] is None


def test_sound_counts_only_proofs_that_were_rounded(run: Run, folder: pathlib.Path, engine: Callable[[Engine], list[float]]) -> None:
    engine(at_the_corner)
    words = ("verify", folder / "a.onnx", folder / "unsat.vnnlib", "--sound")
    code, out, _ = run(*words)
    assert code == 0 and out.startswith("unknown") and "crown proved unsat without rounding outward" in out
    engine(lambda *args, **more: dataclasses.replace(at_the_corner(*args, **more), precision="sound"))
    assert "unsat: no input violates it" in (out := run(*words)[1]) and ", rounded outward)" in out


def test_a_final_softmax_stays(run: Run, folder: pathlib.Path, engine: Callable[[Engine], list[float]]) -> None:
    """A property speaks of the outputs of the file; without its softmax the net would be another one."""

    def probabilities(model: Any, prop: Any, **more: Any) -> Verification:
        np.testing.assert_allclose(np.asarray(model(np.ones((1, 2), np.float32))).sum(), 1, rtol=1e-6)
        return Verification("unsat", None, None, 0.0, "crown", 0, 1.0, "highest", "")

    engine(probabilities)
    write_net(folder / "soft.onnx", last="Softmax")
    code, _, err = run("verify", folder / "soft.onnx", folder / "unsat.vnnlib")
    assert (code, err) == (0, "")


def test_packed_files_and_python_models(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    import gzip

    for name in ("a.onnx", "sat.vnnlib"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert run("verify", folder / "a.onnx", folder / "sat.vnnlib", "-q")[0] == 0
    text = "import jax.numpy as jnp\nimport jaxsec\n\n\ndef net(w, x):\n    return x @ w\n\n\n"
    text += "info = jaxsec.ModelInfo(input_shape=(2,))\nmodel = jaxsec.bind(net, jnp.array([[1.0, -1], [2, 0.5]]), info=info)\n"
    (folder / "net.py").write_text(text)
    assert run("verify", f"{folder}/net.py:model", folder / "sat.vnnlib", "-q")[0] == 0
    (folder / "net.py").write_text(text.replace("(2,)", "(3,)"))
    code, _, err = run("verify", f"{folder}/net.py:model", folder / "sat.vnnlib")
    assert code == 2 and "says that its rows have the shape (3,), but does not take one" in err


# Mistakes


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "MODEL and PROPERTY are missing; needed are two files"),
        (["a.onnx"], "PROPERTY is missing"),
        (["none.onnx", "sat.vnnlib"], "no model file"),
        (["a.onnx", "none.vnnlib"], "there is no property '{f}/none.vnnlib', nor with .gz"),
        (["a.onnx", "broken.vnnlib"], "{f}/broken.vnnlib:3:17: Y_7 is not declared"),
        (["three.onnx", "sat.vnnlib"], "sat.vnnlib:1:41: the network has 3 inputs, the property declares 2"),
        (["wide.onnx", "sat.vnnlib"], "sat.vnnlib:1:91: the network has 3 outputs, the property declares 2"),
        (["a.onnx", "unsupported.vnnlib"], "no rule bounds the operation 'sort' (...), used at net.py:3"),
        (["a.onnx", "sat.vnnlib", "--timeout", "0"], "--timeout is '0'; seconds above 0"),
        (["a.onnx", "sat.vnnlib", "--timeout", "soon"], "--timeout is 'soon'; seconds above 0"),
        (["a.onnx", "sat.vnnlib", "--seed", "-1"], "--seed is '-1'"),
        (["a.onnx", "sat.vnnlib", "--format", "xml"], "--format is 'xml'; allowed: text, json, vnncomp"),
        (["a.onnx", "sat.vnnlib", "--json", "--format", "vnncomp"], "--json and --format vnncomp were both given"),
        (["a.onnx", "sat.vnnlib", "--fail-on", "sat,safe"], "'safe' is no verdict; allowed: sat, unsat"),
        (["a.onnx", "sat.vnnlib", "--out", "."], "a folder; the name of a file"),
        (["a.onnx", "sat.vnnlib", "--shard", "1/2"], "--shard was given without --instances"),
        (["a.onnx", "sat.vnnlib", "--fresh"], "--resume or --fresh was given without"),
        (["a.onnx", "--instances", "instances.csv"], "was given beside --instances"),
        (["--instances", "instances.csv", "--format", "vnncomp"], "with --instances allowed: text, json"),
        (["--instances", "instances.csv", "--out", "r.txt"], "with --instances a .csv file is needed"),
        (["--instances", "instances.csv", "--out", "truth.csv"], "truth.csv is no results file of jaxsec verify"),
        (["--instances", "instances.csv", "--out", "truth.csv", "--fresh"], "truth.csv is no results file of jaxsec verify"),
        (["--instances", "instances.csv", "--out", "instances.csv", "--fresh"], "instances.csv', a file that is read here"),
        (["a.onnx", "sat.vnnlib", "--out", "a.onnx"], "a.onnx', a file that is read here"),
        (["a.onnx", "sat.vnnlib", "--out", "sat.vnnlib"], "sat.vnnlib', a file that is read here"),
        (["--instances", "none.csv"], "there is no list of --instances"),
        (["--instances", "instances.csv", "--expected", "none.csv"], "there is no table of --expected"),
        (["--instances", "instances.csv", "--expected", "instances.csv"], "no column 'onnx' in the header"),
        (["--instances", "instances.csv", "--expected", "other.csv"], "has none of the lines, such as a.onnx, sat.vnnlib"),
        (["--instances", "instances.csv", "--expected", "clash.csv"], "is 'sat' above and 'unsat' here"),
        (["--instances", "instances.csv", "--expected", "word.csv"], "word.csv:2:1: the verdict is 'safe'; allowed: sat, unsat"),
        (["--instances", "instances.csv", "--limit", "0"], "--limit is '0'"),
        (["--instances", "instances.csv", "--sample", "-1"], "--sample is '-1'"),
        (["--instances", "instances.csv", "--shard", "0/2"], "--shard is '0/2'; allowed is I/N with I from 1 to N"),
        (["--instances", "instances.csv", "--shard", "3/2"], "--shard is '3/2'"),
        (["--instances", "untimed.csv"], "no column timeout or timeout_s, and no --timeout"),
        (["--instances", "short.csv"], "short.csv:3:1: a line of 2 fields; the header has 3"),
        (["--instances", "slow.csv"], "slow.csv:2:1: the timeout is 'long'"),
        (["--instances", "empty.csv"], "has a header and no lines"),
        (["--instances", "lost.csv"], "there is no onnx file"),
        (["--instances", "half.csv"], "half.csv:1:1: no column 'vnnlib'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes(run: Run, folder: pathlib.Path, asked: list[float], monkeypatch: pytest.MonkeyPatch, args: list[str], said: str) -> None:
    write_net(folder / "three.onnx", np.ones((3, 2), np.float32))
    write_net(folder / "wide.onnx", np.ones((2, 3), np.float32))
    texts = {
        "other": "onnx,vnnlib,verdict\nc.onnx,sat.vnnlib,sat",
        "clash": "benchmark,onnx,vnnlib,verdict\nx,a.onnx,sat.vnnlib,sat\nx,a.onnx,sat.vnnlib,unsat",
        "word": "onnx,vnnlib,verdict\na.onnx,sat.vnnlib,safe",
        "untimed": "onnx,vnnlib\na.onnx,sat.vnnlib",
        "short": "vnnlib,onnx,timeout\nsat.vnnlib,a.onnx,3\nsat.vnnlib,a.onnx",
        "slow": "vnnlib,onnx,timeout\nsat.vnnlib,a.onnx,long",
        "empty": "onnx,vnnlib,timeout\n",
        "lost": "onnx,vnnlib,timeout\nc.onnx,sat.vnnlib,3",
        "half": "onnx,property,timeout\na.onnx,sat.vnnlib,3",
    }
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    monkeypatch.chdir(folder)
    whole = [str(folder / a) if re.search(r"\.(onnx|vnnlib|csv|txt)$", a) else a for a in args]
    code, _, err = run("verify", *whole)
    assert code == 2 and said.format(f=folder) in err and len(err.splitlines()) == 1, err
    assert {path: path.read_bytes() for path in before} == before and not (folder / "results.csv").exists()


# A whole list


def test_a_damaged_network_is_noted_in_words_for_people(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    (folder / "damaged.onnx").write_bytes(b"no network at all")
    (folder / "damaged.csv").write_text("onnx,vnnlib,timeout\ndamaged.onnx,sat.vnnlib,3\na.onnx,sat.vnnlib,3\n")
    code, _, err = run("verify", "--instances", folder / "damaged.csv", "--out", folder / "r.csv")
    rows = table(folder / "r.csv")
    assert (code, err) == (0, "") and [r["verdict"] for r in rows] == ["error", "sat"]
    assert rows[0]["note"].startswith(f"{folder}/damaged.onnx is not an ONNX file, or it is damaged")


def test_a_list_is_run_and_recorded(run: Run, folder: pathlib.Path, asked: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load = _verify_ask.model_of
    monkeypatch.setattr(_verify_ask, "model_of", lambda spec, **more: loaded.append(spec) or load(spec, **more))
    out = folder / "r" / "results.csv"
    words = ("verify", "--instances", folder / "instances.csv", "--out", out)
    code, said, err = run(*words, "--expected", folder / "truth.csv")
    assert (code, err) == (0, "")
    rows = table(out)
    assert list(rows[0]) == COLUMNS and len(rows) == 14 and [r["onnx"] for r in rows[:2]] == ["a.onnx", "b.onnx"]
    assert [r["verdict"] for r in rows[::2]] == ["sat", "unsat", "unsat", "timeout", "unknown", "error", "error"]
    assert rows[2] == {
        "onnx": "a.onnx",
        "vnnlib": "unsat.vnnlib",
        "timeout": "20",
        "verdict": "unsat",
        "seconds": "0.5",
        "method": "crown",
        "branches": "1",
        "margin": "1",
        "note": "",
    }
    assert rows[10]["note"].startswith("no rule bounds the operation 'sort'")
    assert rows[12]["note"].startswith(f"{folder}/broken.vnnlib:3:17: Y_7 is not declared")
    assert asked == [10, 10, 20, 20, 30, 30, 40, 40, 50, 50, 60, 60], "the list's own timeouts; the broken one never got so far"
    assert len(loaded) == 2, "each net once"
    assert sorted(p.name for p in (folder / "r" / "results.witnesses").iterdir()) == ["1.txt", "2.txt"]
    assert read_result(folder / "r" / "results.witnesses" / "2.txt")[0] == "sat"
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0] == "network unsat sat timeout unknown error median s total s"
    assert lines[1].startswith("a 2 1 1 1 2 ") and lines[3].startswith("all 4 2 2 2 4 ")
    assert "against the expected verdicts: 6 agree, 0 WRONG, 2 not decided here, 2 unknown there, 4 not listed there" in lines
    assert lines[4].startswith("error a.onnx unsupported.vnnlib: no rule bounds the operation") and "(and 3 more, see" in lines[4]
    code, again, err = run(*words)
    assert (
        code == 0 and len(asked) == 12 and "going on: 14 of 14 lines are done" in err and again.splitlines()[1:4] == said.splitlines()[1:4]
    )
    code, said, err = run(*words, "-q", "--fail-on", "error")
    assert code == 1 and said == "" and err.startswith("error a.onnx unsupported.vnnlib") and len(err.splitlines()) == 1


def test_a_wrong_verdict_is_exit_1(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    truth = (folder / "truth.csv").read_text()
    (folder / "truth.csv").write_text(truth.replace("b.onnx,./deep.vnnlib,unsat", "b.onnx,./deep.vnnlib,sat"))
    words = ("verify", "--instances", folder / "instances.csv", "--out", folder / "r.csv", "--expected", folder / "truth.csv")
    code, said, _ = run(*words)
    assert code == 1 and "WRONG b.onnx deep.vnnlib: unsat by crown, expected sat" in said and "5 agree, 1 WRONG" in said
    code, said, err = run(*words, "-q")
    assert code == 1 and said == "" and "WRONG b.onnx deep.vnnlib: unsat by crown, expected sat" in err
    code, said, _ = run(*words, "--json")
    found = json.loads(said)
    assert code == 1 and found["expected"]["wrong"] == [{"onnx": "b.onnx", "vnnlib": "deep.vnnlib", "verdict": "unsat", "expected": "sat"}]
    assert found["total"]["unsat"] == 4 and found["nets"]["a.onnx"]["error"] == 2


def test_timeout_overrides_and_parts_of_a_list(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    words = ("verify", "--instances", folder / "instances.csv", "--timeout", 3, "--out")
    assert run(*words, folder / "l.csv", "--limit", 3)[0] == 0
    assert asked == [3.0] * 3 and [r["timeout"] for r in table(folder / "l.csv")] == ["3"] * 3
    parts = []
    for part in (1, 2, 3):
        assert run(*words, folder / f"p{part}.csv", "--shard", f"{part}/3")[0] == 0
        parts += [(r["onnx"], r["vnnlib"]) for r in table(folder / f"p{part}.csv")]
    assert len(parts) == len(set(parts)) == 14, "each line in exactly one part"
    drawn = []
    for seed, name in ((1, "s1"), (1, "s2"), (2, "s3")):
        assert run(*words, folder / f"{name}.csv", "--sample", 5, "--seed", seed)[0] == 0
        drawn.append([(r["onnx"], r["vnnlib"]) for r in table(folder / f"{name}.csv")])
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 5
    assert run(*words, folder / "l.csv", "--limit", 5)[0] == 0 and len(table(folder / "l.csv")) == 5, "more of the list into the same file"


def test_columns_in_any_order_and_several_families(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    """The form of the competition's ground truth: quoted fields, timeout_s, and lists over folders of families."""
    text = '\ufeffbenchmark,idx,vnnlib, ONNX ,timeout_s,verdict,evidence\r\nfam,0,sat.vnnlib,a.onnx,7,sat,"4votes,x"\r\n\r\n'
    text += "fam,1,unsat.vnnlib,a.onnx,8,unsat,\r\n"
    (folder / "ground_truth.csv").write_bytes(text.encode())
    words = ("verify", "--instances", folder / "ground_truth.csv", "--out", folder / "r.csv", "--expected", folder / "ground_truth.csv")
    code, said, _ = run(*words)
    assert code == 0 and asked == [7, 8] and "2 agree, 0 WRONG" in said
    assert (folder / "r.witnesses" / "2.txt").exists(), "the number of the line in the file"
    (folder / "fam").mkdir()
    for path in [*folder.glob("*.onnx"), *folder.glob("*.vnnlib")]:
        path.rename(folder / "fam" / path.name)
    code, said, _ = run(*words[:4], folder / "r2.csv", *words[5:])
    assert code == 0 and table(folder / "r2.csv")[0]["onnx"] == "fam/a.onnx" and "2 agree, 0 WRONG" in said
    (folder / "fam" / "instances.csv").write_text("a.onnx,sat.vnnlib,9\n")
    code, said, _ = run("verify", "--instances", folder / "fam" / "instances.csv", *words[3:4], folder / "r3.csv", *words[5:])
    assert code == 0 and "1 agree, 0 WRONG" in said, "a table of several families for a list of one"


# Resuming


def test_rows_of_another_run_are_refused(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    listed, out = folder / "instances.csv", folder / "r.csv"
    words = ("verify", "--instances", listed, "--out", out, "-q")
    assert run(*words, "--limit", 4)[0] == 0
    before = out.read_bytes()
    for more, said in [
        (("--seed", 3), "r.csv was made with --seed 0, now it is 3;"),
        (("--timeout", 3), "r.csv was made with --timeout not given, now it is 3;"),
        (("--sound",), "r.csv was made with --sound not given, now it is given;"),
    ]:
        code, _, err = run(*words, *more)
        assert code == 2 and said in err and "--fresh to begin anew" in err
    text = listed.read_text()
    listed.write_text("".join(text.splitlines(keepends=True)[:-1]))
    code, _, err = run(*words)
    assert code == 2 and "made from another list" in err and "with 14 lines, now" in err
    listed.write_text(text)
    write_net(folder / "b.onnx", 2 * W)
    code, _, err = run(*words)
    assert code == 2 and f"{folder}/b.onnx has changed since line 2 of the list was asked; delete the lines that name it" in err
    assert out.read_bytes() == before and len(asked) == 4
    out.write_bytes(b"".join(line for line in before.splitlines(keepends=True) if not line.startswith(b"b.onnx")))
    assert run(*words, "--limit", 4)[0] == 0 and len(asked) == 6, "the two lines of the net that has changed, and no other"
    assert {line.split(b",")[0] for line in out.read_bytes().splitlines()[1:]} == {b"a.onnx", b"b.onnx"}
    assert (folder / "r.witnesses" / "2.txt").exists()
    assert run(*words, "--fresh", "--limit", 1)[0] == 0
    assert len(table(out)) == 1 and not (folder / "r.witnesses" / "2.txt").exists()
    (folder / ".r.state" / "run.json").unlink()
    code, _, err = run(*words)
    assert code == 2 and "run.json, which says what it was made from, cannot be read" in err


def test_lines_cut_deleted_damaged_and_asked_twice(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    listed, out = folder / "twice.csv", folder / "r.csv"
    listed.write_text("a.onnx,unsat.vnnlib,5\na.onnx,sat.vnnlib,5\na.onnx,unsat.vnnlib,5\n")
    words = ("verify", "--instances", listed, "--out", out, "-q")
    assert run(*words)[0] == 0 and len(asked) == 3 and len(table(out)) == 3
    assert run(*words)[0] == 0 and len(asked) == 3
    whole = out.read_bytes()
    out.write_bytes(whole[:-4])
    assert run(*words)[0] == 0 and len(asked) == 4 and out.read_bytes() == whole, "the part of a line is gone, the line asked again"
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert run(*words)[0] == 0 and len(asked) == 5 and sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines())
    for text, said in [
        (whole + lines[1], "r.csv:5: a.onnx, unsat.vnnlib is not in the list, or is here once too often"),
        (whole.replace(b",0.25,", b",soon,"), "r.csv:3: a damaged line (could not convert string to float: 'soon')"),
        (whole.replace(b",sat,", b",safe,"), "r.csv:3: a damaged line (the verdict 'safe')"),
    ]:
        out.write_bytes(text)
        code, _, err = run(*words)
        assert code == 2 and said in err and out.read_bytes() == text
    out.write_bytes(lines[0][:9])
    assert run(*words)[0] == 0 and len(table(out)) == 3, "killed while the header was written"


def test_ctrl_c_keeps_what_is_done(run: Run, folder: pathlib.Path, engine: Callable[[Engine], list[float]]) -> None:
    def pressed(*args: Any, **more: Any) -> Verification:
        if len(asked) == stop[0]:
            raise KeyboardInterrupt
        return at_the_corner(*args, **more)

    stop, out = [1], folder / "r.csv"
    asked = engine(pressed)
    words = ("verify", "--instances", folder / "instances.csv", "--out", out)
    code, said, err = run(*words, "--fresh")
    assert (code, said, err) == (130, "", "jaxsec: interrupted; nothing is kept: the same command begins anew.\n")
    asked.clear()
    stop[0] = 3
    code, said, err = run(*words, "--fresh")
    assert code == 130 and "2 of 14 lines are done and kept" in err and "without --fresh goes on." in err and len(table(out)) == 2
    asked.clear()
    code, said, err = run(*words)
    assert code == 130 and err.startswith("going on: 2 of 14") and err.endswith("run the same command again to go on.\n")
    assert len(table(out)) == 4
    stop[0] = 0
    assert run(*words)[0] == 0 and [r["verdict"] for r in table(out)[::2]][:2] == ["sat", "unsat"] and len(table(out)) == 14


def test_ctrl_c_with_one_property(run: Run, folder: pathlib.Path, engine: Callable[[Engine], list[float]]) -> None:
    def pressed(*args: Any, **more: Any) -> Verification:
        raise KeyboardInterrupt

    engine(pressed)
    code, out, err = run("verify", folder / "a.onnx", folder / "sat.vnnlib", "--out", folder / "result")
    assert (code, out, err) == (130, "", "jaxsec: interrupted; nothing is kept: the same command begins anew.\n")
    assert not (folder / "result").exists()


PROGRAM = """
import os, signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from jaxsec.cli import main

calls = []

def verify(model, prop, *, timeout, key=None, on_event=None, sound=False):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        time.sleep(60)
    found = dict(verdict="unsat", x=None, y=None, seconds=0.1, method="crown", branches=0, margin=1.0, precision="highest", note="")
    return types.SimpleNamespace(**found)

sys.modules["jaxsec.certify"] = types.ModuleType("jaxsec.certify")
sys.modules["jaxsec.certify"].verify = verify
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_killed_run_goes_on(run: Run, folder: pathlib.Path, asked: list[float], name: str) -> None:
    out = folder / "r.csv"
    words = ("verify", "--instances", folder / "instances.csv", "--out", out)
    command = [sys.executable, "-c", PROGRAM, str(pathlib.Path(__file__).parents[2]), name, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == (-signal.SIGKILL if name == "SIGKILL" else 130), done.stderr
    assert name == "SIGKILL" or done.stderr.startswith("jaxsec: interrupted; 2 of 14 lines are done and kept in")
    assert [(r["vnnlib"], r["verdict"]) for r in table(out)] == [("sat.vnnlib", "unsat")] * 2
    code, _, err = run(*words)
    assert code == 0 and "going on: 2 of 14" in err and len(asked) == 10 and len(table(out)) == 14


def test_two_runs_do_not_share_a_file(run: Run, folder: pathlib.Path, asked: list[float]) -> None:
    from jaxsec.attack._checkpoint import held

    with held(folder / ".r.state"):
        code, _, err = run("verify", "--instances", folder / "instances.csv", "--out", folder / "r.csv")
    assert code == 2 and "r.csv is in use by another run; wait until that ends, or give another --out" in err


# What a terminal shows


def test_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    for total in (None, 3):
        bar = Bar(total)
        bar._wait, screen = 0.0, Console(file=io.StringIO(), force_terminal=True, width=200)
        bar._bar.live.console = screen
        bar.begin("[odd] name.vnnlib")
        bar.event("bound", {"open": 12, "done": 40, "bound": -0.25, "method": "beta-crown"})
        bar.event("something else", {})
        bar.end("unsat")
        bar._bar.refresh()
        bar.stop()
        said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())  # type: ignore[attr-defined]
        assert "[odd] name.vnnlib" in said and "beta-crown: 12 open, 40 done, bound -0.25" in said
        assert total is None or ("unsat 1" in said and "1/3" in said)


# The published lists, and the real engine


def test_published_lists(shared_data: pathlib.Path, run: Run, tmp_path: pathlib.Path, engine: Callable[[Engine], list[float]]) -> None:
    """Every list of ground truth is read as it is, with the files found and counted against the networks."""
    engine(lambda *args, **more: Verification("unknown", None, None, 0.0, "none", 0, -1.0, "highest", ""))
    vnncomp = shared_data / "vnncomp"
    lists = sorted(vnncomp.glob("*/ground_truth.csv"))
    if not lists:
        pytest.skip("no ../shared/data/vnncomp beside the repository")
    for listed in [*lists, vnncomp / "smoke.csv"]:
        words = ("verify", "--instances", listed, "--sample", 3, "--out", tmp_path / f"{listed.parent.name}.csv", "--expected", listed)
        code, said, err = run(*words)
        assert (code, err) == (0, "") and "0 not listed there" in said
        assert {r["verdict"] for r in table(tmp_path / f"{listed.parent.name}.csv")} == {"unknown"}


@pytest.mark.skipif(importlib.util.find_spec("jaxsec.certify") is None, reason="no engine yet")
def test_the_real_engine(run: Run, folder: pathlib.Path) -> None:
    (folder / "list.csv").write_text("a.onnx,sat.vnnlib,60\na.onnx,unsat.vnnlib,60\nb.onnx,deep.vnnlib,60\n")
    words = ("verify", "--instances", folder / "list.csv", "--out", folder / "r.csv", "--expected", folder / "truth.csv")
    code, said, err = run(*words)
    assert (code, err) == (0, "") and "3 agree, 0 WRONG" in said, said
    verdict, found = read_result(folder / "r.witnesses" / "1.txt")
    assert verdict == "sat" and found is not None
    np.testing.assert_allclose(found[0] @ W, found[1], atol=1e-6)
    assert found[1][0] <= 0
