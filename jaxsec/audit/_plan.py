"""`Plan`: how much an audit does; presets, and the TOML file that changes single settings."""

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any

from ..bound import wrong_names

PROBES = ("clean", "noise", "sweep", "attack", "blackbox", "distance", "certify", "smooth")
ATTACKS = ("standard", "plus", "rand")

# Settings of a run that a plan file may also give; the command line has options of the same names.
RUN_KEYS = ("threat", "eps", "seed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What an audit measures, and how hard it looks. Every value is printed in the report.

    Args:
      preset: the name printed in the report; `Plan.preset_of("quick")` gives the values that belong to it.
      probes: which of "clean", "noise", "sweep", "attack", "blackbox", "distance", "certify", "smooth" run; "clean" always does.
      rows: rows audited, drawn at random from the data by the audit's key; 0 means all.
      confidence: of every interval.
      fail_under: least robust accuracy that passes, in [0, 1]; None means that no limit is checked.
      noise_draws: uniform points of the threat set per row.
      sweep: budgets as multiples of eps, from 0 up. sweep_steps, sweep_restarts: of the PGD that draws the curve.
      attack: AutoAttack's version, "standard", "plus" or "rand". attack_steps, attack_queries, attack_targets: its settings; only
        100, 5000 and 9 are AutoAttack as published, anything less is reported as reduced.
      blackbox_queries: queries per row of Square on its own.
      distance_steps: steps of FAB, which measures how far the nearest adversarial input is.
      certify: names of the bound methods of the certified curve, from cheap to dear: "ibp", "crown-ibp", "forward", "crown", "alpha-crown",
        "beta-crown"; none of them, no curve; "auto": IBP, then CROWN, or CROWN-IBP for models on which CROWN would be dearer than the
        attacks.
      certify_timeout: seconds of work for each row and budget that "beta-crown" works on, compilation not counted; how many rows it
        decides depends on the machine.
      certify_sound: count all rounding of floating point; about twice the work.
      smooth_sigma: scale of the Gaussian noise, in units of the data, of the smoothed classifier; 0: nothing is smoothed. smooth_samples,
        smooth_alpha: samples of each row, and the probability of a wrong certificate. smooth_steps, smooth_noises: of the attack on it.
      examples: worst inputs shown. layout: "auto", "chw", "hwc" or "hw", of image rows. max_rows: rows worked on at once.

    Example:
      >>> from jaxsec.audit import Plan
      >>> Plan.preset_of("quick").replace(fail_under=0.4).attack_steps
      20
    """

    preset: str = "standard"
    probes: tuple[str, ...] = PROBES
    rows: int = 1000
    confidence: float = 0.95
    fail_under: float | None = None
    noise_draws: int = 20
    sweep: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    sweep_steps: int = 40
    sweep_restarts: int = 1
    attack: str = "standard"
    attack_steps: int = 100
    attack_queries: int = 5000
    attack_targets: int = 9
    blackbox_queries: int = 1000
    distance_steps: int = 50
    certify: tuple[str, ...] = ("auto",)
    certify_timeout: float = 10.0
    certify_sound: bool = False
    smooth_sigma: float = 0.0
    smooth_samples: int = 10_000
    smooth_alpha: float = 0.001
    smooth_steps: int = 20
    smooth_noises: int = 32
    examples: int = 8
    layout: str = "auto"
    max_rows: int = 512

    @classmethod
    def preset_of(cls, name: str) -> "Plan":
        """The plan called "quick", "standard" or "full"; `ValueError` for another name."""
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"preset is {name!r}; allowed: {', '.join(PRESETS)}.")
        return cls(preset=name, **PRESETS[name])

    def replace(self, **changes: Any) -> "Plan":
        """A copy with the named settings changed; unknown names and unusable values raise `ValueError`."""
        names = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise ValueError(f"a plan has no setting {name!r}{_nearest(name, names)}; allowed: {', '.join(names)}.")
        fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
        plan = dataclasses.replace(self, **fixed)
        plan.check()
        return plan

    def check(self) -> None:
        """Raises `ValueError` where a setting cannot be used; the message names it, its value and what is allowed."""
        for name in ("noise_draws", "sweep_steps", "sweep_restarts", "attack_steps", "attack_queries", "attack_targets", "max_rows"):
            _whole(name, getattr(self, name), 1)
        for name in ("smooth_samples", "smooth_steps", "smooth_noises"):
            _whole(name, getattr(self, name), 1)
        for name in ("rows", "examples", "blackbox_queries", "distance_steps"):
            _whole(name, getattr(self, name), 0 if name in ("rows", "examples") else 1)
        _number("confidence", self.confidence, 0.5, 0.9999)
        if self.fail_under is not None:
            _number("fail_under", self.fail_under, 0.0, 1.0)
        if not isinstance(self.probes, tuple) or not self.probes or any(p not in PROBES for p in self.probes):
            raise ValueError(f"probes is {_shown(self.probes)}; allowed is a list of {', '.join(PROBES)}.")
        if not isinstance(self.sweep, tuple) or not self.sweep:
            raise ValueError(f"sweep is {_shown(self.sweep)}; needed: a list of multiples of eps, such as [0, 0.5, 1, 2].")
        for multiple in self.sweep:
            _number("sweep", multiple, 0.0, 1e6)
        if list(self.sweep) != sorted(set(self.sweep)):
            raise ValueError(f"sweep is {list(self.sweep)}; the multiples of eps must rise and none may come twice.")
        if self.attack not in ATTACKS:
            raise ValueError(f"attack is {_shown(self.attack)}; allowed: {', '.join(ATTACKS)}.")
        if not isinstance(self.certify, tuple):
            raise ValueError(f'certify is {_shown(self.certify)}; a list is needed: ["ibp", "crown"], ["auto"], or [] for no certificates.')
        if self.certify != ("auto",) and (wrong := wrong_names(self.certify)):
            raise ValueError(f"certify is {_shown(self.certify)}; {wrong}.")
        _number("certify_timeout", self.certify_timeout, 0.001, 1e6)
        if not isinstance(self.certify_sound, bool):
            raise ValueError(f"certify_sound is {_shown(self.certify_sound)}; true or false is needed.")
        _number("smooth_sigma", self.smooth_sigma, 0.0, 1e6)
        _number("smooth_alpha", self.smooth_alpha, 1e-9, 0.5)
        if self.layout not in ("auto", "chw", "hwc", "hw"):
            raise ValueError(f"layout is {_shown(self.layout)}; allowed: auto, chw, hwc, hw.")

    @property
    def reduced(self) -> bool:
        """Whether the attack is weaker than AutoAttack as published."""
        return self.attack_steps < 100 or self.attack_queries < 5000 or self.attack_targets < 9


PLAN_KEYS = [*(f.name for f in dataclasses.fields(Plan)), *RUN_KEYS]

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "rows": 200,
        "noise_draws": 10,
        "sweep": (0.0, 0.5, 1.0, 2.0),
        "sweep_steps": 10,
        "attack_steps": 20,
        "attack_queries": 300,
        "attack_targets": 3,
        "blackbox_queries": 300,
        "distance_steps": 20,
        "examples": 6,
    },
    "standard": {},
    "full": {
        "rows": 0,
        "noise_draws": 100,
        "sweep_steps": 100,
        "sweep_restarts": 5,
        "attack": "plus",
        "blackbox_queries": 5000,
        "distance_steps": 100,
    },
}


def read_plan(path: str | os.PathLike[str], *, preset: str | None = None) -> tuple[Plan, dict[str, Any]]:
    """Reads a plan file: TOML with a plan's settings, `preset`, and `threat`, `eps`, `seed` of the run.

    Args: preset: overrides the file's own preset, whose values the file's other settings then change.
    Returns: the plan, and those of `threat`, `eps`, `seed` that the file gives.
    Raises: FileNotFoundError; ValueError: no TOML, an unknown key (the message names the nearest and all allowed), a bad value.
    """
    import tomllib

    path = Path(path)
    if not path.is_file():
        said = f"the plan {path} is a folder; a TOML file is needed." if path.is_dir() else f"there is no plan file {path}."
        raise FileNotFoundError(said)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable TOML: {error}.") from error
    run = {k: given.pop(k) for k in RUN_KEYS if k in given}
    try:
        base = Plan.preset_of(preset or given.pop("preset", "standard"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if preset is None else str(error)) from error
    given.pop("preset", None)
    for key, value in given.items():
        if key in PLAN_KEYS:
            continue
        if isinstance(value, dict):
            raise ValueError(f"{path} has the section [{key}]; a plan has none: write its settings without, such as rows = 500.")
        raise ValueError(f"{path} has the unknown key {key!r}{_nearest(key, PLAN_KEYS)}; allowed: {', '.join(PLAN_KEYS)}.")
    try:
        return base.replace(**given), run
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _shown(value: Any) -> str:
    """As the plan file has it: a list, though a plan keeps tuples."""
    return repr(list(value) if isinstance(value, tuple) else value)


def _whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {_shown(value)}; a whole number of at least {least} is needed.")


def _number(name: str, value: Any, least: float, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {_shown(value)}; a number from {least:g} to {most:g} is needed.")
