"""Images for a model of flat rows: with --layout they stay images, whatever file they come from."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec.cli._inputs import model_of
from jaxsec.cli._rows import for_images
from jaxsec.io import load_data

from .conftest import Run

MODEL = """
import jax.numpy as jnp
import jax.numpy as jnp
import numpy as np

import jaxsec


def net(params, x):
    return x.reshape(x.shape[0], 36) @ params


def model():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(36, 4)), jnp.float32)
    return jaxsec.bind(net, w, info=jaxsec.ModelInfo(input_shape=SHAPE, n_classes=4))
"""
X = np.random.default_rng(1).integers(20, 230, size=(8, 6, 6)).astype(np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    y = (X.reshape(8, 36) / 255 @ np.random.default_rng(0).normal(size=(36, 4))).argmax(axis=1).astype(np.uint8)
    (tmp_path / "t-images-idx3-ubyte").write_bytes(idx_bytes(X))
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(idx_bytes(y))
    unit = (X / 255).astype(np.float32)
    np.savez(tmp_path / "hw.npz", x=unit, y=y)
    np.savez(tmp_path / "chw.npz", x=unit[:, None], y=y)
    (tmp_path / "plan.toml").write_text('probes = ["clean", "blackbox"]\nblackbox_queries = 20\n')
    return tmp_path


@pytest.mark.parametrize("shape", ["(36,)", "(36, 1)"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("data", ["t-images-idx3-ubyte", "hw.npz", "chw.npz"])
def test_rows_stay_images(run: Run, folder: pathlib.Path, data: str, layout: str, shape: str) -> None:
    (folder / "net.py").write_text(f"SHAPE = {shape}\n{MODEL}")
    words = (f"{folder}/net.py:model", "--data", folder / data, "--layout", layout, "--plan", folder / "plan.toml")
    code, _, err = run("audit", *words, "--out", folder / "r", "-q")
    assert code == 0, err
    written = json.loads((folder / "r" / "report.json").read_text())
    assert written["probes"]["clean"]["accuracy"]["value"] == 1.0 and "blackbox" in written["probes"] and not written["skipped"]
    assert written["data"]["shape"] == ([1, 6, 6] if layout == "NCHW" else [6, 6, 1])
    assert "are flattened in front of the model" in " ".join(written["model"]["notes"])


def test_without_a_layout_the_remedy_works(run: Run, folder: pathlib.Path) -> None:
    (folder / "net.py").write_text(f"SHAPE = (36,)\n{MODEL}")
    words = ("attack", f"{folder}/net.py:model", "--data", folder / "t-images-idx3-ubyte", "--method", "square", "--steps", 5)
    words = (*words, "--out", folder / "adv.npz")
    code, _, err = run(*words)
    assert code == 2 and "say how with --layout NCHW or NHWC" in err
    assert run(*words, "--layout", "NCHW")[0] == 0
    code, _, err = run("audit", *words[1:4], "--plan", folder / "plan.toml", "--out", folder / "r", "-q")
    notes = json.loads((folder / "r" / "report.json").read_text())["data"]["notes"]
    assert "images of shape (6, 6) are read as flat rows; --layout NCHW or --layout NHWC keeps them images" in notes


def test_an_equal_model_compiles_nothing_anew(folder: pathlib.Path) -> None:
    (folder / "net.py").write_text(f"SHAPE = (36,)\n{MODEL}")
    net, rows = model_of(f"{folder}/net.py:model"), load_data(folder / "chw.npz")
    first, second = for_images(net, rows), for_images(net, rows)
    assert first.apply == second.apply and hash(first.apply) == hash(second.apply) and first.apply is not second.apply
    np.testing.assert_array_equal(first(jnp.asarray(rows.x)), net(jnp.asarray(rows.x.reshape(8, 36))))
    flat = load_data(folder / "chw.npz", layout="flat")
    assert for_images(net, flat) is net, "flat rows need nothing"
