"""The one error of data loading and checking."""


class DataError(ValueError):
    """Data that cannot be what the caller says they are; the message has the value, what is allowed and the remedy."""
