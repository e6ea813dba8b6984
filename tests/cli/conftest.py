"""A model, its data and a plan as files, for commands that run in this process."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from jaxsec.cli import main

MODEL = """
import jax.numpy as jnp
import numpy as np

import jaxsec


def net(params, x):
    return jnp.tanh(x.reshape(x.shape[0], -1) @ params["a"]) @ params["b"]


def model():
    r = np.random.default_rng(0)
    a, b = r.normal(size=(36, 8)) * 0.4, r.normal(size=(8, 4))
    return jaxsec.bind(net, {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)})


def broken():
    raise RuntimeError("no weights")


number = 3
"""

PLAN = """
preset = "quick"
noise_draws = 2
sweep = [0, 1]
sweep_steps = 3
attack_steps = 3
attack_queries = 10
attack_targets = 1
blackbox_queries = 10
probes = ["clean", "noise", "sweep"]
"""


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with net.py, data.npz and plan.toml; the labels are the model's own answers."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "net.py").write_text(MODEL)
    (folder / "plan.toml").write_text(PLAN)
    x = np.random.default_rng(1).uniform(0.1, 0.9, size=(8, 6, 6, 1)).astype(np.float32)
    space: dict = {}
    exec(compile(MODEL, "net.py", "exec"), space)
    y = np.asarray(space["model"]()(x).argmax(axis=1))
    np.savez(folder / "data.npz", x=x, y=y)
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives its exit code and what it printed and complained."""

    def go(*args: object) -> tuple[int, str, str]:
        code = main([str(a) for a in args])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return go
