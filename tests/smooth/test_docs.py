"""The example of docs/smoothing.md does what its text says."""

import pathlib
import re
from typing import Any


def test_the_example_runs_and_the_quick_method_agrees_with_fewer_samples() -> None:
    text = (pathlib.Path(__file__).parents[2] / "docs/smoothing.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/smoothing.md", "exec"), names)
    fixed, quick, attacked = names["c"], names["q"], names["a"]
    assert 0.2 < fixed.robust.mean() <= 1 - attacked.success.mean() < 1
    assert abs(fixed.robust.mean() - quick.robust.mean()) <= 0.04
    assert quick.samples.mean() < fixed.samples.mean() / 4
