"""`jaxsec certify --method smoothing` on a small model: what it prints, saves and refuses, and that it says what `jaxsec.certify` says."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec.smooth import SmoothedVerdict

from .conftest import Run
from .test_certify import loaded, model_of

Words = tuple[object, ...]
FIELDS = ("robust", "radius", "predict", "p_lower", "samples", "status", "counts")


@pytest.fixture
def words(files: pathlib.Path) -> Words:
    return ("certify", f"{files}/net.py:model", "--data", files / "data.npz", "--range", "0,1", "--sigma", "0.1")


@pytest.mark.parametrize("name", ["smoothing", "sequential-smoothing"])
def test_it_saves_what_the_library_finds(run: Run, files: pathlib.Path, words: Words, tmp_path: pathlib.Path, name: str) -> None:
    out = tmp_path / "c.npz"
    more = ("--method", name, "--samples", 400, "--alpha", "0.01", "--seed", 3, "--eps", "0.02,0.05", "--out", out)
    code, said, err = run(*words, *more)
    assert code == 0 and err == "" and f"saved: {out}" in said and "the smoothed classifier" in said
    saved, data = loaded(out), loaded(files / "data.npz")
    kind = jaxsec.Smoothing if name == "smoothing" else jaxsec.SequentialSmoothing
    for i, eps in enumerate((0.02, 0.05)):
        method = kind(sigma=0.1, n=400, alpha=0.01)
        ball = jaxsec.L2(eps=eps, lo=0.0, hi=1.0)
        wanted = jaxsec.certify(model_of(files), data["x"], data["y"], threat=ball, method=method, key=jax.random.key(3))
        for field in FIELDS:
            np.testing.assert_array_equal(saved[field][i], np.asarray(getattr(wanted, field)), err_msg=field)
    about = json.loads(str(saved["about"]))
    assert about["seed"] == 3 and about["threat"]["eps"] == [0.02, 0.05] and about["threat"]["norm"] == "l2"
    assert about["status"]["3"] == SmoothedVerdict.REFUTED.message and about["methods"][0]["method"] == kind.__name__


def test_json(run: Run, words: Words) -> None:
    code, said, _ = run(*words, "--method", "smoothing", "--samples", 300, "--eps", "0.02", "--threat", "linf", "--json", "--limit", 4)
    facts: dict[str, Any] = json.loads(said)
    (row,) = facts["results"]
    assert code == 0 and row["samples_per_row"] == 400 and row["certified"]["n"] == 4 and facts["threat"]["norm"] == "linf"
    assert row["certified"]["count"] + row["wrong"] + row["refuted"] + row["open"] == 4


def test_a_killed_run_goes_on(run: Run, words: Words, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxsec.smooth import _kept, _sampling

    more = (*words, "--method", "smoothing", "--samples", 2000, "--eps", "0.02", "--out")
    assert run(*more, tmp_path / "a.npz")[0] == 0
    real, left = _sampling.Sampler._landed, [3]

    def killed(self: Any, *args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(_kept, "EVERY", 0.0)
    monkeypatch.setattr(_sampling.Sampler, "_landed", killed)
    out = tmp_path / "b.npz"
    code, _, err = run(*more, out)
    assert code == 130 and "run the same command again to go on" in err
    monkeypatch.setattr(_sampling.Sampler, "_landed", real)
    code, said, _ = run(*more, out)
    assert code == 0 and "going on where the last run stopped" in said
    a, b = loaded(tmp_path / "a.npz"), loaded(out)
    for field in FIELDS:
        np.testing.assert_array_equal(a[field], b[field])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method", "smoothing", "--sigma", "0"), "--sigma is '0'; a number above 0"),
        (("--method", "smoothing", "--alpha", "2"), "--alpha is '2'; a number above 0 and below 1"),
        (("--method", "smoothing", "--samples", "0"), "--samples is '0'"),
        (("--method", "smoothing", "--seed", "-1"), "--seed is '-1'"),
        (("--method", "smoothing", "--sound"), "--sound is an option of bounds"),
        (("--method", "smoothing,crown"), "or, alone, smoothing or sequential-smoothing"),
        (("--method", "crown"), "--sigma is '0.1', which smoothing alone reads"),
    ],
)
def test_mistakes_are_named(run: Run, words: Words, more: Words, message: str) -> None:
    code, _, err = run(*words, *more)
    assert code == 2 and message in err


def test_sigma_is_asked_for(run: Run, words: Words) -> None:
    code, _, err = run(*words[:-2], "--method", "smoothing")
    assert code == 2 and "--sigma is missing" in err


def test_noise_and_samples_that_certify_nothing_are_said_beforehand(run: Run, files: pathlib.Path, words: Words) -> None:
    """Of 60 samples of one accord p is at least 0.001^(1/60) = 0.89: 1.2 sigma; betting shares alpha, so its bound is lower."""
    short = ("--method", "smoothing", "--samples", 60, "--limit", 2)
    code, _, err = run(*words, *short, "--eps", "0.12,0.13", "--quiet")
    assert code == 0 and err.splitlines() == [
        "jaxsec: warning: --samples 60 cannot certify eps 0.13 with --sigma 0.1, even if all agree: give more, or a larger --sigma."
    ]
    assert "cannot certify eps 0.12" in run(*words, *short, "--method", "sequential-smoothing", "--eps", "0.12", "--quiet")[2]
    assert run(*words, *short, "--eps", 2, "--quiet")[2].endswith("eps 2 with --sigma 0.1, even if all agree: give a larger --sigma.\n")
    assert run(*words, *short, "--eps", 0, "--samples", 9, "--quiet")[2].endswith("even if all agree: give more.\n")
    assert "--sigma 0.001 is 0.001 of the valid range [0, 1]" in run(*words, *short, "--eps", 0.1, "--quiet", "--sigma", "0.001")[2]
    assert "was 64/255 meant?" in run(*words, *short, "--eps", 0.1, "--quiet", "--sigma", "64")[2]
