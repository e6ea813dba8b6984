"""The words every room shares: models, structs, results, keys, losses, batching, and the rewrites that make programs fast."""

from . import _losses as losses
from ._keys import as_key as as_key
from ._keys import row_keys as row_keys
from ._model import Model as Model
from ._model import ModelInfo as ModelInfo
from ._model import bind as bind
from ._result import AttackResult as AttackResult
from ._result import Flag as Flag
from ._result import Status as Status
from ._rewrite import tuned as tuned
from ._struct import Struct as Struct
from ._struct import static as static
from ._struct import struct as struct

__all__ = ["losses"]
