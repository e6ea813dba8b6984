"""The words every room shares: models, structs, results, keys, losses, batching, and the rewrites that make programs fast."""

from ._model import Model as Model
from ._model import ModelInfo as ModelInfo
from ._model import bind as bind
from ._struct import Struct as Struct
from ._struct import static as static
from ._struct import struct as struct
