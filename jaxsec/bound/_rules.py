"""The table of rules, filled: importing this imports every file that adds to it."""

from . import _rules_affine, _rules_calls, _rules_choice, _rules_curves, _rules_layout, _rules_reduce
from ._graph import RULES

__all__ = ["RULES", "primitives"]
_ = (_rules_affine, _rules_calls, _rules_choice, _rules_curves, _rules_layout, _rules_reduce)


def primitives() -> tuple[str, ...]:
    """Names of the operations (JAX primitives) that a rule bounds, sorted; any other raises `UnsupportedPrimitive`.

    Some have cases that are refused, such as a scatter to places that depend on the input.

    Example:
      >>> from jaxsec.bound import primitives
      >>> "dot_general" in primitives(), "fft" in primitives()
      (True, False)
    """
    return tuple(sorted(RULES))
