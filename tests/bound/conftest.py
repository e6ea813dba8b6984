"""Bounds of small programs run operation by operation: hundreds of tiny compilations, kept between runs whatever they took."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def tiny_compilations_are_kept() -> Iterator[None]:
    before = jax.config.jax_persistent_cache_min_compile_time_secs, jax.config.jax_persistent_cache_min_entry_size_bytes
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[0])
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", before[1])
