"""`main`: runs a command and turns what happens into an exit code; a user's mistake shows one line, never a traceback."""

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import NoReturn

from ._interrupt import Interrupted, never_lost
from ._words import MISTAKES, in_options, usage

OK, NOT_WITHIN_LIMITS, USAGE, INTERNAL, INTERRUPTED, CLOSED = 0, 1, 2, 3, 130, 141


def main(args: Sequence[str] | None = None) -> int:
    """Runs `jaxsec ARGS` and gives the exit code.

    Returns: 0: done, and within `--fail-under` or `--fail-on` where given; 1: not within it, or against `--expected`; 2: a mistake in the
    command, a file or the data; 3: a defect of jaxsec, whose traceback is saved and named; 130: interrupted; 141: nobody reads the output.
    """
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        print(f"jaxsec: the command line needs {error.name}; install jaxsec with its dependencies.", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return _say("interrupted.", INTERRUPTED)
    try:
        words = list(sys.argv[1:] if args is None else args)
        with never_lost():
            code = app(args=words or ["--help"], prog_name="jaxsec", standalone_mode=False)
        if code == INTERRUPTED:  # how typer reports an interrupt that no command expected
            return _say("interrupted.", INTERRUPTED)
        return code if isinstance(code, int) else OK
    except Interrupted as error:
        return _say(str(error), INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted.", INTERRUPTED)
    except SystemExit as error:
        if isinstance(broken := error.__context__, OSError) and broken.errno == errno.EPIPE:
            return CLOSED  # whoever read our output has stopped; click would say 1, which means below a limit here
        return error.code if isinstance(error.code, int) else USAGE
    except MISTAKES as error:
        return _say(line_of(error), USAGE)
    except Exception as error:
        if type(error).__name__ == "Abort":
            return _say("interrupted.", INTERRUPTED)
        if message := getattr(error, "format_message", None):  # a usage error of the parser, whose class typer does not export
            return _say(
                usage(message(), words, [str(c.name or getattr(c.callback, "__name__", "")) for c in app.registered_commands]), USAGE
            )
        if isinstance(error, UserError):
            return _say(str(error), USAGE)
        return _say(f"internal error: {type(error).__name__}. This is a defect of jaxsec; please report it with {_saved()}", INTERNAL)


def run() -> NoReturn:
    """`main`, and the end of the process."""
    code = main()
    if code == INTERRUPTED:
        # what XLA was compiling goes on in its own thread, and crashes when Python takes the backend down beneath it
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


class UserError(Exception):
    """A mistake of the user that some library reported in its own way; the message is for people."""


def _say(message: str, code: int) -> int:
    print(f"jaxsec: {message}", file=sys.stderr)
    return code


def line_of(error: BaseException) -> str:
    """The message on one line; system errors name the file and the reason."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text += " What was to be written does not fit there: make room, or name another --out, and run the command again."
    else:
        text = in_options(str(error) or type(error).__name__)
    return " ".join(text.split())


def _saved() -> str:
    """Saves the traceback that is being handled; gives the file's path."""
    handle, path = tempfile.mkstemp(prefix="jaxsec-traceback-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
    return path
