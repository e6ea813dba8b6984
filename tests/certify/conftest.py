"""Small published networks and their properties, where the shared data is."""

import csv
import functools
import pathlib
from typing import Any

import numpy as np
import pytest

import jaxsec
from jaxsec.io import load_vnnlib

VNNCOMP = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data" / "vnncomp"


def need() -> None:
    if not VNNCOMP.is_dir():
        pytest.skip(f"no VNN-COMP data at {VNNCOMP}")


@functools.cache
def truth(family: str) -> list[dict[str, str]]:
    with open(VNNCOMP / family / "ground_truth.csv") as file:
        return list(csv.DictReader(file))


@functools.cache
def net(family: str, onnx: str) -> jaxsec.Model:
    return jaxsec.load(VNNCOMP / family / f"{onnx}.gz", keep_softmax=True)


def prop(family: str, vnnlib: str) -> Any:
    return load_vnnlib(VNNCOMP / family / f"{vnnlib}.gz")


@functools.cache
def witnesses(family: str) -> dict[str, np.ndarray]:
    path = VNNCOMP / family / "witnesses.npz"
    if not path.exists():
        return {}
    with np.load(path) as file:
        return {k: file[k] for k in file.files}
