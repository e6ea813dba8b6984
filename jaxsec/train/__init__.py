"""Robust training: recipes, the loop `fit` that runs them, and `evaluate`, which attacks what they made."""

from ._adversarial import MART as MART
from ._adversarial import PGDAT as PGDAT
from ._adversarial import TRADES as TRADES
from ._adversarial import Standard as Standard
from ._augment import Chain as Chain
from ._augment import Flip as Flip
from ._augment import Shift as Shift
from ._catalogue import RECIPES as RECIPES
from ._catalogue import recipe_named as recipe_named
from ._catalogue import settings_of as settings_of
from ._catalogue import takes as takes
from ._fast import FastAT as FastAT
from ._fast import FreeAT as FreeAT
from ._fast import UniversalAT as UniversalAT
from ._fit import default_optimizer as default_optimizer
from ._fit import fit as fit
from ._loop import Fit as Fit
from ._net import Net as Net
from ._net import net_of as net_of
from ._recipe import Gradient as Gradient
from ._recipe import Recipe as Recipe
from ._wrap import AWP as AWP
from ._wrap import Curriculum as Curriculum
from ._wrap import MultiNorm as MultiNorm
