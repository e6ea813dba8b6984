"""What tests of interrupted runs share."""

from collections.abc import Callable
from typing import Any

import pytest

from jaxsec.smooth import _kept

Killed = Callable[[Callable[..., Any], float], None]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Killed:
    """Runs `call(progress=...)` until more than a fraction is done, as a kill would end it; the state is written at each step."""
    monkeypatch.setattr(_kept, "EVERY", 0.0)

    def run(call: Callable[..., Any], at: float) -> None:
        def killer(stage: str, fraction: float, live: int) -> None:
            if fraction > at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            call(progress=killer)

    return run
