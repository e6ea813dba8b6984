"""Words of the command line as numbers and folders. Messages call an option by its own name, so that they can be followed as they stand."""

import contextlib
import math
import re
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = 2**32 - 1  # `jax.random.key` takes 32 bits; a larger number would be cut, and repeat another seed


def number(text: Any, name: str, wanted: str = "a number such as 0.03 or a fraction such as 8/255 is needed") -> float:
    """`0.03`, `8/255` or `1e-3`; `ValueError` otherwise."""
    said = str(text).strip()
    try:
        # not Fraction for all: it would write out the digits of 1e999999999
        value = float(Fraction(said)) if re.fullmatch(r"[+-]?\d+/\d+", said) else float(said)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or isinstance(text, bool):
        raise ValueError(f"{name} is {text!r}; {wanted}.")
    return value


def numbers(text: str | None, name: str) -> Any:
    """`0.5` -> 0.5, `0.49,0.48,0.45` -> an array, None -> None."""
    if text is None:
        return None
    wanted = "a number such as 0.48 is needed, or one per channel with commas: 0.49,0.48,0.45"
    try:
        parts = [number(part, name) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; {wanted}.") from None
    return parts[0] if len(parts) == 1 else np.asarray(parts, np.float32)


def value_range(text: str | None) -> tuple[float, float] | None:
    """`0,1` -> (0.0, 1.0)."""
    if text is None:
        return None
    try:
        lo, hi = (number(part, "--range") for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--range is {text!r}; two numbers with a comma are needed, the lowest and the highest valid value: --range 0,1."
        ) from None
    if lo >= hi:
        raise ValueError(f"--range is {text!r}; the lowest value comes first and must be below the highest.")
    return lo, hi


def deviations(text: str | None) -> Any:
    """As `numbers`, each above 0."""
    value = numbers(text, "--std")
    if value is not None and not (np.asarray(value) > 0).all():
        raise ValueError(f"--std is {text!r}; every number must be above 0.")
    return value


def divisor(text: str | None) -> float | None:
    """`255` -> 255.0, None -> None."""
    if text is None:
        return None
    wanted = "a number above 0 is needed, such as 255 for bytes"
    value = number(text, "--divide-by", wanted)
    if value <= 0:
        raise ValueError(f"--divide-by is {text!r}; {wanted}.")
    return value


def whole(text: Any, name: str, least: int, most: int | None = None) -> int | None:
    """`12` -> 12, None -> None; `ValueError` outside least..most. A plan file gives integers, the command line words."""
    if text is None:
        return None
    said = str(text).strip()  # of true and of 1.0 this is no whole number
    is_whole = re.fullmatch(r"[+-]?\d{1,30}", said)
    if not is_whole or int(said) < least or (most is not None and int(said) > most):
        raise ValueError(
            f"{name} is {text!r}; a whole number {f'of at least {least}' if most is None else f'from {least} to {most}'} is needed."
        )
    return int(said)


def share(text: str | None, name: str) -> float | None:
    """`0.4` -> 0.4, None -> None; a percentage is refused and shown as the share it means."""
    if text is None:
        return None
    wanted = "a share from 0 to 1 is needed, such as 0.4 for 40 %"
    said = text.strip()
    value = number(said.removesuffix("%"), name, wanted)
    if said.endswith("%") or not 0 <= value <= 1:
        raise ValueError(f"{name} is {text!r}; {wanted}.{f' Did you mean {value / 100:g}?' if 0 <= value <= 100 else ''}")
    return value


def methods(text: str, name: str, more: str = "") -> tuple[str, ...]:
    """`ibp,crown` -> the names of two bound methods. `more` are words that the option takes besides, for its message."""
    from ..bound import wrong_names

    names = tuple(word.strip().lower() for word in text.split(","))
    if wrong := wrong_names(names):
        raise ValueError(f"{name} is {text!r}; {wrong}{more}.")
    return names


def seed_of(value: Any, name: str) -> int:
    """A seed that `jax.random.key` tells from every other."""
    return whole(value, name, 0, SEEDS) or 0


def positive(text: str | None, name: str, default: float) -> float:
    """A number above 0, the default where none was given."""
    value = default if text is None else number(text, name)
    if value <= 0:
        raise ValueError(f"{name} is {text!r}; a number above 0 is needed, such as {default}.")
    return value


def least(text: str | None, name: str, lowest: float) -> float:
    """A number of at least `lowest`, which is also the default."""
    value = lowest if text is None else number(text, name)
    if value < lowest:
        raise ValueError(f"{name} is {text!r}; a number of at least {lowest:g} is needed.")
    return value


def part(text: str | None, name: str, default: float) -> float:
    """A share below 1, the default where none was given."""
    value = share(text, name)
    if value is None:
        return default
    if value >= 1:
        raise ValueError(f"{name} is {text!r}; a share below 1 is needed, such as {default}.")
    return value


def seconds_of(text: str | None, name: str, example: int) -> float | None:
    """A time limit above 0."""
    if text is None:
        return None
    wanted = f"seconds above 0 are needed, such as {example}"
    value = number(text, name, wanted)
    if value <= 0:
        raise ValueError(f"{name} is {text!r}; {wanted}.")
    return value


def same_file(a: Path, b: object) -> bool:
    """Whether both exist and are one file."""
    return a.exists() and Path(str(b)).exists() and a.samefile(str(b))


def no_input(out: Path | None, *read: object) -> None:
    """`ValueError` where --out is a file that the command reads."""
    for path in read:
        if path is not None and out is not None and same_file(out, path):
            raise ValueError(f"--out is {str(out)!r}, a file that is read here; give another name for the results.")


def npz_file(out: Path, *read: object) -> None:
    """`ValueError` where --out cannot become an .npz file, or is one of those that are `read`."""
    no_input(out, *read)
    if out.suffix != ".npz" or out.is_dir():
        raise ValueError(f"--out is {str(out)!r}{', a folder' if out.is_dir() else ''}; a file name that ends in .npz is needed.")
    writable(out.parent, "an .npz file in a folder")


@contextlib.contextmanager
def not_left_empty(folder: Path | None) -> Iterator[None]:
    """A folder that this call made does not stay where nothing came into it."""
    try:
        yield
    except BaseException:
        if folder is not None:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def writable(folder: Path, wanted: str) -> None:
    """Finds out before the work, not after it."""
    try:
        if blocked := next((p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), None):
            raise ValueError(f"--out: {str(blocked)!r} is a file, not a folder; name {wanted}, or remove the file.")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".jaxsec-"):  # a name of its own: two runs may start at once
            pass
    except OSError as error:
        raise ValueError(f"--out: cannot write in {str(folder)!r} ({error.strerror}); name {wanted} that you may write to.") from error
