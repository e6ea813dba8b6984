"""Lets the tests of this folder `import train_kit`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
