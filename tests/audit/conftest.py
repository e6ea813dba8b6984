"""One quick audit for the whole room: every test of a view reads the same report."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.audit import Plan, Report, audit

CLASSES = 4
ROWS = 16
SHAPE = (6, 6, 1)
TRACES: list[str] = []


def net(params: Any, x: jax.Array) -> jax.Array:
    """A linear net that records each trace; smooth, so gradient attacks work on it."""
    TRACES.append("net")
    return jnp.tanh(x.reshape(x.shape[0], -1) @ params["a"]) @ params["b"]


def subject_of(seed: int = 0) -> tuple[jaxsec.Model, np.ndarray, np.ndarray]:
    """(model, x, y): the model's own answers, but row 2 is wrong before any attack."""
    r = np.random.default_rng(seed)
    d = int(np.prod(SHAPE))
    params = {"a": jnp.asarray(r.normal(size=(d, 8)) * 0.4, jnp.float32), "b": jnp.asarray(r.normal(size=(8, CLASSES)), jnp.float32)}
    info = jaxsec.ModelInfo(name="<b>tiny & co</b>", notes=("final Softmax removed",))
    model = jaxsec.bind(net, params, info=info)
    x = r.uniform(0.1, 0.9, size=(ROWS, *SHAPE)).astype(np.float32)
    y = np.asarray(model(jnp.asarray(x)).argmax(axis=1)).astype(np.int32)
    y[2] = (y[2] + 1) % CLASSES
    return model, x, y


def tiny_plan(**changes: Any) -> Plan:
    """The smallest plan in which every probe works."""
    small = {"rows": 0, "noise_draws": 3, "sweep_steps": 5, "attack_steps": 5, "attack_queries": 40, "attack_targets": 1}
    small |= {"blackbox_queries": 40, "distance_steps": 5}
    return Plan.preset_of("quick").replace(**(small | changes))


THREAT = jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0)


@pytest.fixture(scope="session")
def report() -> Report:
    model, x, y = subject_of()
    return audit(
        model, (x, y), threat=THREAT, key=jax.random.key(0), plan=tiny_plan(), context={"seed": 0, "note": "<script>alert(1)</script>"}
    )


@pytest.fixture(scope="session")
def saved(report: Report, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("audit")
    report.save(folder)
    return folder
