"""The command line: parses, calls one verb, prints. `main` turns every outcome into an exit code; `run` is the process around it."""

from ._main import main as main
from ._main import run as run
