"""Threats: the sets of inputs an adversary may reach, and the goals it may have there.

One set, a few exact operations, three consumers: attacks project, sample and step with it, bounds take its interval and its support
function, certificates and doors ask `contains`. `Threat` documents the operations; the sets are `LInf`, `L2`, `L1`, `L0`, `Box`, `Patch`.
"""

from ._ball import Ball as Ball
from ._box import Box as Box
from ._goal import Goal as Goal
from ._goal import Targeted as Targeted
from ._goal import Untargeted as Untargeted
from ._l0 import L0 as L0
from ._l1 import L1 as L1
from ._l2 import L2 as L2
from ._linf import LInf as LInf
from ._named import named as named
from ._patch import Patch as Patch
from ._threat import Threat as Threat
