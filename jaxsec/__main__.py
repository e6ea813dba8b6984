"""`python -m jaxsec`: the command line."""

from .cli import run

run()
