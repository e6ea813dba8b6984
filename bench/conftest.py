"""Benches: one process with one CPU device, the peers interleaved with us, quality stored beside every time."""

import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import jax
import pytest

RESULTS = pathlib.Path(__file__).parent / "results"


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate, run A, B, A, B, ... after one warm-up each: noise of a shared machine meets all alike."""
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(seconds: dict[str, list[float]], peer: str, ours: str) -> float:
    """Median over rounds of the peer's time over ours."""
    return statistics.median(a / b for a, b in zip(seconds[peer], seconds[ours], strict=True))


@pytest.fixture
def store(request: pytest.FixtureRequest):
    """Writes one JSON file per bench into bench/results."""

    def write(**numbers: object) -> None:
        RESULTS.mkdir(exist_ok=True)
        about = {
            "jax": jax.__version__,
            "device": str(jax.devices()[0].device_kind),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        }
        (RESULTS / f"{request.node.name}.json").write_text(json.dumps({"bench": request.node.name, **about, **numbers}, indent=1) + "\n")

    return write
