"""Robust training: recipes, the loop `fit` that runs them, input transformations, and `evaluate`, which attacks what was made."""

import importlib
from typing import TYPE_CHECKING, Any

from ._adversarial import MART as MART
from ._adversarial import PGDAT as PGDAT
from ._adversarial import TRADES as TRADES
from ._adversarial import Standard as Standard
from ._augment import Chain as Chain
from ._augment import Flip as Flip
from ._augment import Shift as Shift
from ._catalogue import RECIPES as RECIPES
from ._catalogue import WRAPPERS as WRAPPERS
from ._catalogue import recipe_named as recipe_named
from ._catalogue import settings_of as settings_of
from ._catalogue import takes as takes
from ._certified import CROWNIBPTraining as CROWNIBPTraining
from ._certified import IBPTraining as IBPTraining
from ._certified import ibp_init as ibp_init
from ._defence import Defence as Defence
from ._defence import defence_of as defence_of
from ._distill import ARD as ARD
from ._distill import RSLAD as RSLAD
from ._distill import DefensiveDistillation as DefensiveDistillation
from ._evaluate import evaluate as evaluate
from ._evaluation import Evaluation as Evaluation
from ._evaluation import EvaluationRow as EvaluationRow
from ._fast import FastAT as FastAT
from ._fast import FreeAT as FreeAT
from ._fast import UniversalAT as UniversalAT
from ._fit import fit as fit
from ._lipschitz import LipschitzMargin as LipschitzMargin
from ._lipschitz import lipschitz_certify as lipschitz_certify
from ._lipschitz import lipschitz_constant as lipschitz_constant
from ._lipschitz import spectral_normalised as spectral_normalised
from ._loop import Fit as Fit
from ._macer import MACER as MACER
from ._mixup import LabelSmoothing as LabelSmoothing
from ._mixup import Mixup as Mixup
from ._net import Net as Net
from ._net import net_of as net_of
from ._optimizer import default_optimizer as default_optimizer
from ._pairing import AdversarialLogitPairing as AdversarialLogitPairing
from ._pairing import CleanLogitPairing as CleanLogitPairing
from ._pairing import LogitSqueezing as LogitSqueezing
from ._recipe import Gradient as Gradient
from ._recipe import Recipe as Recipe
from ._regularise import L1Penalty as L1Penalty
from ._regularise import L2Penalty as L2Penalty
from ._regularise import SpectralPenalty as SpectralPenalty
from ._slopes import InputGradientPenalty as InputGradientPenalty
from ._slopes import JacobianPenalty as JacobianPenalty
from ._small_box import MTLIBP as MTLIBP
from ._small_box import SABR as SABR
from ._smoothed import Consistency as Consistency
from ._smoothed import GaussianAugmentation as GaussianAugmentation
from ._smoothed import SmoothAdvTraining as SmoothAdvTraining
from ._temperature import TemperatureTraining as TemperatureTraining
from ._temperature import at_temperature as at_temperature
from ._transform import Transform as Transform
from ._transform import adaptive as adaptive
from ._transform import defended as defended
from ._transform_code import BitDepth as BitDepth
from ._transform_code import Thermometer as Thermometer
from ._transform_filter import Bilateral as Bilateral
from ._transform_filter import GaussianBlur as GaussianBlur
from ._transform_filter import MedianFilter as MedianFilter
from ._transform_filter import TotalVariation as TotalVariation
from ._transform_jpeg import JPEG as JPEG
from ._transform_random import RandomAblation as RandomAblation
from ._transform_random import RandomCrop as RandomCrop
from ._transform_random import RandomResizePad as RandomResizePad
from ._wrap import AWP as AWP
from ._wrap import Curriculum as Curriculum
from ._wrap import MultiNorm as MultiNorm

if TYPE_CHECKING:
    from ._lipschitz_layers import AOLConv as AOLConv
    from ._lipschitz_layers import AOLDense as AOLDense
    from ._lipschitz_layers import MaxMin as MaxMin


def __getattr__(name: str) -> Any:
    """The layers need Flax, which the rest of the room does without."""
    if name not in ("AOLConv", "AOLDense", "MaxMin"):
        raise AttributeError(f"module 'jaxsec.train' has no attribute {name!r}")
    return getattr(importlib.import_module("._lipschitz_layers", __name__), name)
