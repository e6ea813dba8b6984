"""Formulas as a disjunction of conjunctions: comparisons, `and`, `or` at any depth."""

import math
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from ..core._plural import plural
from ._vnnlib_scope import Scope
from ._vnnlib_source import Source
from ._vnnlib_terms import ARITHMETIC, NUMBER, Linear, added, arithmetic, nearest, term
from ._vnnlib_tokens import Atom, Form, Node, shown

COMPARISONS = ("<=", ">=", "<", ">", "=")
CONNECTIVES = ("and", "or")
MOST_CLAUSES = 100_000
MOST_CONSTRAINTS = 10_000_000
MOST_PAIRS = 10_000_000  # tried in one product, also where most of them contradict each other
FREE = (float("-inf"), float("inf"))


class Row(NamedTuple):
    """`sum of coefficient * variable <= bound`, in float64."""

    terms: tuple[tuple[int, float], ...]
    bound: float


class Conjunction(NamedTuple):
    """All of it holds: `bounds[i] = (lo, hi)` of single inputs, and rows."""

    bounds: dict[int, tuple[float, float]]
    rows: tuple[Row, ...]


Choices = list[Conjunction]  # at least one of them holds; none: false. One without bounds and rows: true


def evaluate(node: Node, scope: Scope) -> Linear | Choices:
    """The value of a term or formula. Children come first, on a stack of our own: Python's would end at a depth of 1,000."""
    todo: list[tuple[Node, list[Node] | None]] = [(node, None)]
    done: list[Linear | Choices] = []
    while todo:
        node, nodes = todo.pop()
        if isinstance(node, Atom):
            done.append(term(node, scope))
        elif nodes is None and (bound := _plain_bound(node, scope)) is not None:
            done.append([bound])
        elif nodes is None:
            nodes = _arguments(node, scope.source)
            todo.append((node, nodes))
            todo.extend((child, None) for child in reversed(nodes))
        else:
            values = done[len(done) - len(nodes) :]
            del done[len(done) - len(nodes) :]
            done.append(_applied(node, nodes, values, scope.source))
    return done[0]


def formula(node: Node, scope: Scope) -> Choices:
    """`evaluate`, for a place where a formula must stand."""
    value = evaluate(node, scope)
    return _formulas([node], [value], scope.source)[0]


def conjuncts(node: Node, source: Source) -> list[Node]:
    """The formulas that must all hold for `node` to hold."""
    return _arguments(node, source) if isinstance(node, Form) and node.head == "and" else [node]


def tighten(bounds: dict[int, tuple[float, float]], more: dict[int, tuple[float, float]]) -> int | None:
    """Narrows `bounds` by `more` in place; the first input that has no value left, if there is one."""
    for i, (lo, hi) in more.items():
        old_lo, old_hi = bounds.get(i, FREE)
        bounds[i] = lo, hi = max(lo, old_lo), min(hi, old_hi)
        if lo > hi:
            return i
    return None


def product(factors: list[Choices], at: int, source: Source) -> Choices:
    """One choice of every factor at once, without those whose bounds contradict each other."""
    result: Choices = [Conjunction({}, ())]
    for factor in factors:
        if len(result) * len(factor) > MOST_PAIRS:
            raise _too_large(at, source)
        merged: Choices = []
        size = 0
        for a in result:
            for b in factor:
                bounds = dict(a.bounds)
                if tighten(bounds, b.bounds) is None:
                    merged.append(Conjunction(bounds, a.rows + b.rows))
                    size += len(bounds) + len(merged[-1].rows)
                    if len(merged) > MOST_CLAUSES or size > MOST_CONSTRAINTS:
                        raise _too_large(at, source)
        result = merged
    return result


def _plain_bound(form: Form, scope: Scope) -> Conjunction | None:
    """`(<= X_i number)` and `(>= X_i number)`, of which an image has thousands: the same result, without fractions."""
    if len(form.items) != 3 or form.head not in ("<=", ">="):
        return None
    _, name, value = form.items
    if not isinstance(name, Atom) or not isinstance(value, Atom) or NUMBER.fullmatch(value.text) is None:
        return None
    variable, end = scope.variables.get(name.text, -1), float(value.text) + 0.0  # -0.0 becomes 0.0, as a fraction would
    if variable < 0 or math.isinf(end):
        return None
    return Conjunction({variable: (FREE[0], end) if form.head == "<=" else (end, FREE[1])}, ())


def _arguments(form: Form, source: Source) -> list[Node]:
    """The arguments; those of an `and` in an `and`, or an `or` in an `or`, as its own: else deep chains would be copied at every level."""
    arguments: list[Node] = []
    todo: list[Node] = [form]
    while todo:
        node = todo.pop()
        if isinstance(node, Form) and (node is form or (node.head == form.head and node.head in CONNECTIVES)):
            _check_head(node, source)
            todo.extend(reversed(node.items[1:]))
        else:
            arguments.append(node)
    return arguments


def _check_head(form: Form, source: Source) -> None:
    head, n = form.head, len(form.items) - 1
    if head in COMPARISONS:
        fewest, most = 2, None
    elif head == "/":
        fewest, most = 2, 2
    elif head in ARITHMETIC or head in CONNECTIVES:
        fewest, most = 1, None
    else:
        allowed = " ".join((*CONNECTIVES, *COMPARISONS, *ARITHMETIC))
        if not form.items or not isinstance(form.items[0], Atom):
            raise source.error(form.at, f"an operator is missing after '('; allowed are {allowed}; add one, or delete the parentheses")
        remedy = (
            "close the form before it: a ')' is missing" if head in ("assert", "declare-const", "declare-fun") else "rewrite it with these"
        )
        raise source.error(form.items[0].at, f"unknown operator {shown(head)}; allowed are {allowed}; {remedy}")
    if n < fewest or (most is not None and n > most):
        wanted = f"exactly {fewest}" if most == fewest else f"at least {fewest}"
        raise source.error(form.at, f"({head} ...) has {plural(n, 'argument')}; allowed: {wanted}; correct the form")


def _applied(form: Form, nodes: list[Node], values: list[Linear | Choices], source: Source) -> Linear | Choices:
    if form.head in ARITHMETIC:
        return arithmetic(form, _linear(form, nodes, values, source), source)
    if form.head in COMPARISONS:
        pairs = pairwise(_linear(form, nodes, values, source))
        return _all([_compared(form, a, b, source) for a, b in pairs], form.at, source)
    choices = _formulas(nodes, values, source)
    if form.head == "and":
        return _all(choices, form.at, source)
    if sum(map(len, choices)) > MOST_CLAUSES:
        raise _too_large(form.at, source)
    return [conjunction for choice in choices for conjunction in choice]


def _compared(form: Form, left: Linear, right: Linear, source: Source) -> Choices:
    """`left op right` as rows `... <= 0`; `<` and `>` are read as `<=` and `>=` (why: see `load_vnnlib`)."""
    difference = added(Linear(dict(left.terms), left.constant), right, Fraction(-1))
    bounds: dict[int, tuple[float, float]] = {}
    rows: list[Row] = []
    for sign in {"<": (1,), ">": (-1,), "=": (1, -1)}[form.head[0]]:
        limit = -sign * difference.constant
        if not difference.terms:
            if limit < 0:
                return []
            continue
        (variable, coefficient), *others = difference.terms.items()
        if not others and variable >= 0:
            end = nearest(limit / (sign * coefficient), form.at, source)
            if tighten(bounds, {variable: (FREE[0], end) if sign * coefficient > 0 else (end, FREE[1])}) is not None:
                return []
            continue
        terms = tuple((v, nearest(sign * c, form.at, source)) for v, c in difference.terms.items())
        rows.append(Row(terms, nearest(limit, form.at, source)))
    return [Conjunction(bounds, tuple(rows))]


def _all(choices: list[Choices], at: int, source: Source) -> Choices:
    """And: what has one choice only is merged in one pass, then multiplied with the rest."""
    bounds: dict[int, tuple[float, float]] = {}
    rows: list[Row] = []
    for choice in choices:
        if not choice or (len(choice) == 1 and tighten(bounds, choice[0].bounds) is not None):
            return []
        if len(choice) == 1:
            rows.extend(choice[0].rows)
    single: Choices = [Conjunction(bounds, tuple(rows))]
    return product([single, *(choice for choice in choices if len(choice) > 1)], at, source)


def _linear(form: Form, nodes: list[Node], values: list[Linear | Choices], source: Source) -> list[Linear]:
    for node, value in zip(nodes, values, strict=True):
        if not isinstance(value, Linear):
            raise source.error(
                node.at,
                f"a formula stands in ({form.head} ...); allowed are numbers, variables and terms; move the parenthesis or the operator",
            )
    return [value for value in values if isinstance(value, Linear)]


def _formulas(nodes: list[Node], values: list[Linear | Choices], source: Source) -> list[Choices]:
    for node, value in zip(nodes, values, strict=True):
        if isinstance(value, Linear):
            raise source.error(
                node.at,
                f"a number or term stands where a formula must; allowed are {' '.join(COMPARISONS)} and or; compare it with something",
            )
    return [value for value in values if not isinstance(value, Linear)]


def _too_large(at: int, source: Source) -> ValueError:
    return source.error(
        at,
        f"written out, the property has over {MOST_CLAUSES:,} clauses or {MOST_CONSTRAINTS:,} constraints; allowed is less; "
        "split it into several files, one for each part of the outer 'or'",
    )
