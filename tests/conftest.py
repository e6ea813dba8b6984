"""What every test runs under: eight CPU devices, rank promotion an error, a compilation cache outside the tree."""

import gc
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator
from importlib.metadata import version

# Read when a JAX backend starts, so it must be set before anything draws an array.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
if os.environ.get("JAXSEC_QUICK"):  # see the Makefile: programs that compile fast and run slowly
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    if version("jaxlib").startswith("0.10."):  # others may not know the flags, and end the process
        # code generation in pieces is for idle cores, of which there are none: a fifth less
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import numpy as np
import pytest

N_DEVICES = 8
_MAPS, _tests = pathlib.Path("/proc/self/maps"), 0
_CACHE = pathlib.Path(tempfile.gettempdir()) / f"jaxsec-test-cache-{os.getuid()}"

jax.config.update("jax_numpy_rank_promotion", "raise")
if os.environ.get("JAXSEC_QUICK"):
    jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where an operation of a program came from
gc.freeze()  # what was imported stays; looking it over again and again takes a twentieth of the time
gc.set_threshold(20_000, 10, 10)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(_CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(autouse=True)
def compiled_programs_do_not_pile_up() -> Iterator[None]:
    """Each compiled program holds dozens of memory maps; beyond the kernel's limit (65,530 in a process) XLA crashes while it compiles."""
    yield
    global _tests
    _tests += 1
    if _tests % 4 == 0 and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def numbers_do_not_depend_on_the_tests_before(request: pytest.FixtureRequest) -> None:
    """A test draws the same from its module's generators alone, after others and on any worker: by their seeds and its own name."""
    for value in vars(getattr(request.node, "module", None) or object).values():
        if isinstance(value, np.random.Generator):
            seed = np.random.SeedSequence(value.bit_generator.seed_seq.entropy, spawn_key=(zlib.crc32(request.node.name.encode()),))
            value.bit_generator.state = np.random.PCG64(seed).state


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of test data beside the repository; a test that asks for it is skipped where it is absent."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def devices() -> list[jax.Device]:
    """Eight devices. Fewer skip the test, or fail it where JAXSEC_REQUIRE_DEVICES is set, so that a skip cannot hide them."""
    found = jax.devices()
    if len(found) < N_DEVICES:
        reason = f"{len(found)} devices, {N_DEVICES} needed: XLA_FLAGS=--xla_force_host_platform_device_count={N_DEVICES}"
        if os.environ.get("JAXSEC_REQUIRE_DEVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found[:N_DEVICES]
