"""Bounds of any traced JAX function over a set of inputs: intervals, and linear forms walked back
through the program (CROWN) or carried forward (ForwardLinear).

`_graph` and the `_rules_*` turn a jaxpr into nodes (`_nodes`), `_forward_pass` bounds them by intervals, `_backward` by linear forms,
`_forms` by linear functions of the input;
`_method` lists the methods, `_door` has the verb. `_alpha`, `_beta`, `_beta_cuts` and `_gaps` serve branch and bound.
"""

from ._alpha import AlphaCROWN as AlphaCROWN
from ._beta_crown import BetaCROWN as BetaCROWN
from ._cost import walks as walks
from ._door import Interval as Interval
from ._door import bound as bound
from ._forward_linear import ForwardLinear as ForwardLinear
from ._graph import UnsupportedPrimitive as UnsupportedPrimitive
from ._method import CROWN as CROWN
from ._method import CROWNIBP as CROWNIBP
from ._method import IBP as IBP
from ._method import BoundMethod as BoundMethod
from ._names import by_name as by_name
from ._names import wrong_names as wrong_names
from ._rules import primitives as primitives
