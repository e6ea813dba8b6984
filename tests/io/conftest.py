"""Lets the tests of this folder `import onnx_kit`. The folder cannot be a package: it would be called `io` and shadow the standard library's."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
