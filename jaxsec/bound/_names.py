"""Bound methods by name, as a command line or a plan file says them."""

from collections.abc import Sequence

from ._alpha import AlphaCROWN
from ._beta_crown import BetaCROWN
from ._forward_linear import ForwardLinear
from ._method import CROWN, CROWNIBP, IBP, BoundMethod

METHODS: dict[str, type[BoundMethod]] = {m.name: m for m in (IBP, CROWNIBP, ForwardLinear, CROWN, AlphaCROWN, BetaCROWN)}  # cheapest first
ALLOWED = "allowed: " + ", ".join(f"{m.__name__}()" for m in METHODS.values())  # for messages about objects in place of names


def wrong_names(names: Sequence[str]) -> str:
    """What is wrong with a ladder of names, as a clause for a message; "" where nothing is."""
    if unknown := [name for name in names if name not in METHODS]:
        missing = f"{unknown[0]!r} is no method" if unknown[0] else "a name is missing"
        return f"{missing}; allowed: {', '.join(METHODS)}, one or several, cheapest first"
    twice = [name for name in names if names.count(name) > 1]
    return f"it has {twice[0]} twice, and the second run would prove no more: leave it out" if twice else ""


def by_name(names: Sequence[str]) -> list[BoundMethod]:
    """The methods of those names with their default settings; `ValueError` where one is unknown or comes twice.

    Example:
      >>> from jaxsec.bound import by_name
      >>> by_name(["ibp", "crown"])
      [IBP(), CROWN()]
    """
    if wrong := wrong_names(names):
        raise ValueError(f"the methods are {list(names)}; {wrong}.")
    return [METHODS[name]() for name in names]
