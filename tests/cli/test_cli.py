"""The commands end to end on small files: what they write, print and return."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec.audit import Report
from jaxsec.cli import _main
from jaxsec.cli._cache import keep_programs
from jaxsec.cli._show import audit_summary
from jaxsec.core import Status

from .conftest import Run


def test_audit_writes_the_report_and_judges_it(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model, data, plan = f"{files}/net.py:model", files / "data.npz", files / "plan.toml"
    base = ("audit", model, "--data", data, "--plan", plan, "--eps", "1/20", "--range", "0,1", "--seed", 3, "--out", tmp_path)
    code, out, _ = run(*base)
    assert code == 0 and "clean accuracy" in out and "NOT TESTED" in out and "no limit given" in out
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["threat"]["eps"], written["context"]["seed"], written["plan"]["noise_draws"]) == (0.05, 3, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "report.md", "report.sarif"], "no state is left"
    code, out, _ = run(*base, "--fail-under", "0", "--quiet")
    assert (code, out) == (0, "")
    robust = written["verdict"]["measured"]
    assert robust < 1, "the budget is chosen so that some rows fall"
    code, out, _ = run(*base, "--fail-under", str(min(1.0, robust + 0.01)))
    assert code == 1 and "NOT within the limit" in out


def test_the_summary_counts_what_it_does_not_show(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    share = {"value": 0.5, "count": 1, "n": 2, "interval": [0.1, 0.9]}
    levels = ("medium", "low", "low", "info")
    data = {
        "verdict": {"state": "none", "reason": "r"},
        "probes": {"clean": {"accuracy": share}, "noise": {"one_draw": share}},
        "threat": {"norm": "linf", "eps": 0.1, "lo": 0, "hi": 1},
        "plan": {"preset": "quick"},
        "findings": [{"severity": s, "title": f"Finding {i}", "message": "seen"} for i, s in enumerate(levels)],
        "coverage": [],
        "skipped": {"certify": "no [rule]"},
        "wall_s": 1.0,
        "data": {"name": "d", "audited": 2, "rows": 2, "available": 7},
        "model": {"notes": ["final Softmax removed"]},
    }
    audit_summary(Report(data), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert f"also 2 low (Finding 1, Finding 2), 1 info: see Findings in {tmp_path / 'report.md'}" in said
    assert "data d: the first 2 of 7 rows" in said and "final Softmax removed" in said
    assert "medium Finding 0: seen" in said and "accuracy at one random point per row" in said
    assert "The probe “certify” did not run: no [rule]." in said
    data["findings"] = []
    audit_summary(Report(data), tmp_path)
    assert "also" not in capsys.readouterr().out


def test_certify_chooses_the_methods_of_the_curve(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('probes = ["clean"]\nsweep = [0, 1]\n')
    words = ("audit", f"{files}/net.py:model", "--data", files / "data.npz", "--eps", "0.01", "--plan", plan, "--out", tmp_path / "r")

    def methods(*more: object) -> list[str] | None:
        code, said, _ = run(*words, *more)
        assert code == 0
        probes = json.loads((tmp_path / "r" / "report.json").read_text())["probes"]
        lines = [line.split("  ")[0] for line in said.splitlines()]
        assert ("certified accuracy, at least" in lines) == ("undecided" in lines) == ("certify" in probes)
        return probes["certify"]["methods"] if "certify" in probes else None

    assert methods() is None, "the plan's probes leave it out"
    assert methods("--certify", "IBP, crown-ibp") == ["ibp", "crown-ibp"]
    assert methods("--certify", "auto") == ["ibp", "crown"]
    plan.write_text('probes = ["clean", "certify"]\ncertify = ["ibp"]\n')
    assert methods() == ["ibp"] and methods("--certify", "none") is None


def test_report_renders_again(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('probes = ["clean"]\n')
    assert run("audit", f"{files}/net.py:model", "--data", files / "data.npz", "--plan", plan, "--out", tmp_path / "r", "-q")[0] == 0
    before = (tmp_path / "r" / "report.html").read_bytes()
    (tmp_path / "r" / "report.html").unlink()
    code, out, _ = run("report", tmp_path / "r")
    assert code == 0 and "report.html" in out
    assert (tmp_path / "r" / "report.html").read_bytes() == before
    edited = json.loads((tmp_path / "r" / "report.json").read_text())
    edited["probes"]["clean"]["accuracy"]["value"] = 0.1
    (tmp_path / "r" / "report.json").write_text(json.dumps(edited))
    code, _, err = run("report", tmp_path / "r")
    assert code == 2 and "probes.clean.accuracy has the value 0.1, and 8 of 8 is 1.0: the file was edited" in err


def test_an_eps_that_cannot_be_meant_is_warned_of(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    words = ("attack", f"{files}/net.py:model", "--data", files / "data.npz", "--method", "fgsm", "--out", tmp_path / "a.npz", "-q")
    for eps, said in (("8", "no model can be robust; was 8/255 meant?"), ("0", "--eps is 0: no input can be changed"), ("0.1", "")):
        code, _, err = run(*words, "--eps", eps, "--range", "0,1")
        assert code == 0 and said in err and bool(said) == bool(err)


def test_nobody_reading_is_no_verdict(files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """`jaxsec version | true`: not 1, which says that a limit was not kept."""
    command = [sys.executable, "-m", "jaxsec", "version"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait() == 141 and "Traceback" not in err


@pytest.mark.parametrize("method", ["fgsm", "square"])
def test_attack_saves_inputs_that_hold_what_they_claim(run: Run, files: pathlib.Path, tmp_path: pathlib.Path, method: str) -> None:
    out = tmp_path / "adv.npz"
    more = ("--steps", 20) if method == "square" else ()
    code, said, _ = run(
        *(
            "attack",
            f"{files}/net.py:model",
            "--data",
            files / "data.npz",
            "--method",
            method,
            "--eps",
            "0.1",
            "--range",
            "0,1",
            "--out",
            out,
        ),
        *more,
    )
    assert code == 0 and "robust accuracy" in said
    with np.load(out) as file:
        saved = dict(file)
    assert np.abs(saved["x"] - saved["x_clean"]).max() <= 0.1 + 1e-6
    about = json.loads(str(saved["about"]))
    assert about["threat"] == {"norm": "linf", "eps": 0.1, "lo": 0.0, "hi": 1.0} and about["seed"] == 0
    assert about["method"]["method"].lower() == method and len(about["model"]["sha256"]) == len(about["data"]["sha256"]) == 64
    assert about["status"]["2"] == Status.WRONG_BEFORE.message and about["stages"] == [method]
    assert f"{about['method']['method']}, linf eps 0.1, inputs in [0.0, 1.0], seed 0" in said and "0 of them before any attack" in said
    space: dict = {}
    exec((files / "net.py").read_text(), space)
    wrong = np.asarray(space["model"]()(saved["x"]).argmax(axis=1)) != saved["y"]
    np.testing.assert_array_equal(wrong, saved["success"])
    assert wrong.any()


def test_attack_towards_a_class(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "adv.npz"
    base = ("attack", f"{files}/net.py:model", "--data", files / "data.npz", "--range", "0,1", "--out", out, "--steps", 20)
    code, said, _ = run(*base, "--method", "pgd", "--eps", "0.9", "--target", 2)
    assert code == 0 and "class 2 reached on" in said
    with np.load(out) as file:
        saved = dict(file)
    assert not (saved["y"] == 2).any() and saved["success"].any()
    with np.load(files / "data.npz") as data:  # rows keep their numbers, which decide their random draws
        np.testing.assert_array_equal(saved["row"], np.flatnonzero(data["y"] != 2))
        np.testing.assert_array_equal(saved["y"], data["y"][saved["row"]])
    space: dict = {}
    exec((files / "net.py").read_text(), space)
    reached = np.asarray(space["model"]()(saved["x"]).argmax(axis=1)) == 2
    np.testing.assert_array_equal(reached, saved["success"])
    code, _, said = run(*base, "--method", "pgd", "--eps", "0.9", "--target", 9)
    assert code == 2 and "9" in said and "Traceback" not in said


def test_programs_are_kept_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    names = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        jax.config.update(names[0], "/elsewhere")
        assert keep_programs() is None
        jax.config.update(names[0], None)
        folder = keep_programs()
        assert folder is not None and folder.is_dir() and folder.is_relative_to(tmp_path)
        assert jax.config.jax_compilation_cache_dir == str(folder)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_normalisation_leaves_eps_in_pixels(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "adv.npz"
    words = ("--mean", "0.5", "--std", "0.25", "--eps", "0.1", "--range", "0,1", "--method", "fgsm", "--out", out, "-q")
    assert run("attack", f"{files}/net.py:model", "--data", files / "data.npz", *words)[0] == 0
    with np.load(out) as file:
        assert file["x"].min() >= 0 and file["x"].max() <= 1
        np.testing.assert_allclose(np.abs(file["x"] - file["x_clean"]).max(), 0.1, atol=1e-6)


def test_version_names_what_computes(run: Run) -> None:
    code, out, _ = run("version")
    assert code == 0 and f"jaxsec {jaxsec.__version__}" in out and "jaxlib" in out


def test_a_defect_is_exit_3_with_a_saved_traceback(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    from jaxsec.audit import _environment

    def defect() -> None:
        raise KeyError("gone")

    monkeypatch.setattr(_environment, "environment", defect)
    monkeypatch.setattr(_main.tempfile, "tempdir", str(tmp_path))
    code, _, err = run("version")
    assert code == 3 and "internal error: KeyError" in err
    [saved] = tmp_path.glob("jaxsec-traceback-*.txt")
    assert str(saved) in err and "defect" in saved.read_text()


def test_as_a_program() -> None:
    code = "import sys; from jaxsec.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", "nothing.onnx", "--data", "digits"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "nothing.onnx" in done.stderr and "Traceback" not in done.stderr


def test_without_words_it_helps(run: Run) -> None:
    code, out, _ = run()
    assert code == 0 and "audit" in out and "Exit codes" in " ".join(out.split())  # wherever the line breaks


def test_an_onnx_file_is_audited_behind_its_softmax(run: Run, tmp_path: pathlib.Path) -> None:
    helper = pytest.importorskip("onnx.helper")
    weights = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    ends = [[helper.make_tensor_value_info(n, 1, (1, d))] for n, d in (("x", 5), ("p", 3))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["p"])]
    graph = helper.make_graph(nodes, "net", *ends, [helper.make_tensor("w", 1, (5, 3), weights.ravel())])
    (tmp_path / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    x = np.random.default_rng(1).uniform(size=(6, 5)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x @ weights).argmax(axis=1))
    (tmp_path / "plan.toml").write_text('probes = ["clean", "blackbox"]\n')
    words = (
        "audit",
        tmp_path / "net.onnx",
        "--data",
        tmp_path / "data.npz",
        "--plan",
        tmp_path / "plan.toml",
        "--out",
        tmp_path / "r",
        "-q",
    )
    assert run(*words)[0] == 0
    written = json.loads((tmp_path / "r" / "report.json").read_text())
    assert written["probes"]["clean"]["accuracy"]["value"] == 1.0
    assert "final Softmax removed" in " ".join(written["model"]["notes"])
    assert "Square needs images" in written["skipped"]["blackbox"]
