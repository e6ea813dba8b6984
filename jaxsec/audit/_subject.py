"""What is audited, and what a probe gives back."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..core import Model
from ..threat import Ball
from ._plan import Plan

Progress = Callable[[str, float, int], None]
Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is audited: x [N, ...] float, y [N] int32, ids [N] the rows' places in the whole data set.

    `layout` is that of the image rows, or None where rows are no images.
    """

    model: Model
    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    threat: Ball
    key: jax.Array
    plan: Plan
    n_classes: int
    layout: str | None

    @property
    def eps(self) -> float:
        return float(np.asarray(self.threat.eps))

    def key_for(self, probe: str) -> jax.Array:
        """A probe's own key: by name, so that leaving one probe out changes no other."""
        return jax.random.fold_in(self.key, sum(b << (8 * i) for i, b in enumerate(probe.encode()[:4])))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A probe's arrays (one row per audited row), its settings for the record, and flags of the attack that ran."""

    arrays: Arrays
    settings: dict[str, Any]
    flags: tuple[dict[str, Any], ...] = ()


class Unable(Exception):
    """A probe cannot run on this subject; the message is the reason that the report gives, a clause."""
