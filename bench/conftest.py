"""Benches: one process with one device, the peers interleaved with us, quality stored beside every time.

Three tiers. `test_gates.py`: numbers without a clock. Ratios to a peer in the same run: `test_pgd.py`, `test_autoattack.py`,
`test_published.py`. Absolute times, for a trend on one machine and never a gate: `test_trend.py`, through pytest-benchmark.
With `--benchmark-disable` every bench runs once, small, and no ratio is asserted: so CI keeps them from rotting.
"""

import json
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

if os.environ.get("JAXSEC_QUICK"):  # as in tests/conftest.py: a smoke run waits for compilers only
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    if version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

import jax
import numpy as np
import pytest
from scipy import stats

if os.environ.get("JAXSEC_QUICK") and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", f"{tempfile.gettempdir()}/jaxsec-test-cache-{os.getuid()}")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

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


def ratio(seconds: dict[str, list[float]], peer: str, ours: str) -> tuple[float, float, float]:
    """Median over rounds of the peer's time over ours, and its bootstrap interval of 95 %; a gate looks at the lower end."""
    pairs = np.asarray(seconds[peer]) / np.asarray(seconds[ours])
    if len(pairs) < 3:
        return float(np.median(pairs)), float(pairs.min()), float(pairs.max())
    interval = stats.bootstrap((pairs,), np.median, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return float(np.median(pairs)), float(interval.low), float(interval.high)


@pytest.fixture
def smoke(request: pytest.FixtureRequest) -> bool:
    """Whether the bench should only show that it still runs."""
    return bool(request.config.getoption("benchmark_disable"))


@pytest.fixture
def store(request: pytest.FixtureRequest, smoke: bool):
    """Writes one JSON file per bench into bench/results, except in a smoke run."""

    def write(**numbers: object) -> None:
        if smoke:
            return
        RESULTS.mkdir(exist_ok=True)
        about = {
            "jax": jax.__version__,
            "device": str(jax.devices()[0].device_kind),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        }
        (RESULTS / f"{request.node.name}.json").write_text(json.dumps({"bench": request.node.name, **about, **numbers}, indent=1) + "\n")

    return write
