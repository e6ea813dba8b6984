"""The library's messages in the words of the command line: a remedy names an option, never an argument of a Python function."""

import difflib
import re
import shlex

# What a user's mistake raises, with a message for people (NotImplementedError: UnsupportedPrimitive, and ONNX operations that `load` does
# not know); anything else is a defect.
MISTAKES = (ValueError, NotImplementedError, OSError, ImportError)

# Arguments of `jaxsec.io.load_data` that are options here. The first group are words that mean nothing else in a message.
_PLAIN = {
    "stored_layout": "--stored-layout",
    "label_column": "--label-column",
    "value_range": "--range",
    "divide_by": "--divide-by",
    "x_key": "--x-key",
    "y_key": "--y-key",
}
_OPTIONS = _PLAIN | {"labels": "--labels", "layout": "--layout", "limit": "--limit", "mean": "--mean", "std": "--std"}
_LOADING = re.compile(r"\b(input_shape|output)=")


def in_options(text: str) -> str:
    """`layout='NHWC'` is `--layout NHWC`, `value_range=(0, 1)` is `--range 0,1`, "label_column is 9" is "--label-column is 9".

    What only Python can say (arguments of `jaxsec.load`) stays, with the way to say it from the command line.
    """
    text = re.sub(r"\bvalue_range=\(([^(),]+), ([^(),]+)\)", r"--range \1,\2", text)
    value = r"(?:'([^']*)'|\"([^\"]*)\"|(<[^>]*>)|([^\s'\",;()<>]*[^\s'\",;()<>.]))"
    text = re.sub(rf"(?<![-\w])({'|'.join(_OPTIONS)})={value}", _option, text)
    text = re.sub(rf"(?<![-\w./'\"])({'|'.join(_PLAIN)})(?![-\w/'\"=]|\.\w)", lambda m: _PLAIN[m[1]], text)
    if _LOADING.search(text):
        text += "" if text.endswith(".") else "."
        text += " That is an argument of jaxsec.load: call it in a file.py, and give file.py:model as MODEL."
    return text


def _option(found: re.Match[str]) -> str:
    words, hint = found[2] if found[2] is not None else found[3] or found[5], found[4]
    return f"{_OPTIONS[found[1]]} {hint or shlex.quote(words or '')}"


def usage(message: str, words: list[str], commands: list[str]) -> str:
    """What the parser complains of, with where to read on; a setting of a plan that was given as an option is told so."""
    from ..audit._plan import PLAN_KEYS

    text = message.rstrip(". ")
    if found := re.match(r"No such option: --([\w-]+)", text):
        name = found[1].replace("-", "_")
        if near := difflib.get_close_matches(name, PLAN_KEYS, n=1, cutoff=0.9):
            text += f". {near[0]} is a setting of a plan file: write {near[0]} = ... in a file and give it with --plan"
    command = next((w for w in words if w in commands), "")
    return f"{text}{'' if text.endswith('?') else '.'} Try 'jaxsec {command} --help'.".replace("  ", " ")
