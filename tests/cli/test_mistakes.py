"""A user's mistake is exit code 2 and one line that says what is wrong and what is allowed."""

import os
import pathlib

import numpy as np
import pytest

from .conftest import Run


def write(folder: pathlib.Path, name: str, **arrays: np.ndarray) -> pathlib.Path:
    np.savez(folder / name, **arrays)
    return folder / name


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
        (["audit", "--fail-under", "40"], "--fail-under is 40"),
        (["audit", "--fail-under", "x"], "--fail-under"),
        (["audit", "--out", "{t}/file/report"], "file"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--method", "magic"], "apgd, pgd"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--method", "fgsm", "--steps", "3"], "does not apply"),
        (["attack", "{f}/net.py:model", "--data", "{t}/ok.npz", "--out", "{t}/adv.txt"], ".npz"),
        (["report", "{t}"], "no report"),
        (["frobnicate"], "frobnicate"),
        (["audit", "--loud"], "--loud"),
    ],
    ids=lambda v: " ".join(v[:4]) if isinstance(v, list) else "",
)
def test_mistakes(run: Run, files: pathlib.Path, tmp_path: pathlib.Path, args: list[str], words: str) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"this is not a protobuf file")
    (tmp_path / "net.pkl").write_bytes(b"x")
    (tmp_path / "file").write_text("a file where a folder is needed")
    (tmp_path / "plan.toml").write_text("row = 3\n")
    write(tmp_path, "ok.npz", x=X, y=Y)
    write(tmp_path, "shape.npz", x=X[:, :5, :5], y=Y)
    write(tmp_path, "nan.npz", x=np.where(X == 0.5, np.nan, X), y=Y)
    write(tmp_path, "labels.npz", x=X, y=Y + 2)
    write(tmp_path, "range.npz", x=X * 255, y=Y)
    given = [a.format(f=files, t=tmp_path) for a in args]
    if args[0] != "report" and "--out" not in args and args[0] in ("audit", "attack"):
        given += ["--out", str(tmp_path / ("out" if args[0] == "audit" else "adv.npz"))]
    code, _, err = run(*given)
    assert code == 2, err
    assert words in err and len(err.strip().splitlines()) <= 2, err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = run("audit", "--out", tmp_path / "locked")
    assert code == 2 and "Permission denied" in err
