"""Messages of the library as a user of the command line reads them, and what the help says."""

import concurrent.futures
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from jaxsec.audit import Plan
from jaxsec.audit._plan import PLAN_KEYS
from jaxsec.cli._values import number, whole, writable
from jaxsec.cli._words import in_options

from .conftest import Run


@pytest.mark.parametrize(
    ("library", "here"),
    [
        ("load them with layout='NHWC'.", "load them with --layout NHWC."),
        ("pass labels=<the .npy file of the labels>.", "pass --labels <the .npy file of the labels>."),
        ("e.g. x_key='images' and y_key='my labels'.", "e.g. --x-key images and --y-key 'my labels'."),
        ("label_column=-1 for the last, label_column=0 for the first", "--label-column -1 for the last, --label-column 0 for the first"),
        ("label_column is 9; allowed", "--label-column is 9; allowed"),
        ("outside value_range=(0, 1); divide_by=255 maps", "outside --range 0,1; --divide-by 255 maps"),
        ("pass value_range=(lo, hi) if you know it", "pass --range lo,hi if you know it"),
        ("no column 'x_key'; data/x_key.npz and value_range.csv", "no column 'x_key'; data/x_key.npz and value_range.csv"),
        ("rows have layout NCHW and labels from 1", "rows have layout NCHW and labels from 1"),
        (
            "two outputs; choose one with output=...",
            "two outputs; choose one with output=... That is an argument of jaxsec.load: call it in",
        ),
    ],
)
def test_arguments_become_options(library: str, here: str) -> None:
    assert in_options(library).startswith(here)


def test_numbers_that_text_can_hide() -> None:
    assert (number(" 8/255 ", "--eps"), number("1e-3", "--eps"), whole("+7", "--limit", 1), whole(None, "--limit", 1)) == (
        8 / 255,
        1e-3,
        7,
        None,
    )
    for text in ("1.5", "1e3", "", "0x10", True, 2.0):
        with pytest.raises(ValueError, match="whole number"):
            whole(text, "--limit", 0)


def test_help_has_every_setting_of_a_plan(run: Run) -> None:
    code, out, _ = run("audit", "--help")
    assert code == 0 and {f.name for f in dataclasses.fields(Plan)} < set(PLAN_KEYS)
    said = out.split("Settings of a --plan file:")[1].split(".")[0].replace(",", " ").split()
    assert said == PLAN_KEYS


@pytest.mark.parametrize("command", ["audit", "attack"])
def test_help_says_what_each_option_allows(run: Run, command: str) -> None:
    _, out, _ = run(command, "--help")
    text = " ".join(out.split())
    for words in ("0 to 4294967295", "in the units of the data", "N at least 1", "number above 0", "0 is the first, -1 the last"):
        assert words in text, words
    assert "[[" not in text and "<str>" not in text.partition("Options:")[2]


def test_keys_stored_layout_and_divisor_reach_the_data(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with np.load(files / "data.npz") as data:
        x, y = data["x"], data["y"]
    pixels = (x * 255).astype(np.uint8)
    np.savez(tmp_path / "d.npz", images=pixels, target=y)
    out = tmp_path / "adv.npz"
    words = ("--x-key", "images", "--y-key", "target", "--divide-by", "255", "--method", "fgsm", "--out", out, "-q")
    assert run("attack", f"{files}/net.py:model", "--data", tmp_path / "d.npz", *words)[0] == 0
    with np.load(out) as file:
        np.testing.assert_allclose(file["x_clean"], pixels / np.float32(255))
    np.savez(tmp_path / "odd.npz", x=x.reshape(8, 3, 4, 3), y=y)
    words = ("--layout", "NHWC", "--stored-layout", "NCHW", "--method", "fgsm", "--out", out, "-q")
    assert run("attack", f"{files}/net.py:model", "--data", tmp_path / "odd.npz", *words)[0] == 0
    with np.load(out) as file:
        np.testing.assert_array_equal(file["x_clean"], np.moveaxis(x.reshape(8, 3, 4, 3), 1, -1))


def test_notes_on_the_data_name_options(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with np.load(files / "data.npz") as data:
        np.savez(tmp_path / "d.npz", x=data["x"] * 3 - 1, y=data["y"])
    (tmp_path / "plan.toml").write_text('probes = ["clean"]\n')
    words = ("--plan", tmp_path / "plan.toml", "--eps", "0.1", "--out", tmp_path / "r", "-q")
    assert run("audit", f"{files}/net.py:model", "--data", tmp_path / "d.npz", *words)[0] == 0
    assert "pass --range lo,hi if you know it" in (tmp_path / "r" / "report.html").read_text()


def test_the_label_file_is_named(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with np.load(files / "data.npz") as file:
        x, y = file["x"], file["y"]
    np.savez(tmp_path / "in.npz", a=x)
    np.save(tmp_path / "labels.npy", y)
    (tmp_path / "plan.toml").write_text('probes = ["clean", "noise"]\nnoise_draws = 1\n')
    words = (f"{files}/net.py:model", "--data", tmp_path / "in.npz", "--x-key", "a", "--labels", tmp_path / "labels.npy")
    code, out, err = run("audit", *words, "--plan", tmp_path / "plan.toml", "--out", tmp_path / "r")
    assert code == 0, err
    assert f"labels: {tmp_path / 'labels.npy'}" in out
    assert json.loads((tmp_path / "r" / "report.json").read_text())["data"]["labels"] == str(tmp_path / "labels.npy")
    assert "labels.npy" in (tmp_path / "r" / "report.html").read_text()
    code, out, _ = run("attack", *words, "--method", "fgsm", "--out", tmp_path / "adv.npz")
    assert code == 0 and f"labels: {tmp_path / 'labels.npy'}" in out


def test_a_range_that_nobody_stated_is_said(run: Run, files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with np.load(files / "data.npz") as file:
        x, y = file["x"], file["y"]
    np.savez(tmp_path / "n.npz", x=(x - 0.5) / 0.25, y=y)
    words = ("attack", f"{files}/net.py:model", "--data", tmp_path / "n.npz", "--method", "fgsm", "--out", tmp_path / "a.npz")
    _, _, err = run(*words)
    assert "was measured on the data" in err and "give --eps in the units of the data, and --range LO,HI" in err
    assert run(*words, "--eps", "0.1")[2] == "" and run(*words, "--range", "-2,2")[2] == ""
    np.savez(tmp_path / "n.npz", x=np.round(x * 255), y=y)
    assert "the default eps 0.0313725 is 0.00012 of the valid range [0, 255]: give --eps in" in run(*words)[2]


def test_two_runs_may_start_in_one_folder_at_once(tmp_path: pathlib.Path) -> None:
    """Shards of one list write beside each other; what finds out whether they may leaves nothing there."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(writable, tmp_path / "out", "a folder") for _ in range(400)]:
            done.result()
    assert list((tmp_path / "out").iterdir()) == []
