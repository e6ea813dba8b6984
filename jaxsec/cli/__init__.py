"""The command line: parses, calls one verb, prints. `main` is its entry point and turns every outcome into an exit code."""

from ._main import main as main
