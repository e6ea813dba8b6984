"""jaxsec: attack, defend, certify and audit machine-learning models, compiled end to end with JAX."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from .attack import APGD as APGD
from .attack import BIM as BIM
from .attack import FAB as FAB
from .attack import FGSM as FGSM
from .attack import PGD as PGD
from .attack import AutoAttack as AutoAttack
from .attack import Square as Square
from .attack import attack as attack
from .audit import audit as audit
from .bound import CROWN as CROWN
from .bound import CROWNIBP as CROWNIBP
from .bound import IBP as IBP
from .bound import AlphaCROWN as AlphaCROWN
from .bound import BetaCROWN as BetaCROWN
from .bound import ForwardLinear as ForwardLinear
from .bound import Interval as Interval
from .bound import UnsupportedPrimitive as UnsupportedPrimitive
from .bound import bound as bound
from .certify import Certificate as Certificate
from .certify import Verification as Verification
from .certify import certify as certify
from .certify import verify as verify
from .core import AttackResult as AttackResult
from .core import Flag as Flag
from .core import Model as Model
from .core import ModelInfo as ModelInfo
from .core import Status as Status
from .core import bind as bind
from .io import load as load
from .io import load_data as load_data
from .smooth import PatchAblation as PatchAblation
from .smooth import SequentialSmoothing as SequentialSmoothing
from .smooth import SmoothedCertificate as SmoothedCertificate
from .smooth import Smoothing as Smoothing
from .smooth import SplittingNoise as SplittingNoise
from .threat import L0 as L0
from .threat import L1 as L1
from .threat import L2 as L2
from .threat import Box as Box
from .threat import LInf as LInf
from .threat import Patch as Patch
from .threat import Threat as Threat

if TYPE_CHECKING:
    from . import train as train
    from .train import fit as fit


def __getattr__(name: str) -> Any:
    """Training is loaded when it is first asked for: who attacks or certifies does not pay for it."""
    if name not in ("fit", "train"):
        raise AttributeError(f"module 'jaxsec' has no attribute {name!r}")
    room = importlib.import_module(".train", __name__)
    return room if name == "train" else room.fit


def __dir__() -> list[str]:
    return sorted({*globals(), "fit", "train"})
