"""A user's mistake is exit code 2 and one line that says what is wrong and what is allowed."""

import os
import pathlib
import re

import numpy as np
import pytest

from .conftest import Run


def write(folder: pathlib.Path, name: str, **arrays: np.ndarray) -> pathlib.Path:
    np.savez(folder / name, **arrays)
    return folder / name


PYTHON = re.compile(r"\b(x_key|y_key|stored_layout|label_column|value_range|divide_by|(labels|layout|limit|mean|std)=)")
PLANS = {
    "seed": "seed = -1",
    "preset": 'preset = ["quick"]',
    "section": "[audit]\nrows = 3",
    "eps": 'eps = "abc"',
    "layout": 'layout = "hw"\nprobes = ["clean"]',
}
X, Y = np.full((3, 6, 6, 1), 0.5, np.float32), np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["audit", "{f}/none.onnx", "--data", "digits"], "no model file"),
        (["audit", "{t}/bad.onnx", "--data", "digits"], "bad.onnx"),
        (["audit", "{t}/net.pkl", "--data", "digits"], "allowed: a .onnx file"),
        (["audit", "{f}/net.py", "--data", "digits"], "net.py:model"),
        (["audit", "{f}/net.py:number", "--data", "digits"], "is int"),
        (["audit", "{f}/net.py:broken", "--data", "digits"], "raised RuntimeError: no weights"),
        (["audit", "{f}/net.py:net", "--data", "digits"], "net.py:net is a function of (params, x); a jaxsec.Model"),
        (["audit", "{f}/net.py:net", "--data", "digits"], "Write model = jaxsec.bind(net, params) in the file"),
        (["audit", "{t}/empty.onnx", "--data", "digits"], "is empty. Export the model again"),
        (["audit", "{t}/bad.onnx", "--data", "digits"], "Export the model again, or copy the whole file again."),
        (["audit", "{f}/net.py:model", "--data", "{t}/zero.npz"], "zero.npz has 0 inputs"),
        (["audit", "{f}/net.py:model"], "--data is missing"),
        (["audit", "--data", "digits"], "without MODEL"),
        (["audit", "{f}/net.py:model", "--data", "{t}/none.npz"], "none.npz"),
        (["audit", "{f}/net.py:model", "--data", "{t}/shape.npz"], "(5, 5, 1)"),
        (["audit", "{f}/net.py:model", "--data", "{t}/nan.npz"], "NaN"),
        (["audit", "{f}/net.py:model", "--data", "{t}/labels.npz"], "0 to 3"),
        (["audit", "{f}/net.py:model", "--data", "{t}/range.npz", "--range", "0,1"], "range"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--eps", "a lot"], "--eps is 'a lot'"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--eps", "8/0"], "--eps is '8/0'"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--eps=-1"], "at least 0"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--threat", "l7"], "linf, l2, l1"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--threat", "l1"], "--eps is missing"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--range", "1,0"], "--range is '1,0'"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--layout", "HWNC"], "flat, NCHW, NHWC"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--std", "0"], "std is"),
        (["audit", "--plan", "{t}/plan.toml"], "did you mean 'rows'"),
        (["audit", "--plan", "{t}/none.toml"], "none.toml"),
        (["audit", "--preset", "slow"], "quick, standard, full"),
        (
            ["audit", "--certify", "magic"],
            "--certify is 'magic'; 'magic' is no method; allowed: ibp, crown-ibp, forward, crown, alpha-crown, beta-crown",
        ),
        (["audit", "--certify", "magic"], "cheapest first, or auto, or none."),
        (["audit", "--fail-under", "40"], "--fail-under is '40'"),
        (["audit", "--fail-under", "x"], "--fail-under"),
        (["audit", "--out", "{t}/file/report"], "file"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--method", "magic"], "apgd, pgd"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--method", "fgsm", "--steps", "3"], "does not apply"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--out", "{t}/adv.txt"], ".npz"),
        (["report", "{t}"], "no report"),
        (["report", "{t}/edited"], "report.json is no report of schema 1.0: the whole: 'tool' is a required property"),
        (["audit", "--plan", "{t}"], "is a folder; a TOML file is needed"),
        (["audit", "--out", "{t}/file"], "/file' is a file, not a folder; name a folder for the report"),
        (["audit", "{f}/net.py:model", "--data", "{t}/text.npz"], "it is no ZIP archive of arrays at all"),
        (["audit", "{f}/net.py:model", "--data", "{t}/names.npz"], "numpy.unique(y, return_inverse=True)"),
        (
            ["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--stored-layout", "flat"],
            "is 'flat'; allowed: NCHW, NHWC.",
        ),
        (["frobnicate"], "frobnicate"),
        (["audit", "--loud"], "--loud"),
        (["audit", "{f}/net.py:nothing", "--data", "digits"], "net.py has no 'nothing'"),
        (["audit", "{t}", "--data", "digits"], "a folder; allowed: a .onnx file"),
        (["audit", "{f}/net.py:model", "--data", "{t}/keys.npz"], "e.g. --x-key images and --y-key target"),
        (["audit", "{f}/net.py:model", "--data", "{t}/odd.npz", "--layout", "NCHW"], "--stored-layout NCHW (channels first) or --stored"),
        (["audit", "{f}/net.py:model", "--data", "{t}/t.csv"], "name it, e.g. --label-column kind."),
        (["audit", "{f}/net.py:model", "--data", "{t}/t.csv", "--label-column", "9"], "--label-column is 9; "),
        (["audit", "{f}/net.py:model", "--data", "{t}/x.npy"], "pass --labels <the .npy file of the labels>"),
        (
            ["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--labels", "{t}/x.npy"],
            "ok.npz (key 'y') holds its own labels",
        ),
        (["audit", "{f}/net.py:model", "--data", "{t}/bytes.npz", "--range", "0,1"], "outside --range 0,1; give the range"),
        (["audit", "{f}/net.py:model", "--data", "{t}/bytes.npz", "--range", "0,1"], "or --divide-by 255, which"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--divide-by", "0"], "--divide-by is '0'; a number above 0"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--std", "0,1"], "--std is '0,1'; every number must be above 0"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--mean", "0.4;0.5"], "--mean is '0.4;0.5'; "),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--range", "0,x"], "--range is '0,x'; two numbers"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--eps", "inf"], "--eps is 'inf'; a finite number of at least 0"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--eps", "1e999999999"], "--eps is '1e999999999'; a finite"),
        (["audit", "--limit", "0"], "--limit is '0'; a whole number of at least 1"),
        (["audit", "--limit", "-3"], "--limit is '-3'"),
        (["audit", "--seed", "-1"], "--seed is '-1'; a whole number from 0 to 4294967295"),
        (["audit", "--seed", "4294967296"], "--seed is '4294967296'"),
        (["audit", "--fail-under", "40%"], "--fail-under is '40%'; a share from 0 to 1 is needed, such as 0.4 for 40 %. Did you mean 0.4?"),
        (["audit", "--preset", "slow"], "--preset is 'slow'"),
        (["audit", "--threat", ""], "--threat is ''; allowed: linf"),
        (["audit", "--max-rows", "9"], "max_rows is a setting of a plan file"),
        (["audit", "--plan", "{t}/seed.toml"], "seed.toml: seed is -1; "),
        (["audit", "--plan", "{t}/preset.toml"], "preset.toml: preset is ['quick']; allowed: quick"),
        (["audit", "--plan", "{t}/section.toml"], "has the section [audit]; a plan has none"),
        (["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--plan", "{t}/eps.toml"], "eps.toml: eps is 'abc'"),
        (
            ["audit", "{f}/net.py:model", "--data", "{t}/ok.npz", "--plan", "{t}/layout.toml"],
            "the plan's layout is 'hw', and rows of shape",
        ),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--steps", "0"], "--steps is '0'; a whole number of at least 1"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--target", "-1"], "--target is '-1'"),
        (["attack", "{f}/net.py:model", "--data", "{t}/flat.npz", "--method", "square"], "--method square needs images"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--out", "{t}/dir.npz"], "dir.npz', a folder; a file name"),
        (["attack"], "Missing argument 'MODEL'. Try 'jaxsec attack --help'"),
        (["audti"], "Did you mean 'audit'? Try 'jaxsec --help'"),
    ],
    ids=lambda v: " ".join(v[:4]) if isinstance(v, list) else "",
)
def test_mistakes(run: Run, files: pathlib.Path, tmp_path: pathlib.Path, args: list[str], words: str) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"this is not a protobuf file")
    (tmp_path / "net.pkl").write_bytes(b"x")
    (tmp_path / "file").write_text("a file where a folder is needed")
    (tmp_path / "plan.toml").write_text("row = 3\n")
    (tmp_path / "empty.onnx").write_bytes(b"")
    write(tmp_path, "zero.npz", x=X[:0], y=Y[:0])
    write(tmp_path, "ok.npz", x=X, y=Y)
    write(tmp_path, "shape.npz", x=X[:, :5, :5], y=Y)
    write(tmp_path, "nan.npz", x=np.where(X == 0.5, np.nan, X), y=Y)
    write(tmp_path, "labels.npz", x=X, y=Y + 2)
    write(tmp_path, "range.npz", x=X * 255, y=Y)
    write(tmp_path, "keys.npz", images=X, target=Y)
    write(tmp_path, "odd.npz", x=X[:, :3, :, :].repeat(3, axis=3), y=Y)
    write(tmp_path, "bytes.npz", x=(X * 255).astype(np.uint8), y=Y)
    write(tmp_path, "flat.npz", x=X.reshape(3, 36), y=Y)
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "t.csv").write_text("width,kind\n1,0\n2,1\n")
    (tmp_path / "dir.npz").mkdir()
    (tmp_path / "text.npz").write_text("hello")
    write(tmp_path, "names.npz", x=X, y=np.array(["cat", "dog", "cat"]))
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "report.json").write_text('{"schema": "jaxsec-report", "schema_version": "1.0"}')
    for name, text in PLANS.items():
        (tmp_path / f"{name}.toml").write_text(text)
    given = [a.format(f=files, t=tmp_path) for a in args]
    if args[0] != "report" and "--out" not in args and args[0] in ("audit", "attack"):
        given += ["--out", str(tmp_path / ("out" if args[0] == "audit" else "adv.npz"))]
    code, _, err = run(*given)
    assert code == 2, err
    assert words in err and len(err.strip().splitlines()) <= 2, err
    assert not PYTHON.search(err), "a remedy is an option or a key of the plan, no argument of a Python function"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = run("audit", "--out", tmp_path / "locked")
    assert code == 2 and "Permission denied" in err


def test_a_plan_that_attacks_nothing_is_said(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    words = (
        "audit",
        f"{files}/net.py:model",
        "--data",
        files / "data.npz",
        "--plan",
        tmp_path / "plan.toml",
        "--out",
        tmp_path / "r",
        "-q",
    )
    (tmp_path / "plan.toml").write_text('probes = ["clean"]\n')
    code, _, err = run(*words)
    assert code == 0 and "warning: no attack ran, so nothing was tested" in err
    (tmp_path / "plan.toml").write_text('probes = ["clean", "sweep"]\nsweep = [1]\nsweep_steps = 2\n')
    assert run(*words)[::2] == (0, "")


def test_a_refused_audit_leaves_no_empty_folder(run: Run, tmp_path: pathlib.Path) -> None:
    code, _, err = run("audit", "--threat", "", "--out", tmp_path / "report")
    assert code == 2 and "--threat is ''" in err and not (tmp_path / "report").exists()
