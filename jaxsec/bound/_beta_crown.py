"""BetaCROWN: the method of the ladder that branches."""

from typing import Any, ClassVar

import jax

from ..core._struct import static, struct
from ._alpha import optimised
from ._method import BoundMethod
from ._problem import Problem


@struct
class BetaCROWN(BoundMethod):
    """Branch and bound with beta-CROWN, row by row, after an attack: each row is proved, broken, or open when its time is up.

    Guarantee: as `verify`: proofs hold in the mode asked for, counterexamples are replayed. Which rows are open when their time is up
      depends on the machine. In `bound`, and under `jit`, where nothing can branch, it is its root: AlphaCROWN.
    Args:
      timeout: seconds of work for each row, compilation not counted; a round in progress is finished first.
      steps: of AlphaCROWN at the root.
    Raises: ValueError: in `certify`, a threat other than LInf and Box, whose sets are boxes.
    Cost: until `timeout` for each row that neither side decides.
    Source: Wang et al. 2021 (beta-CROWN), Bunel et al. 2020 (branching); see `verify`.
    """

    name: ClassVar[str] = "beta-crown"
    timeout: Any = 60.0
    steps: int = static(default=20)

    def lower(self, problem: Problem) -> jax.Array:
        return optimised(problem, self.steps, 0.3, None)[0]
