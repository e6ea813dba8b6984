"""The commands of a file, one after the other: declarations, asserts, and those that are skipped."""

from ..core._plural import plural
from ._vnnlib_formula import Choices, Row, conjuncts, formula, tighten
from ._vnnlib_scope import Scope
from ._vnnlib_source import Source
from ._vnnlib_tokens import Atom, Form, Node, forms, shown

IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "get-info", "get-value", "echo", "exit")
ALLOWED = "declare-const, declare-fun, assert, set-logic, check-sat, get-model"
VERSION_2 = ("vnnlib-version", "declare-network", "declare-input", "declare-output", "declare-hidden")


class Asserts:
    """What all asserts say together: bounds and rows that always hold, and choices still to be multiplied out.

    `bounds` is kept apart from the choices, which would otherwise each carry the whole box of an image.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.bounds: dict[int, tuple[float, float]] = {}
        self.rows: list[Row] = []
        self.choices: list[Choices] = []
        self._bounded_at: dict[tuple[int, int], int] = {}  # (input, 0 lower or 1 upper) -> offset of the assert

    def add(self, node: Node, choices: Choices) -> None:
        """One more formula that must hold; `node` is its text, for messages."""
        if isinstance(node, Form) and node.head == "or":  # also with one choice left: what contradicts the box is dropped, not an error
            self.choices.append(choices)
            return
        if not choices:
            raise self.source.error(
                node.at, "this can never hold, so the property says nothing; allowed are constraints with a solution; correct it"
            )
        bounds = choices[0].bounds
        if (i := tighten(self.bounds, bounds)) is not None:
            self._refuse(i, bounds[i], node.at)
        for i, (lo, hi) in bounds.items():
            if self.bounds[i][0] == lo:
                self._bounded_at[i, 0] = node.at
            if self.bounds[i][1] == hi:
                self._bounded_at[i, 1] = node.at
        self.rows.extend(choices[0].rows)

    def _refuse(self, i: int, new: tuple[float, float], at: int) -> None:
        lo, hi = self.bounds[i]
        other = self._bounded_at.get((i, 1 if lo == new[0] else 0), at)
        raise self.source.error(
            at,
            f"X_{i} has the lower bound {lo!r} above its upper bound {hi!r} (the other one is in line {self.source.line(other)}); "
            "allowed is lower <= upper; correct one of them",
        )


def run(source: Source) -> tuple[Scope, Asserts]:
    """All commands of a file."""
    scope, asserts = Scope(source), Asserts(source)
    for form in forms(source):
        head = form.head
        if head == "assert":
            if len(form.items) != 2:
                raise source.error(form.at, f"(assert ...) has {plural(len(form.items) - 1, 'argument')}; allowed: exactly 1; use 'and'")
            for node in conjuncts(form.items[1], source):
                asserts.add(node, formula(node, scope))
        elif head in ("declare-const", "declare-fun"):
            _declare(form, scope)
        elif head not in IGNORED:
            _refuse(form, source)
    return scope, asserts


def _declare(form: Form, scope: Scope) -> None:
    rest = form.items[1:]
    wanted = "(declare-const X_0 Real)" if form.head == "declare-const" else "(declare-fun X_0 () Real)"
    arguments = [node for node in rest if isinstance(node, Form)]
    atoms = [node for node in rest if isinstance(node, Atom)]
    right_forms = [form.items[2]] if form.head == "declare-fun" and len(form.items) > 2 else []
    if len(atoms) != 2 or arguments != right_forms or any(node.items for node in arguments):
        raise scope.source.error(form.at, f"a declaration that is none; allowed is {wanted}; write it so")
    name, sort = atoms
    if sort.text != "Real":
        raise scope.source.error(sort.at, f"{shown(name.text)} has the type {shown(sort.text)}; allowed is Real; declare it as Real")
    scope.declare(name)


def _refuse(form: Form, source: Source) -> None:
    if not form.head:
        raise source.error(form.at, f"a command is missing after '('; allowed are {ALLOWED}; add one, or delete the parentheses")
    remedy = "delete it" if form.head not in VERSION_2 else "this looks like VNNLIB 2.0: convert it to 1.0"
    if form.head in ("<=", ">=", "<", ">", "=", "and", "or"):
        remedy = f"write (assert ({form.head} ...))"
    raise source.error(form.items[0].at, f"unknown command {shown(form.head)}; allowed are {ALLOWED}; {remedy}")
