"""`random_bits` against its twin under every transformation; the same cases run with and without native code."""

import functools
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxsec import _native
from jaxsec._native import _load

KEY = np.array([0xDEADBEEF, 42], np.uint32)


def twin(shape: tuple[int, ...], offset: int = 0, key: np.ndarray = KEY) -> np.ndarray:
    return np.asarray(_native.philox_bits(jnp.asarray(key), _native.as_offset(offset), shape))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (4,), (255,), (5, 7), (2, 3, 0), (65_537,), (3 * 65_536 + 13,)])
def test_native_equals_twin(native: None, shape: tuple[int, ...]) -> None:
    offset = 2**32 - 3
    got = _native.random_bits(jnp.asarray(KEY), shape, offset=offset)
    assert got.dtype == jnp.uint32
    np.testing.assert_array_equal(got, twin(shape, offset))


def test_native_is_what_runs(native: None) -> None:
    lowered = jax.jit(lambda key: _native.random_bits(key, (8,))).lower(jnp.asarray(KEY)).as_text()
    assert "jaxsec_random_bits" in lowered
    assert "multiply" not in lowered and "while" not in lowered  # the twin is not in the CPU program


def test_the_switch_is_obeyed_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXSEC_NATIVE", "0")
    assert _native.status() == "off: JAXSEC_NATIVE=0"
    lowered = jax.jit(lambda key: _native.random_bits(key, (8,))).lower(jnp.asarray(KEY)).as_text()
    assert "jaxsec_random_bits" not in lowered
    monkeypatch.setenv("JAXSEC_NATIVE", "yes")
    with pytest.raises(ValueError, match="JAXSEC_NATIVE is 'yes'"):
        _native.available()


def test_one_trace_for_all_keys_and_offsets(path: str) -> None:
    traces = itertools.count()

    @jax.jit
    def draw(key: jax.Array, offset: jax.Array) -> jax.Array:
        next(traces)
        return _native.random_bits(key, (6,), offset=offset)

    for offset in (0, 2**40 + 1):
        np.testing.assert_array_equal(draw(KEY, _native.as_offset(offset)), twin((6,), offset))
    assert next(traces) == 1


def test_vmap_over_keys_offsets_and_both(path: str) -> None:
    keys = jnp.asarray(np.arange(6, dtype=np.uint32).reshape(3, 2))
    samples = jax.vmap(lambda i: _native.sample_offset(i, 10))(jnp.arange(5, dtype=jnp.uint32))
    draw = functools.partial(_native.random_bits, shape=(2, 5))
    by_key = jax.vmap(lambda key: draw(key, offset=9))(keys)
    by_sample = jax.vmap(lambda offset: draw(jnp.asarray(KEY), offset=offset))(samples)
    by_both = jax.jit(jax.vmap(lambda key: jax.vmap(lambda offset: draw(key, offset=offset))(samples)))(keys)
    for i in range(3):
        np.testing.assert_array_equal(by_key[i], twin((2, 5), 9, np.asarray(keys[i])))
        for j in range(5):
            np.testing.assert_array_equal(by_both[i, j], twin((2, 5), 3 * j, np.asarray(keys[i])))
    for j in range(5):
        np.testing.assert_array_equal(by_sample[j], twin((2, 5), 3 * j))


def test_many_and_long_streams_in_one_call(native: None) -> None:
    # More than one task a stream, and more than one stream a task.
    for streams, size in ((3, 65_536 + 5), (700, 300)):
        offsets = jax.vmap(lambda i, size=size: _native.sample_offset(i, size))(jnp.arange(streams, dtype=jnp.uint32))
        got = jax.vmap(lambda offset, size=size: _native.random_bits(jnp.asarray(KEY), (size,), offset=offset))(offsets)
        for j in (0, 1, streams - 1):
            np.testing.assert_array_equal(got[j], twin((size,), j * -(-size // 4)))


def test_shard_map_equals_one_device(path: str, devices: list[jax.Device]) -> None:
    mesh = Mesh(np.array(devices), ("samples",))
    size, per_shard = 13, 3

    def shard(key: jax.Array) -> jax.Array:
        first = jax.lax.axis_index("samples") * per_shard
        offsets = jax.vmap(lambda i: _native.sample_offset(i, size))(first + jnp.arange(per_shard))
        return jax.vmap(lambda offset: _native.random_bits(key, (size,), offset=offset))(offsets)

    spec = PartitionSpec("samples")
    sharded = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=PartitionSpec(), out_specs=spec))(KEY)
    assert sharded.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, spec), 2)
    single = np.stack([twin((size,), i * 4) for i in range(len(devices) * per_shard)])
    np.testing.assert_array_equal(sharded, single)
    assert len(np.unique(single)) == single.size  # no shard repeats another (a chance collision: below 1.2e-5)


def test_shard_map_with_a_key_per_shard(path: str, devices: list[jax.Device]) -> None:
    # The mirror case: the key varies over the mesh and the offset does not.
    mesh, spec = Mesh(np.array(devices), ("samples",)), PartitionSpec("samples")
    keys = np.arange(16, dtype=np.uint32).reshape(8, 2)
    shard = jax.shard_map(lambda key: _native.random_bits(key[0], (1, 13)), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_array_equal(jax.jit(shard)(keys), np.stack([twin((13,), 0, key) for key in keys]))


def test_jit_with_sharded_inputs_equals_one_device(path: str, devices: list[jax.Device]) -> None:
    sharding = jax.sharding.NamedSharding(Mesh(np.array(devices), ("samples",)), PartitionSpec("samples"))
    offsets = jax.device_put(np.stack([np.arange(16, dtype=np.uint32) * 4, np.zeros(16, np.uint32)], 1), sharding)
    draw = jax.jit(jax.vmap(lambda offset: _native.random_bits(jnp.asarray(KEY), (13,), offset=offset)), out_shardings=sharding)
    np.testing.assert_array_equal(draw(offsets), np.stack([twin((13,), i * 4) for i in range(16)]))


def test_exports_for_every_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXSEC_NATIVE", "0")
    program = jax.jit(lambda key, offset: _native.random_bits(key, (33,), offset=offset))
    spec = jax.ShapeDtypeStruct((2,), jnp.uint32)
    exported = jax.export.export(program, platforms=["tpu", "cuda", "cpu"])(spec, spec)
    assert exported.platforms == ("tpu", "cuda", "cpu")
    np.testing.assert_array_equal(exported.call(KEY, _native.as_offset(5)), twin((33,), 5))


def test_native_lowers_beside_the_twin_for_other_platforms(native: None) -> None:
    # Native is chosen per platform while lowering, so a program for TPU and CUDA has no trace of it.
    spec = jax.ShapeDtypeStruct((2,), jnp.uint32)
    exported = jax.export.export(jax.jit(lambda key: _native.random_bits(key, (33,))), platforms=["tpu", "cuda"])(spec)
    assert "jaxsec_random_bits" not in exported.mlir_module()


def test_handler_refuses_wrong_shapes(native: None) -> None:
    call = jax.ffi.ffi_call("jaxsec_random_bits", jax.ShapeDtypeStruct((3, 4), jnp.uint32))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"key\[2, 2\], offset\[2, 2\], output\[3, 4\]"):
        call(jnp.zeros((2, 2), jnp.uint32), jnp.zeros((2, 2), jnp.uint32)).block_until_ready()
    with pytest.raises(jax.errors.JaxRuntimeError):
        call(jnp.zeros(2, jnp.float32), jnp.zeros(2, jnp.float32)).block_until_ready()


def test_import_does_not_start_a_backend() -> None:
    code = (
        "from jaxsec import _native; import jax; _native.status(); jax.config.update('jax_num_cpu_devices', 3); print(len(jax.devices()))"
    )
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.strip() == "3"


def test_a_module_newer_than_jaxlib_is_refused() -> None:
    # Registered all the same, it would keep the CPU backend from starting: seen with headers of jaxlib 0.12.0 under jaxlib 0.11.2.
    running = _load._running_api_version()
    assert running is not None
    major, minor = running
    assert _load._refusal((major, minor), running) == ""
    assert _load._refusal((major, minor - 1), running) == ""
    assert f"built for XLA FFI {major}.{minor + 1}" in _load._refusal((major, minor + 1), running)
    assert _load._refusal((major + 1, 0), running).startswith("refused")
    assert "unknown" in _load._refusal(running, None)
