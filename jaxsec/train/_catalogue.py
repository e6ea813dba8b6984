"""Every recipe by name: what `jaxsec train --list` prints, and how a recipe is made of words."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..core._struct import is_static
from ..threat import Threat
from ._adversarial import MART, PGDAT, TRADES, Standard
from ._certified import CROWNIBPTraining, IBPTraining
from ._distill import ARD, RSLAD, DefensiveDistillation
from ._fast import FastAT, FreeAT, UniversalAT
from ._lipschitz import LipschitzMargin
from ._macer import MACER
from ._mixup import LabelSmoothing, Mixup
from ._pairing import AdversarialLogitPairing, CleanLogitPairing, LogitSqueezing
from ._recipe import Recipe
from ._regularise import L1Penalty, L2Penalty, SpectralPenalty
from ._slopes import InputGradientPenalty, JacobianPenalty
from ._small_box import MTLIBP, SABR
from ._smoothed import Consistency, GaussianAugmentation, SmoothAdvTraining
from ._temperature import TemperatureTraining
from ._wrap import AWP, Curriculum

_RECIPES = (
    *(Standard, PGDAT, TRADES, MART, FastAT, FreeAT, UniversalAT),
    *(IBPTraining, CROWNIBPTraining, SABR, MTLIBP, LipschitzMargin),
    *(GaussianAugmentation, SmoothAdvTraining, Consistency, MACER),
    *(TemperatureTraining, DefensiveDistillation, ARD, RSLAD),
    *(AdversarialLogitPairing, CleanLogitPairing, LogitSqueezing),
)
_WRAPPERS = (
    *(AWP, Curriculum, Mixup, LabelSmoothing),
    *(L1Penalty, L2Penalty, SpectralPenalty, InputGradientPenalty, JacobianPenalty),
)
RECIPES: dict[str, type[Recipe]] = {cls.name: cls for cls in _RECIPES}
WRAPPERS: dict[str, type[Recipe]] = {cls.name: cls for cls in _WRAPPERS}

_OBJECTS = ("threat", "teacher", "recipe", "strength")  # fields that no text can give


def recipe_named(name: str, *, threat: Threat | None = None, teacher: Any = None, settings: Mapping[str, str] | None = None) -> Recipe:
    """The recipe called `name`, with settings given as text.

    Args:
      name: one of `RECIPES`, and after a + what is put around it, one of `WRAPPERS`: "trades+awp", "standard+mixup+l2".
      threat, teacher: for recipes that have one.
      settings: field -> value, as in {"beta": "3", "steps": "5"}; of one part of several by its name, as in {"awp.start": "0.5"}.
    Raises: ValueError: no such recipe, no such setting, a value of another kind, a missing setting, threat or teacher.

    Example:
      >>> import jaxsec
      >>> from jaxsec.train import recipe_named
      >>> recipe_named("trades", threat=jaxsec.LInf(eps=0.1), settings={"beta": "3"}).beta
      3.0
      >>> recipe_named("trades+awp", threat=jaxsec.LInf(eps=0.1), settings={"gamma": "0.01", "trades.beta": "3"}).gamma
      0.01
    """
    parts = parts_of(name)
    given = _sorted(parts, settings or {})
    made: Any = None
    for part in parts:
        fields, cls = fields_of(part), class_of(part)
        own = {field: _value(part, field, text, fields[field], whole=is_static(cls, field)) for field, text in given[part].items()}
        for field, value, what in (("threat", threat, "a threat"), ("teacher", teacher, "a teacher")):
            if field in fields:
                if value is None and fields[field].default is dataclasses.MISSING:
                    raise ValueError(f"the recipe {part} needs {what}, and none was given.")
                own[field] = value
        if "recipe" in fields:
            own["recipe"] = made
        missing = [f for f in fields.values() if f.name not in own and f.default is dataclasses.MISSING]
        if missing:
            raise ValueError(
                f"the recipe {part} needs a value for {missing[0].name}, such as {missing[0].name}={_EXAMPLE[missing[0].name]}."
            )
        made = cls(**own)
    return made


# Of settings without a default: there is no value that fits every data set.
_EXAMPLE = {"sigma": "0.25", "weight": "0.001"}


def parts_of(name: str) -> list[str]:
    """The recipe and what is put around it, from the inside out; ValueError for names that are none."""
    parts = [part.strip() for part in name.split("+")]
    if parts[0] not in RECIPES:
        near = _near(parts[0], RECIPES)
        if parts[0] in WRAPPERS:
            inner = next((part for part in parts[1:] if part in RECIPES), "pgd-at")
            near = f"; {parts[0]} goes around another one, as in {'+'.join([inner, *(p for p in parts if p in WRAPPERS)])}"
        raise ValueError(f"the recipe is {parts[0]!r}{near}; allowed: {', '.join(sorted(RECIPES))}.")
    for part in parts[1:]:
        if part not in WRAPPERS:
            raise ValueError(
                f"the recipe {name!r} has {part!r} after a +{_near(part, WRAPPERS)}; allowed there: {', '.join(sorted(WRAPPERS))}."
            )
    if len(set(parts)) < len(parts):
        raise ValueError(f"the recipe {name!r} names a part twice; each may be there once.")
    return parts


def _near(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def class_of(part: str) -> type[Recipe]:
    """The class of a recipe or of what goes around one."""
    return RECIPES.get(part) or WRAPPERS[part]


def fields_of(part: str) -> dict[str, Any]:
    """The dataclass fields of a part, by name."""
    return {f.name: f for f in dataclasses.fields(class_of(part))}  # pyright: ignore[reportArgumentType]


def settings_of(part: str) -> dict[str, Any]:
    """The settings of a part that text can give, and their defaults; `dataclasses.MISSING` where there is none."""
    return {name: f.default for name, f in fields_of(part).items() if name not in _OBJECTS}


def takes(name: str, field: str) -> bool:
    """Whether a part of the recipe called `name` has that field; False for an unknown name."""
    try:
        return any(field in fields_of(part) for part in parts_of(name))
    except ValueError:
        return False


def _sorted(parts: list[str], settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Each part's own settings."""
    found: dict[str, dict[str, str]] = {part: {} for part in parts}
    for key, text in settings.items():
        owner, dot, field = key.rpartition(".")
        having = [part for part in parts if field in settings_of(part) and (not dot or part == owner)]
        if not having:
            every = [f"{part}.{f}" if len(parts) > 1 else f for part in parts for f in settings_of(part)]
            near = _near(key, every)
            raise ValueError(f"the recipe {'+'.join(parts)} has no setting {key!r}{near}; allowed: {', '.join(every) or 'none'}.")
        if len(having) > 1:
            raise ValueError(f"{key!r} is a setting of {' and of '.join(having)}; say which, as in {having[0]}.{field}={text}.")
        found[having[0]][field] = text
    return found


def _value(part: str, field: str, text: str, of: Any, *, whole: bool) -> Any:
    """The text as a value of the default's kind."""
    default = of.default
    if text.lower() == "none" and (default is None or "None" in str(of.type)):
        return None
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{part} got {field}={text!r}; allowed: true, false.")
        return text.lower() == "true"
    if isinstance(default, str):
        return text
    kind = int if whole and isinstance(default, int) else float
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{part} got {field}={text!r}; {'a whole number' if kind is int else 'a number'} is needed.")
    return value
