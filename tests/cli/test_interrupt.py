"""Ctrl-C as a user presses it: a real signal to a real process, in Python and inside a compiled call."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

MODEL = """
import jax
import jax.numpy as jnp

import jaxsec


def net(params, x):
    z = x.reshape(x.shape[0], -1) @ params["a"]
    return jax.lax.fori_loop(0, SLOW, lambda i, v: jnp.tanh(v @ params["b"]), z)[:, :4] + jnp.array([9.0, 0, 0, 0])


def model():
    a, b = (jax.random.normal(jax.random.key(i), s) * 0.2 for i, s in enumerate(((36, 192), (192, 192))))
    return jaxsec.bind(net, {"a": a, "b": b})
"""
# a process started in the background inherits that the signal is ignored; at a terminal it is not
PROGRAM = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from jaxsec.cli import run; run()"


def started(*words: object) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    args = [sys.executable, "-c", PROGRAM, *map(str, words)]
    return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def pressed(run: subprocess.Popen[str], *, when: pathlib.Path | None = None, after: float = 0.0) -> tuple[int, str, str]:
    """Sends the signal `after` seconds after the file `when` is there; gives exit code, output and errors."""
    end = time.monotonic() + 120
    while when is not None and not when.exists() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(after)
    assert run.poll() is None, "it ended before the signal"
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    return run.returncode, out, err


@pytest.fixture
def words(tmp_path: pathlib.Path) -> tuple[object, ...]:
    """A model that no attack breaks and whose forward pass takes long, so that the signal falls into a compiled call."""
    np.savez(tmp_path / "data.npz", x=np.full((8, 6, 6, 1), 0.5, np.float32), y=np.zeros(8, int))
    (tmp_path / "slow.py").write_text(f"SLOW = 4000\n{MODEL}")
    return (f"{tmp_path}/slow.py:model", "--data", tmp_path / "data.npz", "--range", "0,1", "--eps", "0.1")


def test_an_interrupted_audit_says_what_is_kept_and_goes_on(words: tuple[object, ...], tmp_path: pathlib.Path) -> None:
    (tmp_path / "plan.toml").write_text('probes = ["clean", "noise"]\nnoise_draws = 2000\n')
    state = tmp_path / "r" / ".state"
    run = started("audit", *words, "--plan", tmp_path / "plan.toml", "--out", tmp_path / "r")
    end = time.monotonic() + 120
    while not list(state.glob("clean-*.npz")) and run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    code, _, err = pressed(run, after=1.0)
    assert code == 130
    assert err.splitlines() == [f"jaxsec: interrupted; what was done is kept in {state}: run the same command again to go on."]
    (clock,) = state.glob("clock-*.json")
    before = json.loads(clock.read_text())
    assert before["wall_s"] >= before["probes"]["noise"] > 0.5, "the time of the probe that was cut off counts"
    (tmp_path / "slow.py").write_text(f"SLOW = 4000\n{MODEL}")
    again = started("audit", *words, "--plan", tmp_path / "plan.toml", "--out", tmp_path / "r")
    while not json.loads(clock.read_text())["runs"] > 1 and again.poll() is None:
        time.sleep(0.02)
    code, out, _ = pressed(again)
    assert (code, out) == (130, "going on where the last run stopped: clean is done\n")


def test_an_interrupted_attack_says_that_nothing_is_kept(words: tuple[object, ...], tmp_path: pathlib.Path) -> None:
    out = tmp_path / "adv.npz"
    (tmp_path / "slow.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'loaded')!r}).touch()\nSLOW = 4000\n{MODEL}")
    code, _, err = pressed(started("attack", *words, "--steps", 1000, "--out", out), when=tmp_path / "loaded", after=3.0)
    assert (code, err) == (130, "jaxsec: interrupted; nothing is kept: the same command begins anew.\n")
    assert not out.exists()


def test_an_interrupt_before_the_work_is_one_line(words: tuple[object, ...], tmp_path: pathlib.Path) -> None:
    (tmp_path / "slow.py").write_text(f"import pathlib, time\npathlib.Path({str(tmp_path / 'loaded')!r}).touch()\ntime.sleep(60)\n")
    code, _, err = pressed(started("audit", *words, "--out", tmp_path / "r"), when=tmp_path / "loaded")
    assert (code, err) == (130, "jaxsec: interrupted; nothing is kept: the same command begins anew.\n")


def test_an_interrupt_that_python_ignores_is_repeated(words: tuple[object, ...], tmp_path: pathlib.Path) -> None:
    text = "import os, signal, time\n\n\nclass Gone:\n    def __del__(self):\n        os.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "slow.py").write_text(f"{text}        time.sleep(1)\n\n\nGone()\ntime.sleep(60)\n")
    run = started("audit", *words, "--out", tmp_path / "r")
    _, err = run.communicate(timeout=50)
    assert (run.returncode, err) == (130, "jaxsec: interrupted; nothing is kept: the same command begins anew.\n")
