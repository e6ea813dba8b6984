"""One row of a certificate as a question for `verify`: is there an input of its box whose label's logit is not above another?"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from ..bound._beta_crown import BetaCROWN
from ..core._model import Model
from ..core._work_time import work_time
from ..io import Case, Clause, Property
from ..threat import Box, LInf, Threat
from ._question import outputs_of
from ._verify import Verification, verified


def check_boxes(threat: Threat) -> None:
    """Raises ValueError for sets that are smaller than their boxes."""
    if not isinstance(threat, LInf | Box):
        raise ValueError(
            f"beta-CROWN has the threat {type(threat).__name__}, and branches on boxes only: LInf (linf) and Box. Leave it out; the other "
            "methods take any set."
        )


def branched(model: Model, x: np.ndarray, y: int, threat: Threat, method: BetaCROWN, *, sound: bool, budget: int) -> Verification:
    """x [...] one row, threat: with leaves of that row as a batch of 1."""
    lo, hi = (np.asarray(v, np.float64).reshape(-1) for v in threat.interval(jnp.asarray(x[None])))
    k = outputs_of(model, x.shape)
    rows = np.eye(k)[y][None] - np.eye(k)[[j for j in range(k) if j != y]]
    clauses = tuple(Clause(Cx=None, Cy=row[None], d=np.zeros(1)) for row in rows)
    prop = Property(n_inputs=lo.size, n_outputs=k, cases=(Case(lo=lo, hi=hi, clauses=clauses),))
    shaped = model.replace(info=dataclasses.replace(model.info, input_shape=x.shape))
    return verified(shaped, prop, timeout=float(method.timeout), sound=sound, budget=budget, clock=work_time)
