"""The text of a competition file, and the one error that says where in it something is wrong."""

import gzip
import os
import zlib
from pathlib import Path
from typing import NamedTuple

GZIP = b"\x1f\x8b"
LARGEST = 256 * 2**20  # bytes of text. The largest competition file has 16 MB; gzip can pack a thousand times as much into a small file
CHUNK = 2**20


class VNNLIBError(ValueError):
    """A property, result or instance list that cannot be read; the text is `file:line:column: what; what is allowed; remedy`.

    Lines and columns count from 1, columns in characters. A fault of the whole file is reported at 1:1.
    """


class Source(NamedTuple):
    """A file's text under the name that the caller used for it."""

    name: str
    text: str

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def error(self, at: int, message: str) -> VNNLIBError:
        """The error for the character at offset `at`."""
        return VNNLIBError(f"{self.name}:{self.line(at)}:{at - self.text.rfind(chr(10), 0, at)}: {message}")


def read_source(path: str | os.PathLike[str], what: str) -> Source:
    """Reads `path`, gzipped or not (told by the first bytes); `what` is what it should be, e.g. "a VNNLIB property"."""
    name = str(Path(path))
    whole = Source(name, "")
    try:
        raw = _bytes(name)
    except FileNotFoundError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        message = f"gzipped, but damaged ({error}); allowed is {what} as text or whole gzip; fetch or pack it again"
        raise whole.error(0, message) from None
    except OSError as error:
        raise whole.error(0, f"cannot be read ({error.strerror}); needed is a readable file; give the path of {what}") from None
    if len(raw) > LARGEST:
        raise whole.error(0, f"over {LARGEST // 2**20} MiB of text; allowed is less; is this {what}?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = Source(name, raw[: error.start].decode("utf-8", "replace"))
        raise before.error(len(before.text), f"not text (byte 0x{raw[error.start]:02x}); allowed is UTF-8; is this {what}?") from None
    if "\0" in text:
        at = text.index("\0")
        raise Source(name, text).error(at, f"not text (byte 0x00); allowed is UTF-8 (not UTF-16); is this {what}?")
    if not text.strip():
        raise whole.error(0, f"the file is empty; needed is {what}; fetch or write it again")
    return Source(name, text)


def _bytes(name: str) -> bytes:
    """The unpacked bytes, at most one chunk over `LARGEST`."""
    chunks, size = [], 0
    with open(name, "rb") as file:
        packed = file.peek(2)[:2] == GZIP
        if name.endswith(".gz") and not packed:
            raise gzip.BadGzipFile("it does not start with the bytes 1f 8b")
        with gzip.GzipFile(fileobj=file) if packed else file as stream:
            while size <= LARGEST and (chunk := stream.read(CHUNK)):
                chunks.append(chunk)
                size += len(chunk)
    return b"".join(chunks)
