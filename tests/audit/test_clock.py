"""The time of an audit that took several processes."""

import json
import pathlib
import time

import jax
import pytest

from jaxsec.audit import audit
from jaxsec.audit._clock import Clock
from jaxsec.audit._html import settings_of
from jaxsec.audit._markdown import markdown_of
from jaxsec.audit._probes import PROBE_FUNCTIONS, Outcome, Progress, Subject

from .conftest import THREAT, subject_of, tiny_plan


def test_time_and_start_are_those_of_all_processes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = subject_of()
    said: list[list[str]] = []
    call = {"threat": THREAT, "key": jax.random.key(0), "plan": tiny_plan(probes=("clean", "noise")), "state": tmp_path}
    call |= {"resumed": lambda done: said.append(list(done))}

    def killed(subject: Subject, report: Progress, state: str | None) -> Outcome:
        time.sleep(0.3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(PROBE_FUNCTIONS, "noise", killed)
        audit(model, (x, y), **call)
    (file,) = tmp_path.glob("clock-*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"started": "2020-01-01T00:00:00+00:00"}))
    assert said == [], "the first call does not go on"
    data = audit(model, (x, y), **call).data
    assert said == [["clean"]]
    assert (data["resumed"], data["started"]) == (1, "2020-01-01T00:00:00+00:00")
    assert data["wall_s"] >= data["probes"]["noise"]["wall_s"] >= 0.3
    assert ", resumed once" in markdown_of(data)
    assert dict(settings_of(data)[0][1])["Wall time"].endswith("s, resumed once")


@pytest.mark.parametrize("text", ["", "[]", '{"runs": "two"}', "\x00"])
def test_a_damaged_clock_starts_anew(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / f"clock-{'0' * 16}.json").write_text(text)
    clock = Clock(tmp_path, "0" * 64)
    assert clock.resumed == 0 and clock.wall_s < 10 and clock.of("noise") == 0


def test_a_kill_loses_a_few_seconds_at_most(tmp_path: pathlib.Path) -> None:
    clock = Clock(tmp_path, "0" * 64)
    with clock.probe("sweep"):
        clock.tick()
        assert not list(tmp_path.iterdir()), "not at every step"
        clock.tick(every=0.0)
        assert Clock(tmp_path, "0" * 64).resumed == 1
