"""`Finding`: one judged fact of a report."""

import dataclasses
from typing import Any

from ._standards import family_of

SEVERITIES = ("high", "medium", "low", "info")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One judged fact: what was seen, on how many rows, how sure, and where the standards file it.

    Attributes:
      id: stable check id, such as "JSX-EVA-001". family: key of the standards table.
      severity: "high", "medium", "low" or "info". title: a few words. message: what was measured and what follows.
      value: the measured quantity in `unit`; None where there is none. n: rows it was measured on.
      interval: its confidence interval, or None.
      remedy: what to do about it.
    """

    id: str
    family: str
    severity: str
    title: str
    message: str
    value: float | None = None
    unit: str = ""
    n: int = 0
    interval: tuple[float, float] | None = None
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding with the ids of the standards that cover its family."""
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity is {self.severity!r}; allowed: {', '.join(SEVERITIES)}.")
        out = dataclasses.asdict(self)
        out["interval"] = None if self.interval is None else list(self.interval)
        out["standards"] = family_of(self.family).ids()
        return out


def ordered(findings: list[Finding]) -> list[Finding]:
    """Worst first, then by id."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.id))
