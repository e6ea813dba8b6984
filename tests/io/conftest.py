"""Lets the tests of this folder `import onnx_kit`. It cannot be a package: its name would be `io`, and shadow the standard library's."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

collect_ignore = ["exported/make_keras.py"]  # run by hand: it imports Keras
