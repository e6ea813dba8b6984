"""Linear terms over inputs and outputs, in exact arithmetic."""

import re
from fractions import Fraction
from typing import NamedTuple

from ._vnnlib_scope import Scope
from ._vnnlib_source import Source
from ._vnnlib_tokens import Atom, Form, shown

ARITHMETIC = ("+", "-", "*", "/")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LOOKS_LIKE_A_NUMBER = re.compile(r"[+-]*\.?[0-9]")
_BITS = 1 << 16  # of one fraction: chains of products and quotients grow without end, and time with them
_ONE = Fraction(1)
_ZERO = Fraction(0)


class Linear(NamedTuple):
    """`sum of terms[v] * v, plus constant`; variables are the numbers of `Scope`, and no coefficient is 0.

    Exact, because floats would round in the order in which a file happens to write things: X_0 - 0.1 <= 0.2 bounds X_0 by the float64
    nearest to 0.3, not by 0.1 + 0.2 = 0.30000000000000004.
    """

    terms: dict[int, Fraction]
    constant: Fraction


def term(atom: Atom, scope: Scope) -> Linear:
    """The term of one atom: a number or a declared variable."""
    if _LOOKS_LIKE_A_NUMBER.match(atom.text):
        return Linear({}, number(atom, scope.source))
    return Linear({scope.variable(atom): _ONE}, _ZERO)


def number(atom: Atom, source: Source) -> Fraction:
    """The exact value of a decimal. Where that would be long (over 64 characters, beyond 1e+-300), the value of the nearest float64."""
    text = atom.text
    if NUMBER.fullmatch(text) is None:
        raise source.error(atom.at, f"{shown(text)} is no number; allowed are such as 3, -0.5, 1e-5 and (/ 1 3); correct it")
    value = float(text)
    if abs(value) == float("inf"):
        raise source.error(atom.at, f"{shown(text)} is beyond float64; allowed is up to 1.79e308; give a smaller number")
    return Fraction(text) if 1e-300 < abs(value) < 1e300 and len(text) <= 64 else Fraction(value)


def nearest(value: Fraction, at: int, source: Source) -> float:
    """The float64 nearest to `value`, ties to even."""
    try:
        return float(value)
    except OverflowError:
        raise source.error(at, "a number beyond float64; allowed is up to 1.79e308; scale the constraint down") from None


def arithmetic(form: Form, args: list[Linear], source: Source) -> Linear:
    """`(op args...)` for an op of `ARITHMETIC`."""
    op, first, rest = form.head, args[0], args[1:]
    if op == "-" and not rest:
        result = _scaled(first, Fraction(-1))
    elif op in ("+", "-"):
        sign = _ONE if op == "+" else Fraction(-1)
        result = Linear(dict(first.terms), first.constant)
        for arg in rest:
            result = added(result, arg, sign)
    else:
        result = first
        for arg in rest:
            result = _times(form, result, arg, source) if op == "*" else _over(form, result, arg, source)
    if any(q.numerator.bit_length() + q.denominator.bit_length() > _BITS for q in (result.constant, *result.terms.values())):
        raise source.error(form.at, f"a constant of over {_BITS} bits; allowed is what float64 can hold; write its value instead")
    return result


def added(a: Linear, b: Linear, factor: Fraction) -> Linear:
    """`a + factor * b`. It writes into the terms of `a`: each term has one owner, and sums of thousands must stay linear in time."""
    terms = a.terms
    for variable, coefficient in b.terms.items():
        total = terms.get(variable, _ZERO) + factor * coefficient
        if total:
            terms[variable] = total
        else:
            terms.pop(variable, None)
    return Linear(terms, a.constant + factor * b.constant)


def _scaled(a: Linear, factor: Fraction) -> Linear:
    return Linear({v: factor * c for v, c in a.terms.items()} if factor else {}, factor * a.constant)


def _times(form: Form, a: Linear, b: Linear, source: Source) -> Linear:
    if a.terms and b.terms:
        raise source.error(form.at, "a product of variables; allowed are linear terms, (* number term); the property cannot be read")
    return _scaled(a, b.constant) if a.terms else _scaled(b, a.constant)


def _over(form: Form, a: Linear, b: Linear, source: Source) -> Linear:
    if b.terms:
        raise source.error(form.at, "a variable in a divisor; allowed are linear terms, (/ term number); multiply the constraint out")
    if not b.constant:
        raise source.error(form.at, "a division by 0; allowed is any other divisor; correct the number")
    return _scaled(a, 1 / b.constant)
