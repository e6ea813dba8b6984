"""The declared variables: X_i are inputs, Y_j outputs."""

import re

from ..core._plural import plural
from ._vnnlib_source import Source
from ._vnnlib_tokens import Atom, shown

NAME = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
INPUTS, OUTPUTS = "XY"


class Scope:
    """Names on their way to numbers: `i` stands for X_i and `~i`, which is negative, for Y_i."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.variables: dict[str, int] = {}
        self.declared_at: dict[int, int] = {}
        self.outputs_asserted = False

    def declare(self, atom: Atom) -> int:
        match = NAME.fullmatch(atom.text)
        if match is None:
            raise self.source.error(
                atom.at, f"{shown(atom.text)} is no variable; allowed are X_0, X_1, ... for inputs and Y_0, Y_1, ... for outputs; rename it"
            )
        if atom.text in self.variables:
            line = self.source.line(self.declared_at[self.variables[atom.text]])
            raise self.source.error(atom.at, f"{atom.text} is declared again (first in line {line}); allowed is once; delete one")
        index = int(match[2])
        variable = index if match[1] == INPUTS else ~index
        self.variables[atom.text] = variable
        self.declared_at[variable] = atom.at
        return variable

    def variable(self, atom: Atom) -> int:
        """The number of a variable in an assert; raises for what is not declared and for what is no name."""
        variable = self.variables.get(atom.text)
        if variable is not None:
            self.outputs_asserted |= variable < 0
            return variable
        if NAME.fullmatch(atom.text):
            raise self.source.error(
                atom.at,
                f"{atom.text} is not declared; allowed are variables declared above, of inputs and outputs that the network has; "
                f"correct it, or declare it: (declare-const {atom.text} Real)",
            )
        remedy = "correct the name"
        if atom.text[0] in "+-" and NAME.fullmatch(atom.text[1:]):
            remedy = f"write ({atom.text[0]} {atom.text[1:]})"
        elif atom.text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
            remedy = "give a finite number"
        raise self.source.error(atom.at, f"unknown symbol {shown(atom.text)}; allowed are numbers and declared X_i and Y_j; {remedy}")

    def count(self, letter: str) -> int:
        """How many are declared; raises unless they are 0, 1, 2, ... without a gap."""
        inputs = letter == INPUTS
        found = sorted(v if inputs else ~v for v in self.declared_at if (v >= 0) == inputs)
        for expected, index in enumerate(found):
            if index != expected:
                at = self.declared_at[index if inputs else ~index]
                raise self.source.error(
                    at,
                    f"{letter}_{index} is declared, but {letter}_{expected} is not; allowed are indices 0, 1, 2, ... without a gap; "
                    f"declare {letter}_{expected} too",
                )
        return len(found)

    def require(self, letter: str, noun: str, wanted: int | None) -> int:
        """`count`, which must be above 0 and, where the network's number is known, equal to it."""
        n = self.count(letter)
        if n == 0:
            raise self.source.error(
                0, f"no {noun} is declared; needed is {letter}_0 at least; add (declare-const {letter}_0 Real). Is this a VNNLIB file?"
            )
        if wanted is not None and wanted != n:
            last = self.declared_at[n - 1 if letter == INPUTS else ~(n - 1)]
            raise self.source.error(
                last,
                f"the network has {plural(wanted, noun)}, the property declares {n}: allowed is the same number; "
                "take the property that was written for this network",
            )
        return n
