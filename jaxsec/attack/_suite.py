"""AutoAttack: the fixed sequence of attacks that the field quotes."""

import dataclasses
from typing import Any

from ._apgd import APGD
from ._fab import FAB
from ._method import Method
from ._square import Square

VERSIONS = ("standard", "plus", "rand")
NO_BLACK_BOX = "no black-box attack checks for masked gradients"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """Parameter-free ensemble; each stage sees only the rows that all earlier ones left standing.

    standard: APGD-CE, APGD-T, FAB-T, Square. plus: APGD-CE, APGD-DLR, FAB (nearest of all classes), Square, APGD-T, FAB-T, with
    5 restarts of the untargeted ones. rand, for randomised models: APGD-CE and APGD-DLR on gradients averaged over `draws`.

    Args:
      version: "standard", "plus" or "rand".
      steps: iterations of APGD and FAB. queries: steps of Square. targets: classes tried by APGD-T and FAB-T (at most K - 1).
      draws: model draws per query in "rand" (20, as published); success is judged on the mean prediction over draws.
      square: False leaves Square out; so do inputs that are no images. A flag then says that no black-box attack ran.
      layout: Square's image layout.
      reference: the published code's quirks (see `APGD`, `FAB`, `Square`), for comparing numbers; the front door's own verdict on
        each returned input stays.

    Cost: standard, per row that survives: 100 + 900 forwards and backwards, 900 more of both, 5000 forwards.
    Edge cases: fewer than 4 classes: the DLR losses fall back and a flag says so. L1: APGD uses larger radii first, 5 restarts
    for CE and 5 targets. `Box`: FAB and Square, which need a norm, are left out and a flag says so.
    Source: Croce and Hein 2020; L1: Croce and Hein 2021.

    Example:
      >>> import jaxsec
      >>> [name for name, _ in jaxsec.AutoAttack().stages("linf")]
      ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """

    version: str = "standard"
    steps: int = 100
    queries: int = 5000
    targets: int = 9
    draws: int = 20
    square: bool = True
    layout: str = "auto"
    reference: bool = False

    def stages(self, norm: str) -> list[tuple[str, Method]]:
        """The methods in order, by name."""
        if self.version not in VERSIONS:
            raise ValueError(f"AutoAttack got version={self.version!r}; allowed: {', '.join(VERSIONS)}.")
        l1 = norm == "l1"
        apgd: dict[str, Any] = {"steps": self.steps, "reference": self.reference, "large_eps": l1}
        if self.version == "rand":
            return [("apgd-ce", APGD(**apgd)), ("apgd-dlr", APGD(loss="dlr", **apgd))]
        plus = self.version == "plus"
        first = APGD(restarts=5 if plus or l1 else 1, **apgd)
        targeted = APGD(targets=min(self.targets, 5) if l1 else self.targets, **apgd)
        fab_t = FAB(steps=self.steps, targets=self.targets, minimise=False, reference=self.reference)
        square = Square(steps=self.queries, layout=self.layout, reference=self.reference)
        if plus:
            fab = FAB(steps=self.steps, restarts=5, minimise=False, reference=self.reference)
            order: list[tuple[str, Method]] = [
                ("apgd-ce", first),
                ("apgd-dlr", APGD(loss="dlr", restarts=5, **apgd)),
                ("fab", fab),
                ("square", square),
                ("apgd-t", targeted),
                ("fab-t", fab_t),
            ]
        else:
            order = [("apgd-ce", first), ("apgd-t", targeted), ("fab-t", fab_t), ("square", square)]
        return [(n, m) for n, m in order if norm in m.norms or n.startswith("apgd") if self.square or n != "square"]

    def missing(self, norm: str) -> tuple[str, ...]:
        """A sentence for each stage of the version that does not run here."""
        notes = []
        if norm == "box" and self.version != "rand":
            notes.append("AutoAttack: FAB and Square need a norm ball and were left out for a Box threat")
        elif not self.square and self.version != "rand":
            notes.append(f"AutoAttack: Square was left out on request: {NO_BLACK_BOX}")
        return tuple(notes)
