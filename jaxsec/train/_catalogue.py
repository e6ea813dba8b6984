"""Every recipe by name: what `jaxsec train --list` prints, and how a recipe is made of words."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core._struct import is_static
from ..threat import Threat
from ._adversarial import MART, PGDAT, TRADES, Standard
from ._fast import FastAT, FreeAT, UniversalAT
from ._recipe import Recipe

RECIPES: dict[str, type[Recipe]] = {cls.name: cls for cls in (Standard, PGDAT, TRADES, MART, FastAT, FreeAT, UniversalAT)}


def recipe_named(name: str, *, threat: Threat | None = None, teacher: Any = None, settings: Mapping[str, str] | None = None) -> Recipe:
    """The recipe called `name`, with settings given as text.

    Args: threat, teacher: for recipes that have one. settings: field -> value, as in {"beta": "3", "steps": "5"}.
    Raises: ValueError: no such recipe, no such setting, a value of another kind, or a missing threat or teacher.

    Example:
      >>> import jaxsec
      >>> from jaxsec.train import recipe_named
      >>> recipe_named("trades", threat=jaxsec.LInf(eps=0.1), settings={"beta": "3"}).beta
      3.0
    """
    cls = RECIPES.get(name)
    if cls is None:
        raise ValueError(f"the recipe is {name!r}; allowed: {', '.join(sorted(RECIPES))}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    given: dict[str, Any] = {}
    for field, value, what in (("threat", threat, "a threat"), ("teacher", teacher, "a teacher")):
        if field in fields:
            if value is None and fields[field].default is dataclasses.MISSING:
                raise ValueError(f"the recipe {name} needs {what}, and none was given.")
            given[field] = value
    open_ = [f for f in fields if f not in ("threat", "teacher", "recipe", "recipes")]
    for key, text in (settings or {}).items():
        if key not in open_:
            raise ValueError(f"the recipe {name} has no setting {key!r}; allowed: {', '.join(open_) or 'none'}.")
        given[key] = _value(name, key, text, fields[key].default, whole=is_static(cls, key))
    return cls(**given)


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a recipe and their defaults."""
    fields = dataclasses.fields(RECIPES[name])  # pyright: ignore[reportArgumentType]
    return {f.name: f.default for f in fields if f.name not in ("threat", "teacher") and f.default is not dataclasses.MISSING}


def takes(name: str, field: str) -> bool:
    """Whether the recipe called `name` has that field; False for an unknown name."""
    return name in RECIPES and field in {f.name for f in dataclasses.fields(RECIPES[name])}  # pyright: ignore[reportArgumentType]


def _value(recipe: str, key: str, text: str, default: Any, *, whole: bool) -> Any:
    """The text as a value of the default's kind."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{recipe} got {key}={text!r}; allowed: true, false.")
        return text.lower() == "true"
    if isinstance(default, str):
        return text
    kind = int if whole and isinstance(default, int) else float
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{recipe} got {key}={text!r}; {'a whole number' if kind is int else 'a number'} is needed.") from None
