"""Numbers in sentences."""


def plural(n: int, noun: str) -> str:
    """The number with its noun: "1 input", "2 inputs"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
