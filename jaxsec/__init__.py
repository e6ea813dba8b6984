"""jaxsec: attack, defend, certify and audit machine-learning models, compiled end to end with JAX."""

from .core import Model as Model
from .core import ModelInfo as ModelInfo
from .core import bind as bind

__version__ = "0.1.0"
