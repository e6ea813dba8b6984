"""Evasion attacks: methods are pure `init`/`step` pairs, `attack` is the door that runs and checks them."""

from ._apgd import APGD as APGD
from ._door import attack as attack
from ._fab import FAB as FAB
from ._gradient import BIM as BIM
from ._gradient import FGSM as FGSM
from ._gradient import PGD as PGD
from ._method import Method as Method
from ._problem import Problem as Problem
from ._square import Square as Square
from ._suite import AutoAttack as AutoAttack
