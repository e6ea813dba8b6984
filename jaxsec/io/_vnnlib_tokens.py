"""S-expressions: text becomes atoms and forms that know where they stand."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ._vnnlib_source import Source

# Blanks are what no branch matches. A string may hold blanks, parentheses and semicolons; a doubled quote in it reads as two strings,
# which is enough where strings are skipped anyway. The last branch is a quote without its partner.
TOKEN = re.compile(r'[()]|[^\s()";|]+|;[^\n]*|"[^"]*"|\|[^|]*\||["|]')


class Atom(NamedTuple):
    """A name, number or string at an offset of the text."""

    text: str
    at: int


class Form(NamedTuple):
    """What stands between a `(` at offset `at` and its `)`."""

    items: list["Atom | Form"]
    at: int

    @property
    def head(self) -> str:
        """The first atom's text; empty if there is none."""
        first = self.items[0] if self.items else None
        return first.text if isinstance(first, Atom) else ""


Node = Atom | Form


def forms(source: Source, start: int = 0) -> Iterator[Form]:
    """The top-level forms from offset `start`, each as soon as it is closed, so that a large file is never held as a tree.

    An explicit stack instead of recursion: the depth is limited by memory only.
    """
    open_forms: list[Form] = []
    for match in TOKEN.finditer(source.text, start):
        text, at = match[0], match.start()
        if text == "(":
            form = Form([], at)
            if open_forms:
                open_forms[-1].items.append(form)
            open_forms.append(form)
        elif text == ")":
            if not open_forms:
                raise source.error(at, "')' closes nothing; allowed is one ')' for each '('; delete it, or add the '(' before it")
            form = open_forms.pop()
            if not open_forms:
                yield form
        elif text[0] == ";":
            continue
        elif text in ('"', "|"):
            raise source.error(at, f"{text} opens a text that never ends; allowed are pairs of {text}; add the second one")
        elif open_forms:
            open_forms[-1].items.append(Atom(text, at))
        else:
            raise source.error(at, f"{shown(text)} stands outside parentheses; allowed are forms such as (assert ...); add the '('")
    if open_forms:
        raise source.error(
            open_forms[-1].at, f"this '(' is never closed ({len(open_forms)} open at the end); allowed are pairs; add the missing ')'"
        )


def shown(text: str) -> str:
    """`text` as a message quotes it: short, and with odd characters escaped."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
