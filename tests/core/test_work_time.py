"""The clock that stands still while XLA compiles."""

import time

import jax
import jax.numpy as jnp
import pytest

from jaxsec.core import _work_time
from jaxsec.core._work_time import work_time


def test_it_goes_with_the_other_clock_where_nothing_is_compiled() -> None:
    before = work_time(), time.monotonic()
    time.sleep(0.05)
    after = work_time(), time.monotonic()
    assert after[0] - before[0] == pytest.approx(after[1] - before[1], abs=0.02) and after[0] - before[0] >= 0.05


def test_it_stands_still_while_a_program_is_compiled() -> None:
    """A program that no cache has: its constant is new."""
    work_time()
    begun, spent = time.monotonic(), _work_time._spent[0]
    first = work_time()
    f = jax.jit(lambda x: jnp.linalg.norm(jnp.sort(jax.nn.softmax(x @ x * (1 + time.time() % 1)))))
    f.lower(jnp.ones((8, 8))).compile()
    worked, passed, compiled = work_time() - first, time.monotonic() - begun, _work_time._spent[0] - spent
    assert compiled > 0 and worked == pytest.approx(passed - compiled, abs=0.02) and 0 <= worked < passed
