"""No bound method calls a property verified where others have published a counterexample, and its bounds contain what they found.

Every line of the ground truth with a re-checked witness, by family. As it stands every few lines of each family are looked at (`FAMILIES`);
JAXSEC_FULL=1 takes all lines, all methods.
"""

import dataclasses
import functools
import itertools
import os

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.bound import BoundMethod
from jaxsec.certify._cases import Case
from jaxsec.certify._question import TOLERANCE, Question

from .conftest import need, net, prop, truth, witnesses

FULL = bool(os.environ.get("JAXSEC_FULL"))
CHEAP = (jaxsec.IBP(), jaxsec.CROWNIBP())
ALL = (*CHEAP, jaxsec.ForwardLinear(), jaxsec.CROWN())
# of each family: one line in how many without JAXSEC_FULL, how many rows side by side, the methods
FAMILIES: dict[str, tuple[int, int, tuple[BoundMethod, ...]]] = {
    "acasxu": (3, 2, ALL),
    "rl_benchmarks": (4, 8, ALL),
    "reach_prob_density": (1, 8, ALL),
    "mnist_fc": (3, 2, (*CHEAP, jaxsec.CROWN())),
    "collins_rul_cnn": (6, 4, (*CHEAP, jaxsec.CROWN())),
    "dist_shift": (1, 4, (*CHEAP, jaxsec.CROWN())),
    "sri_resnet_a": (12, 1, CHEAP),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One box with its forms: unsafe iff for some clause all rows of `spec[c] y + at[c] <= 0`; a point of it where that is so."""

    name: str
    onnx: str
    question: Question
    case: Case
    x: np.ndarray  # float32, in the box
    y: np.ndarray  # the network in float64

    def forms(self) -> np.ndarray:
        """[S, K] the rows of all clauses, and every output and its negative."""
        eye = np.eye(self.case.spec.shape[-1])
        return np.concatenate([self.case.spec.reshape(-1, len(eye)), eye, -eye])


@functools.cache
def lines(family: str) -> list[Line]:
    found = []
    for key, x in list(witnesses(family).items())[:: 1 if FULL else FAMILIES[family][0]]:
        line = truth(family)[int(key)]
        assert line["verdict"] == "sat"
        asked = Question(net(family, line["onnx"]), prop(family, line["vnnlib"]))
        case = next(c for c in asked.cases if np.all(x >= c.lo - 1e-4) and np.all(x <= c.hi + 1e-4))
        x = np.clip(x.astype(np.float32), case.lo, case.hi)
        found.append(Line(f"{family} {key}", line["onnx"], asked, case, x, asked.replayed(x)))
    return sorted(found, key=kind)


def kind(line: Line) -> tuple[str, int]:
    """Lines of one kind are bounded side by side: the same network, and as many forms."""
    return line.onnx, len(line.forms())


def refuted(family: str, method: BoundMethod, sound: bool) -> int:
    """Asserts that each line's bounds lie below the network at its witness, and prove nothing; how many lines that was."""
    count = FAMILIES[family][1]
    for _, group in itertools.groupby(lines(family), kind):
        same = list(group)
        for start in range(0, len(same), count):
            part = same[start : start + count]
            rows = part + [part[0]] * (count - len(part))  # one shape, one program
            asked = rows[0].question
            x, lo, hi = (np.stack(v).reshape(count, *asked.shape) for v in zip(*((r.x, r.case.lo, r.case.hi) for r in rows), strict=True))
            spec = np.stack([r.forms() for r in rows])
            box = (jnp.asarray(lo), jnp.asarray(hi))
            low = np.asarray(jaxsec.bound(asked.model, box, method=method, spec=spec, sound=sound), np.float64)
            run = np.asarray(asked.outputs(x.reshape(count, -1)), np.float64)
            for line, forms, bounds, y32 in zip(part, spec, low, run, strict=False):
                y, slack, tolerance = line.y, 1e-5 * max(1, np.abs(line.y).max()), TOLERANCE * np.abs(line.y).max()
                if sound:
                    y, slack, tolerance = y32, 0, 0
                beyond = bounds - forms @ y
                assert beyond.max() <= slack, f"{line.name}: {method.name} says {bounds}, the network {forms @ y}"
                clauses = bounds[: line.case.at.size].reshape(line.case.at.shape) + line.case.at
                assert not (clauses > tolerance).any(1).all(), f"{line.name}: {method.name} calls it verified"
    return len(lines(family))


SOUND = ("acasxu", "reach_prob_density", "mnist_fc")  # the families that are also bounded with sound=True; with JAXSEC_FULL all are
TABLE = [
    (family, method, sound)
    for family, (_, _, methods) in FAMILIES.items()
    for method in methods
    for sound in ((False, True) if FULL or family in SOUND else (False,))
]
FULLY = [("sri_resnet_a", jaxsec.CROWN(), False)]
OPTIMISED = [(family, jaxsec.AlphaCROWN(steps=3, open=16), False) for family in ("reach_prob_density", "rl_benchmarks", "acasxu")]


@pytest.mark.slow
@pytest.mark.parametrize("family, method, sound", [*TABLE, *OPTIMISED[: 3 if FULL else 1], *(FULLY if FULL else ())], ids=str)
def test_witnesses_are_within_bounds_and_nothing_is_verified(family: str, method: BoundMethod, sound: bool, record_property) -> None:
    need()
    record_property("lines", refuted(family, method, sound))
