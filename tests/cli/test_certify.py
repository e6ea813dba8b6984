"""`jaxsec certify` on small models: what it prints, saves and refuses, and that it says what `jaxsec.certify` says."""

import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec.attack._checkpoint import held
from jaxsec.certify._certificate import Verdict
from jaxsec.certify._ladder import Ladder
from jaxsec.cli import _certify_run
from jaxsec.cli._certify_show import Rows, show_table

from .conftest import Run
from .test_interrupt import pressed, started

Words = tuple[object, ...]


@pytest.fixture
def words(files: pathlib.Path, tmp_path: pathlib.Path) -> Words:
    """The command on net.py and its data, with the last label made wrong."""
    with np.load(files / "data.npz") as data:
        x, y = data["x"], data["y"].copy()
    y[-1] = (y[-1] + 1) % 4
    np.savez(tmp_path / "data.npz", x=x, y=y)
    return ("certify", f"{files}/net.py:model", "--data", tmp_path / "data.npz", "--range", "0,1")


def loaded(path: pathlib.Path) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


def model_of(files: pathlib.Path) -> jaxsec.Model:
    space: dict = {}
    exec((files / "net.py").read_text(), space)
    return space["model"]()


@pytest.mark.parametrize("threat", ["linf", "l2", "l1"])
@pytest.mark.parametrize("sound", [False, True])
def test_it_saves_what_the_library_finds(
    run: Run, files: pathlib.Path, words: Words, tmp_path: pathlib.Path, threat: str, sound: bool
) -> None:
    out, ladder = tmp_path / "cert.npz", [jaxsec.IBP(), jaxsec.CROWNIBP(), jaxsec.ForwardLinear(), jaxsec.CROWN()]
    budgets = {"linf": "0.004,0.02", "l2": "0.02,0.1", "l1": "0.04,0.2"}[threat]
    more = ("--method", "ibp,crown-ibp,forward,crown", "--out", out, *(["--sound"] if sound else []))
    code, said, err = run(*words, "--threat", threat, "--eps", budgets, *more)
    assert code == 0 and err == "" and f"saved: {out}" in said
    saved = loaded(out)
    assert saved["names"].tolist() == ["ibp", "crown-ibp", "forward", "crown"] and saved["robust"].shape == (2, 8)
    assert saved["eps"].tolist() == [float(v) for v in budgets.split(",")]
    data, net = loaded(tmp_path / "data.npz"), model_of(files)
    np.testing.assert_array_equal(saved["y"], data["y"])
    for i, eps in enumerate(saved["eps"]):
        ball = {"linf": jaxsec.LInf, "l2": jaxsec.L2, "l1": jaxsec.L1}[threat](eps=float(eps), lo=0.0, hi=1.0)
        wanted = jaxsec.certify(net, data["x"], data["y"], threat=ball, method=ladder, sound=sound)
        for name in ("robust", "margin", "method", "status"):
            np.testing.assert_array_equal(saved[name][i], np.asarray(getattr(wanted, name)), err_msg=name)
        attacked = jaxsec.attack(net, data["x"], data["y"], threat=ball, method=jaxsec.PGD(steps=10), key=jax.random.key(0))
        assert not (saved["robust"][i] & np.asarray(attacked.success)).any()
    assert saved["robust"][0].any() and saved["status"][0][-1] == Verdict.WRONG_BEFORE
    about = json.loads(str(saved["about"]))
    assert about["precision"] == ("sound" if sound else "highest") and about["threat"]["eps"] == saved["eps"].tolist()
    assert about["status"]["1"] == Verdict.OPEN.message and len(about["data"]["sha256"]) == 64
    assert [m["method"] for m in about["methods"]] == ["IBP", "CROWNIBP", "ForwardLinear", "CROWN"]


def test_a_line_for_each_eps(run: Run, words: Words) -> None:
    code, said, err = run(*words, "--eps", "0.001", "--eps", "1/100,0.2", "--method", "IBP, crown")
    assert code == 0 and err == ""
    lines = said.splitlines()
    assert lines[0] == "linf, inputs in [0.0, 1.0], ibp, then crown, rounding within a tolerance; --sound counts it"
    assert "8 rows" in lines[1]
    head = next(i for i, line in enumerate(lines) if line.lstrip().startswith("eps"))
    assert lines[head - 1].split() == "95 % by by wrong".split()
    assert lines[head].split() == "eps certified rows interval ibp crown before open seconds".split()
    table = [line.split() for line in lines[head + 1 : head + 4]]
    assert [line[0] for line in table] == ["0.001", "0.01", "0.2"]
    # 7 of 8: the interval of Clopper and Pearson is [0.4735, 0.9968]
    assert table[0][1:7] == ["87.5", "%", "7", "47.3", "to", "99.7"]
    for line in table:
        certified, by_ibp, by_crown, wrong, left = (int(line[i]) for i in (3, 7, 8, 9, 10))
        assert by_ibp + by_crown == certified and wrong == 1 and certified + wrong + left == 8
    assert [int(line[3]) for line in table] == sorted((int(line[3]) for line in table), reverse=True) and int(table[2][3]) == 0


def test_json(run: Run, words: Words) -> None:
    for quiet in ((), ("-q",)):
        code, said, err = run(*words, "--eps", "0.001,0.01", "--method", "crown-ibp", "--json", "--sound", *quiet)
        written = json.loads(said)
        assert code == 0 and err == "" and written["precision"] == "sound" and written["threat"]["norm"] == "linf"
        assert written["model"]["path"].endswith("net.py:model") and written["data"]["rows"] == 8
        first, second = written["results"]
        assert (first["eps"], second["eps"]) == (0.001, 0.01) and first["by"] == {"crown-ibp": 7} and first["wrong_before"] == 1
        share = first["certified"]
        assert (share["value"], share["count"], share["n"], share["confidence"]) == (0.875, 7, 8, 0.95)
        np.testing.assert_allclose(share["interval"], [0.473490, 0.996840], atol=1e-5)
        assert first["open"] == first["nonfinite"] == 0 and first["seconds"] >= 0


def test_defaults_and_quiet(run: Run, words: Words, tmp_path: pathlib.Path) -> None:
    code, said, _ = run(*words, "--json")
    assert code == 0 and json.loads(said)["results"][0]["eps"] == 8 / 255
    assert json.loads(said)["methods"] == [{"method": "IBP"}, {"method": "CROWN"}]
    assert run(*words, "-q") == (0, "", "")
    code, said, _ = run(*words, "--limit", 3, "--threat", "l2", "--json")
    assert json.loads(said)["data"]["rows"] == 3 and json.loads(said)["results"][0]["eps"] == 0.5
    assert "3 of 8 rows" in run(*words, "--limit", 3)[1]


def test_the_budget_and_alpha_crown_reach_the_library(run: Run, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    real = _certify_run.certify

    def spy(*args: Any, **more: Any) -> Any:
        asked.append(more)
        return real(*args, **more | {"method": [jaxsec.IBP()]})

    monkeypatch.setattr(_certify_run, "certify", spy)
    assert run(*words, "--eps", "0.01", "--method", "crown,alpha-crown", "--budget", 7)[0] == 0
    assert run(*words, "--eps", "0.01")[0] == 0
    assert [type(m) for m in asked[0]["method"]] == [jaxsec.CROWN, jaxsec.AlphaCROWN]
    assert [a["budget"] for a in asked] == [7 * 2**20, 2**30] and not asked[0]["sound"]


def test_alpha_crown_proves_no_less(run: Run, words: Words) -> None:
    both = [json.loads(run(*words, "--eps", "0.03", "--method", m, "--json")[1])["results"][0] for m in ("crown", "crown,alpha-crown")]
    assert both[1]["certified"]["count"] >= both[0]["certified"]["count"]
    assert both[1]["by"]["crown"] == both[0]["by"]["crown"]


def test_eps_counts_in_the_units_of_the_data(run: Run, words: Words, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """In front of a normalisation by 0.25, eps 0.004 of the data is 0.016 of the network's own inputs."""
    out, data, net = tmp_path / "cert.npz", loaded(tmp_path / "data.npz"), model_of(files)
    assert run(*words, "--mean", "0.5", "--std", "0.25", "--eps", "0.004", "--method", "crown", "--out", out, "-q")[0] == 0
    inner = jaxsec.LInf(eps=0.016, lo=-2.0, hi=2.0)
    wanted = jaxsec.certify(net, (data["x"] - 0.5) / 0.25, data["y"], threat=inner, method=jaxsec.CROWN())
    saved = loaded(out)
    np.testing.assert_array_equal(saved["status"][0], np.asarray(wanted.status))
    np.testing.assert_allclose(saved["margin"][0], np.asarray(wanted.margin), rtol=1e-3, atol=1e-4)
    assert saved["robust"].any()


def test_eps_0_certifies_what_is_right(run: Run, words: Words) -> None:
    code, said, err = run(*words, "--eps", "0", "--json")
    assert code == 0 and "--eps is 0: no input can be changed" in err and json.loads(said)["results"][0]["certified"]["count"] == 7


def test_a_final_softmax_is_cut_and_said(run: Run, tmp_path: pathlib.Path) -> None:
    helper = pytest.importorskip("onnx.helper")
    weights = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    ends = [[helper.make_tensor_value_info(n, 1, (1, d))] for n, d in (("x", 5), ("p", 3))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["p"])]
    graph = helper.make_graph(nodes, "net", *ends, [helper.make_tensor("w", 1, (5, 3), weights.ravel())])
    (tmp_path / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    x = np.random.default_rng(1).uniform(0.3, 0.7, size=(6, 5)).astype(np.float32)
    y = (x @ weights).argmax(axis=1)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    out, eps = tmp_path / "c.npz", 0.05
    code, said, _ = run(
        *(
            "certify",
            tmp_path / "net.onnx",
            "--data",
            tmp_path / "data.npz",
            "--range",
            "0,1",
            "--eps",
            eps,
            "--method",
            "ibp",
            "--out",
            out,
        )
    )
    assert code == 0 and "final Softmax removed" in said
    # a linear model's least margin over the ball is known exactly, as no side of the box is near
    gaps = np.array([[(weights[:, c] - weights[:, j]) for j in range(3) if j != c] for c in y])
    exact = np.min(np.einsum("njd,nd->nj", gaps, x) - eps * np.abs(gaps).sum(-1), axis=1)
    np.testing.assert_allclose(loaded(out)["margin"][0], exact, atol=1e-5)
    np.testing.assert_array_equal(loaded(out)["robust"][0], exact > 1e-5)


OTHERS = """
import jax.numpy as jnp
import jaxsec


def net(params, x):
    z = x.reshape(x.shape[0], -1) @ params
    return jnp.abs(jnp.fft.fft(z)) + jnp.array([[0.0, 0.0, 0.0, 1e3]])


def noisy(params, x, key):
    return x.reshape(x.shape[0], -1) @ params


weights = jnp.asarray([[(3 * i + 5 * j) % 7 - 3.0 for j in range(4)] for i in range(36)])
turning, drawing = jaxsec.bind(net, weights), jaxsec.bind(noisy, weights, stochastic=True)
"""


def test_what_cannot_be_certified_is_exit_2(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "other.py").write_text(OTHERS)
    with np.load(files / "data.npz") as data:
        np.savez(tmp_path / "last.npz", x=data["x"], y=np.full(8, 3))  # right, so that there is something to bound
    rest = ("--data", tmp_path / "last.npz", "--range", "0,1", "--eps", "0.01", "--out", tmp_path / "c.npz")
    code, out, err = run("certify", f"{tmp_path}/other.py:turning", *rest)
    assert (code, out) == (2, "") and "complex numbers" in err and "other.py:8" in err and len(err.splitlines()) == 1
    code, _, err = run("certify", f"{tmp_path}/other.py:drawing", *rest)
    assert code == 2 and "draws random numbers" in err
    assert not (tmp_path / "c.npz").exists()


def test_a_model_that_cannot_be_bounded_is_exit_2_though_no_row_is_right(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "other.py").write_text(OTHERS)
    with np.load(files / "data.npz") as data:
        np.savez(tmp_path / "wrong.npz", x=data["x"], y=np.zeros(8, int))
    rest = ("--data", tmp_path / "wrong.npz", "--range", "0,1", "--eps", "0.01")
    code, out, err = run("certify", f"{tmp_path}/other.py:turning", *rest)
    assert (code, out) == (2, "") and "complex numbers" in err and "other.py:8" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--method", "magic"], "--method is 'magic'; 'magic' is no method; allowed: ibp, crown-ibp, forward, crown, alpha-"),
        (["--timeout", "5"], "--timeout is '5', which beta-crown alone reads; say --method ibp,crown,beta-crown"),
        (["--method", "beta-crown", "--timeout", "0"], "--timeout is '0'; seconds above 0 are needed"),
        (["--method", "beta-crown", "--threat", "l2"], "beta-CROWN has the threat L2, and branches on boxes only"),
        (["--method", "ibp,"], "--method is 'ibp,'; a name is missing; allowed: ibp"),
        (["--method", "ibp,crown,ibp"], "it has ibp twice, and the second run would prove no more"),
        (["--eps", "a lot"], "--eps is 'a lot'; a finite number of at least 0"),
        (["--eps", "0.1,"], "--eps is '0.1,'; a number is missing beside a comma: --eps 0.01,0.02."),
        (["--eps", "0.1", "--eps", "1/10"], "--eps has '1/10' twice"),
        (["--eps=-1"], "--eps is '-1'; a finite number of at least 0"),
        (["--eps", "0.01,inf"], "--eps is 'inf'"),
        (["--threat", "l1"], "--eps is missing; for l1"),
        (["--threat", "l7", "--eps", "1"], "allowed: linf, l2, l1"),
        (["--budget", "0"], "--budget is '0'; a whole number from 1 to 1048576"),
        (["--budget", "1e3"], "--budget is '1e3'"),
        (["--out", "{t}/cert.txt"], "a file name that ends in .npz is needed"),
        (["--out", "{t}/dir.npz"], "dir.npz', a folder"),
        (["--out", "{t}/data.npz/c.npz"], "is a file, not a folder"),
        (["--limit", "0"], "--limit is '0'"),
        (["--std", "0"], "--std is '0'"),
        (["--seed", "1"], "--seed"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes(run: Run, words: Words, tmp_path: pathlib.Path, args: list[str], said: str) -> None:
    (tmp_path / "dir.npz").mkdir()
    code, out, err = run(*words, *(a.format(t=tmp_path) for a in args))
    assert (code, out) == (2, "") and said in err and len(err.strip().splitlines()) == 1, err


def test_without_words_it_says_what_is_missing(run: Run, files: pathlib.Path) -> None:
    code, _, err = run("certify")
    assert code == 2 and "Missing argument 'MODEL'. Try 'jaxsec certify --help'" in err
    code, _, err = run("certify", f"{files}/net.py:model")
    assert code == 2 and "--data is missing" in err


class Killed:
    """Lets some batches be bounded, then presses Ctrl-C; counts those of this life."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int = 1000):
        self.batches = 0
        real = Ladder._bounded

        def bounded(*args: Any) -> None:
            if self.batches == last:
                raise KeyboardInterrupt
            self.batches += 1
            real(*args)

        patch.setattr(Ladder, "_bounded", bounded)


def test_an_interrupt_without_a_file_keeps_nothing(run: Run, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    Killed(monkeypatch, 0)
    code, out, err = run(*words, "--eps", "0.01")
    assert (code, out, err) == (130, "", "jaxsec: interrupted; nothing is kept: the same command begins anew.\n")


def test_a_killed_run_goes_on_and_ends_with_the_same_file(
    run: Run, words: Words, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Two budgets with two methods: the kill falls into the second budget, whose first method is done."""
    asked = (*words, "--eps", "0.02,0.03", "--out")
    with monkeypatch.context() as patch:
        whole = Killed(patch)
        assert run(*asked, tmp_path / "whole.npz")[0] == 0
    out, state = tmp_path / "c.npz", tmp_path / ".c.state"
    with monkeypatch.context() as patch:
        first = Killed(patch, whole.batches - 1)
        code, said, err = run(*asked, out)
    assert (code, said) == (130, "") and not out.exists()
    assert err == f"jaxsec: interrupted; what was done is kept in {state}: run the same command again to go on.\n"
    second = Killed(monkeypatch)
    code, said, err = run(*asked, out)
    assert (code, err) == (0, "") and said.startswith("going on where the last run stopped, after ")
    assert (first.batches, second.batches) == (whole.batches - 1, 1) and whole.batches == 4
    assert not state.exists(), "a finished run leaves its file alone"
    a, b = loaded(tmp_path / "whole.npz"), loaded(out)
    for name in ("eps", "names", "y", "robust", "margin", "method", "status"):
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_json_stays_json_when_a_run_goes_on(run: Run, words: Words, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    asked = (*words, "--eps", "0.02", "--json", "--out", tmp_path / "c.npz")
    with monkeypatch.context() as patch:
        Killed(patch, 1)
        assert run(*asked)[0] == 130
    code, said, _ = run(*asked)
    (result,) = json.loads(said)["results"]
    assert code == 0 and sum(result["by"].values()) == result["certified"]["count"]


def test_two_runs_do_not_share_a_file(run: Run, words: Words, tmp_path: pathlib.Path) -> None:
    with held(tmp_path / ".c.state"):
        code, out, err = run(*words, "--eps", "0.02", "--out", tmp_path / "c.npz")
    assert (code, out) == (2, "") and f"{tmp_path / 'c.npz'} is in use by another run; wait until that ends, or give another --out." in err


def test_a_real_interrupt(files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = f"import pathlib, time\npathlib.Path({str(tmp_path / 'loaded')!r}).touch()\ntime.sleep(60)\n"
    (tmp_path / "slow.py").write_text(text)
    asked = started("certify", f"{tmp_path}/slow.py:model", "--data", files / "data.npz")
    code, out, err = pressed(asked, when=tmp_path / "loaded")
    assert (code, out, err) == (130, "", "jaxsec: interrupted; nothing is kept: the same command begins anew.\n")


def test_the_table_counts_rows_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    status = np.array([0, 1, 2, 3, 3], np.int32)
    rows = Rows(eps=0.1, seconds=1.25, robust=status == 0, margin=np.zeros(5), method=np.array([0, -1, -1, -1, -1]), status=status)
    data = {"name": "d [x]", "rows": 5, "available": 9, "labels": "from the file"}
    about = {"threat": {"norm": "l2", "lo": 0.0, "hi": 1.0}, "data": data, "model": {"notes": ["a [note]"]}}
    show_table([rows], ["ibp"], about, pathlib.Path("c.npz"), sound=True)
    said = capsys.readouterr().out
    assert "finite" in said and "l2, inputs in [0.0, 1.0], ibp, all rounding counted" in said
    assert "data d [x]: 5 of 9 rows" in said and "a [note]" in said and "labels: from the file" in said and "saved: c.npz" in said
    assert said.splitlines()[-3].split() == ["0.1", "20.0", "%", "1", "0.5", "to", "71.6", "1", "1", "1", "2", "1.2"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(run: Run, words: Words, tmp_path: pathlib.Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = run(*words, "--out", tmp_path / "locked" / "c.npz")
    assert code == 2 and "Permission denied" in err
