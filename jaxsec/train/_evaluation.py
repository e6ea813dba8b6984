"""`Evaluation`: the table that `evaluate` makes, defences against a naive and an adaptive adversary side by side."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

VERDICTS = ("broken", "falls", "masked", "holds")


@dataclasses.dataclass(frozen=True)
class EvaluationRow:
    """One defence under both attacks; arrays [B] and `x` belong to the rows of data.

    Attributes:
      clean, naive, adaptive: accuracies: without an attack, under the naive one, under both.
      verdict: "broken": the naive attack is enough; "falls": much of what it left does not stand the adaptive one; "masked": much
        stands, but the gradients that attacked it were of no use; "holds": none of these, which is no proof.
      correct, naive_robust, adaptive_robust: [B] bool behind them. x: [B, ...] an input that the deployed model gets wrong, or the
        clean row. judged: model draws in each of the two judgements, 1 for a deterministic model. surrogates: how many models the adaptive
        adversary attacked. flags: warnings and errors of the naive attack by name. notes: sentences to read before the numbers. The
        table prints both below itself.
    """

    name: str
    clean: float
    naive: float
    adaptive: float
    verdict: str
    correct: np.ndarray
    naive_robust: np.ndarray
    adaptive_robust: np.ndarray
    x: np.ndarray
    judged: int
    surrogates: int
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A table of defences, one `EvaluationRow` each; `naive_method` and `adaptive_methods` say what attacked, `draws` of a random model."""

    rows: tuple[EvaluationRow, ...]
    n: int
    threat: str
    naive_method: str
    adaptive_methods: tuple[str, ...]
    draws: int

    def table(self, *, markdown: bool = False) -> str:
        """The table as aligned text, or as Markdown; below it the flags and notes of each verdict that has a number."""
        head = ("defence", "clean", "naive", "adaptive", "verdict")
        remarked = [row for row in self.rows if row.flags or row.notes]
        marks = {row.name: f" [{i}]" for i, row in enumerate(remarked, 1)}
        numbers = [[f"{100 * v:.1f} %" for v in (r.clean, r.naive, r.adaptive)] for r in self.rows]
        cells = [(r.name, *n, r.verdict + marks.get(r.name, "")) for r, n in zip(self.rows, numbers, strict=True)]
        widths = [max(len(row[i]) for row in (head, *cells)) for i in range(len(head))]

        def line(row: Sequence[str]) -> str:
            aligned = [v.rjust(w) if 0 < i < 4 else v.ljust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True))]
            return f"| {' | '.join(aligned)} |" if markdown else "  ".join(aligned).rstrip()

        rule = [("-" * (w - 1) + ":" if 0 < i < 4 else "-" * w) if markdown else "-" * w for i, w in enumerate(widths)]
        below = [f"{marks[r.name][1:]} {r.name}: {'; '.join([*r.flags, *r.notes])}" for r in remarked]
        if markdown:
            below = [line for remark in below for line in ("", remark)]
        return "\n".join([line(head), line(rule), *map(line, cells), *below])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON takes it."""
        hidden = ("correct", "naive_robust", "adaptive_robust", "x")
        rows = [{f.name: getattr(r, f.name) for f in dataclasses.fields(r) if f.name not in hidden} for r in self.rows]
        rows = [{k: list(v) if isinstance(v, tuple) else v for k, v in row.items()} for row in rows]
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "rows"}
        return {**rest, "adaptive_methods": list(self.adaptive_methods), "rows": rows}

    def __getitem__(self, name: str) -> EvaluationRow:
        """The row of that name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no defence {name!r}; there are {', '.join(row.name for row in self.rows)}.")

    def __str__(self) -> str:
        return self.table()
