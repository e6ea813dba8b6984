"""What `jaxsec train` was asked for, kept beside the run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

ASKED = "asked.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The command's options as they were typed, None where they were not.

    A copy stays in the folder, so that a call that does not fit the run there can be told in which option.
    """

    recipe: str | None
    threat: str | None
    eps: str | None
    out: Path
    net: str | None
    settings: tuple[str, ...]
    teacher: str | None
    epochs: str | None
    batch_size: str | None
    learning_rate: str | None
    weight_decay: str | None
    average: str | None
    warm_up: str | None
    shift: str | None
    flip: bool
    validation: str | None
    hold_out: str | None
    patience: str | None
    tensorboard: bool
    fresh: bool
    seed: str | None
    quiet: bool

    def typed(self, words: dict[str, Any]) -> dict[str, Any]:
        """Option -> value of all that decide about the run, those about the data included."""
        aside = {"out", "tensorboard", "fresh", "quiet", "settings"}
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in aside}
        given = {f"--{name.replace('_', '-')}": str(value) for name, value in {**own, **words}.items() if value not in (None, False, ())}
        return given | ({"--set": " ".join(sorted(self.settings))} if self.settings else {})

    def keep(self, words: dict[str, Any]) -> None:
        """Writes what was typed for the run that begins."""
        (self.out / ASKED).write_text(json.dumps(self.typed(words), indent=2) + "\n")

    def differing(self, words: dict[str, Any]) -> str:
        """Options whose values are not those of the run in the folder, and both values; empty where none differs."""
        if (there := read(self.out)) is None:
            return "what it was asked for is not known here; was it jaxsec.fit that wrote there?"
        now = self.typed(words)
        changed = [name for name in {**there, **now} if there.get(name) != now.get(name)]
        return "; ".join(f"{name}: {there.get(name, 'not given')} there, {now.get(name, 'not given')} now" for name in changed)


def read(out: Path) -> dict[str, Any] | None:
    """What was typed for the run in the folder; None where nothing readable stands there."""
    try:
        found = json.loads((out / ASKED).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
