"""Verdicts that are known from elsewhere, against those of this run."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ._verify_list import Name, plain, table_of
from ._verify_results import Row

DECIDED = ("sat", "unsat")
OPEN = ("unknown", "timeout", "error", "-", "")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How many verdicts agree, which are wrong (with what was expected), and how many cannot be compared, and why not."""

    agree: int
    wrong: list[tuple[Row, str]]
    undecided: int  # expected sat or unsat, not decided here
    open: int  # nobody knows
    missing: int  # not in the file


def truth_of(path: Path, names: list[Name]) -> dict[Name, str]:
    """{(onnx, vnnlib): "sat", "unsat" or "unknown"}; with a column `benchmark` also under that folder, as in lists of several families.

    `names` are those that will be looked up: with none of them in it, it is the wrong table, which is said before the work.
    """
    truth: dict[Name, str] = {}
    clashing: set[Name] = set()
    for fields, source, at, _ in table_of(path, "a table of expected verdicts", ("onnx", "vnnlib", "verdict")):
        verdict = fields["verdict"].strip().lower()
        if verdict not in (*DECIDED, *OPEN):
            raise source.error(at, f"the verdict is {verdict!r}; allowed: {', '.join((*DECIDED, *OPEN[:-1]))} or nothing; correct it")
        verdict = verdict if verdict in DECIDED else "unknown"
        bare = (plain(fields["onnx"]), plain(fields["vnnlib"]))
        family = fields.get("benchmark", "").strip()
        for name in {bare, (f"{family}/{bare[0]}", f"{family}/{bare[1]}") if family else bare}:
            if truth.setdefault(name, verdict) != verdict:
                if not family or name != bare:
                    raise source.error(
                        at, f"{', '.join(name)} is {truth[name]!r} above and {verdict!r} here; allowed is one; delete a line"
                    )
                clashing.add(name)
    for name in clashing:  # of two families: it cannot be told which is meant
        del truth[name]
    if names and not any(name in truth for name in names):
        raise ValueError(
            f"{path} has none of the lines, such as {', '.join(names[0])}; needed is the table of this list, with the same names of files."
        )
    return truth


def compared(rows: Iterable[Row], truth: dict[Name, str]) -> Comparison:
    """Only sat against unsat is wrong: a timeout contradicts nothing."""
    counts = dict.fromkeys(("agree", "undecided", "open", "missing"), 0)
    wrong = []
    for row in rows:
        expected = truth.get((row.onnx, row.vnnlib))
        if expected is None:
            counts["missing"] += 1
        elif expected not in DECIDED:
            counts["open"] += 1
        elif row.verdict not in DECIDED:
            counts["undecided"] += 1
        elif row.verdict == expected:
            counts["agree"] += 1
        else:
            wrong.append((row, expected))
    return Comparison(wrong=wrong, **counts)
