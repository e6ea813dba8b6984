"""The set of inputs of one row, as bounds see it: a box for intervals, and the least value of a linear form for everything else."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from ..threat import Box, LInf, Threat
from ._backward import Form, dense
from ._nodes import Range
from ._patches import Patch
from ._rounding import gamma, largest, tiny


@dataclasses.dataclass(frozen=True)
class Region:
    """`box` is the smallest box around the set, one range for every input; where the set is smaller than its box (L2, L1) it is
    `threat` around `centre`, both with a batch axis of 1, and there is one input."""

    box: list[Range]
    threat: Threat | None = None
    centre: jax.Array | None = None

    def least(self, forms: dict[int, Form], at: jax.Array, sound: bool = False) -> jax.Array:
        """[S] the least value of `sum over inputs of form . input + at` over the set, rounded down where `sound`."""
        return known(self.summed(forms, at, sound))

    def summed(self, forms: dict[int, Form], at: jax.Array, sound: bool = False) -> jax.Array:
        """As `least`, but NaN or infinite where nothing is known."""
        for position, form in forms.items():
            lo, hi = self.box[position]
            if isinstance(form, Patch) and self.threat is None:
                a, lo, hi = form.a, form.window(lo), form.window(hi)
            else:
                a = dense(form)
            if self.threat is None:
                at = at + total(jnp.where(a > 0, a * lo, a * hi))
            else:
                at = at - self.threat.support(self.centre, -a.reshape(1, len(a), *self.centre.shape[1:]))[0]  # pyright: ignore
            if sound:
                count = math.prod(a.shape[1:]) + 16
                lost = gamma(4 * count if self.threat is not None else count, at.dtype)
                at = at - lost * (total(jnp.abs(a) * largest((lo, hi))) + jnp.abs(at)) - count * tiny(at.dtype)
        return at


def known(at: jax.Array) -> jax.Array:
    """Minus infinity where infinities cancelled, or a sum overflowed: nothing is known."""
    return jnp.where(jnp.isnan(at) | (at == jnp.inf), -jnp.inf, at)


def total(v: jax.Array) -> jax.Array:
    return jnp.sum(v, axis=tuple(range(1, v.ndim)))


def of_row(threat: Threat, x: jax.Array) -> Region:
    """The region of one row `x [1, ...]` under a threat whose leaves are this row's (`eps [1]`, box bounds [1, ...])."""
    box = threat.interval(x)
    return Region([box]) if isinstance(threat, LInf | Box) else Region([box], threat, x)


def by_row(threat: Threat, x: jax.Array) -> Any:
    """The threat with every leaf spread over the rows: what `vmap` takes apart. Undone for one row by `one_row`."""
    threat = threat.canonical(x)

    def spread(v: jax.Array) -> jax.Array:
        return v if v.shape == x.shape[:1] and v.ndim == 1 else jnp.broadcast_to(v, x.shape)

    return jax.tree.map(spread, threat)


def one_row(threat: Threat) -> Threat:
    """A batch of one, from one row's leaves."""
    return jax.tree.map(lambda v: v[None], threat)
