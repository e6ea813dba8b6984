"""The result files of the competition: a verdict, and the counterexample that proves a "sat"."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..core._plural import plural
from ._vnnlib_formula import evaluate
from ._vnnlib_scope import INPUTS, OUTPUTS, Scope
from ._vnnlib_source import Source, read_source
from ._vnnlib_terms import Linear, nearest
from ._vnnlib_tokens import Atom, Form, forms, shown

VERDICTS = ("sat", "unsat", "timeout", "unknown", "error")


def write_result(path: str | os.PathLike[str], verdict: str, counterexample: tuple[Any, Any] | None = None) -> None:
    """Writes a result file of the VNN-COMP competition.

    Guarantee: `read_result` gives back the same float64 numbers (-0.0 as 0.0). The file appears whole or not at all.

    Args:
      path: where to; an existing file is replaced.
      verdict: "sat" (unsafe, with a counterexample), "unsat" (safe, proved), "timeout", "unknown" or "error".
      counterexample: (x, y), an input and the output that the network gives for it, of any shape, read in C order; for "sat" only.

    Raises:
      ValueError: another verdict, "sat" without a counterexample (the competition counts that as wrong), a counterexample for another
        verdict, NaN or infinity in it.

    Source: the rules of VNN-COMP 2022 to 2024, section "counterexample format".

    Example:
      >>> import pathlib, tempfile, jaxsec.io
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "result.txt"
      >>> jaxsec.io.write_result(file, "sat", ([0.1, 2.0], [-1e-07]))
      >>> print(file.read_text())
      sat
      ((X_0 0.1)
       (X_1 2.0)
       (Y_0 -1e-07))
      >>> verdict, (x, y) = jaxsec.io.read_result(file)
      >>> verdict, x.tolist(), y.tolist()
      ('sat', [0.1, 2.0], [-1e-07])
    """
    text = result_text(verdict, counterexample)
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def result_text(verdict: str, counterexample: tuple[Any, Any] | None = None) -> str:
    """What `write_result` writes."""
    if verdict not in VERDICTS:
        raise ValueError(f"verdict is {verdict!r}; allowed: {', '.join(VERDICTS)}.")
    if (verdict == "sat") != (counterexample is not None):
        raise ValueError(
            f"verdict is {verdict!r} and counterexample is {'missing' if counterexample is None else 'given'}; 'sat' needs one, "
            "the other verdicts have none. Pass counterexample=(x, y) with 'sat', or write 'unknown'."
        )
    lines = [] if counterexample is None else [*_lines(INPUTS, counterexample[0]), *_lines(OUTPUTS, counterexample[1])]
    text = f"{verdict}\n"
    if lines:
        text += "({})\n".format("\n ".join(lines))
    return text


def read_result(path: str | os.PathLike[str]) -> tuple[str, tuple[np.ndarray, np.ndarray] | None]:
    """Reads a result file of the VNN-COMP competition, plain or gzipped.

    Guarantee: what is returned can be passed to `write_result`, apart from a "sat" whose file has no counterexample.

    Args:
      path: the file: a verdict in the first line, then, for "sat", `((X_0 v) ... (Y_0 v) ...)` in any order.

    Returns:
      (verdict, (x, y)) with x [n_inputs] and y [n_outputs] float64, or (verdict, None) where the file has no counterexample. y is empty
      where only inputs are given.

    Raises:
      FileNotFoundError: no such file.
      VNNLIBError: another verdict, a pair that is none, a variable that is missing or given twice, a counterexample without "sat".
    """
    source = read_source(path, "a result of VNN-COMP")
    first = source.text.partition("\n")[0]
    verdict = first.strip()
    if verdict not in VERDICTS:
        raise source.error(0, f"the first line is {shown(verdict)}; allowed: {', '.join(VERDICTS)}; is this a result of VNN-COMP?")
    scope, values = Scope(source), {}
    for k, form in enumerate(forms(source, len(first))):
        if k or verdict != "sat":
            extra = "a second list" if k else f"a counterexample for {verdict!r}"
            raise source.error(form.at, f"{extra}; allowed is one list, after 'sat'; delete it")
        for pair in form.items:
            name, value = _pair(pair, source)
            values[scope.declare(name)] = value
    if not values:
        return verdict, None
    n_inputs, n_outputs = scope.count(INPUTS), scope.count(OUTPUTS)
    if not n_inputs:
        raise source.error(len(first) + 1, "a counterexample without inputs; needed is X_0 at least; write all inputs")
    return verdict, (np.array([values[i] for i in range(n_inputs)]), np.array([values[~j] for j in range(n_outputs)], np.float64))


def _lines(letter: str, array: Any) -> list[str]:
    numbers = np.asarray(array, np.float64).ravel().tolist()
    if not numbers or not np.isfinite(numbers).all():
        raise ValueError(
            f"the {letter} of the counterexample has {plural(len(numbers), 'number')}, NaN or infinity among them; at least one and only "
            "finite ones are allowed: no network is unsafe by NaN."
            if numbers
            else f"the {letter} of the counterexample is empty; every input and output is needed: pass (x, y)."
        )
    return [f"({letter}_{i} {number!r})" for i, number in enumerate(numbers)]


def _pair(node: Atom | Form, source: Source) -> tuple[Atom, float]:
    if not isinstance(node, Form) or len(node.items) != 2 or not isinstance(name := node.items[0], Atom):
        found = shown(node.text) if isinstance(node, Atom) else "this form"
        raise source.error(node.at, f"{found} is no pair; allowed are (X_0 number) and (Y_0 number); correct it")
    value = evaluate(node.items[1], Scope(source))
    if not isinstance(value, Linear):
        raise source.error(node.items[1].at, f"the value of {shown(name.text)} is a formula; allowed are numbers; correct it")
    return name, nearest(value.constant, node.at, source)
