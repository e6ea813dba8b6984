"""The table of rules, filled: importing this imports every file that adds to it."""

from . import _rules_affine, _rules_calls, _rules_choice, _rules_curves, _rules_layout, _rules_reduce
from ._graph import RULES

__all__ = ["RULES"]
_ = (_rules_affine, _rules_calls, _rules_choice, _rules_curves, _rules_layout, _rules_reduce)
