"""The protocol of a perturbation set."""

import abc
from typing import Any, ClassVar, Self

import jax

from ..core._struct import Struct


class Threat(Struct, abc.ABC):
    """A set of inputs that the adversary may reach from `x0[B, ...]`; any input rank.

    Leaves are traced, so a sweep over budgets compiles once. Operations other than `normalised` expect a normalised threat
    (the front doors see to it): leaves are arrays of x's floating dtype, and those that differ by row have the batch axis.
    """

    norm: ClassVar[str]

    @abc.abstractmethod
    def normalised(self, x0: jax.Array) -> Self:
        """The threat with strongly typed leaves, broadcast to the rows of `x0`; the same shapes whatever the caller wrote."""

    @abc.abstractmethod
    def take(self, rows: jax.Array) -> Self:
        """The threat of the rows with these indices."""

    @abc.abstractmethod
    def scaled(self, factor: jax.Array | float) -> Self:
        """The same kind of set, `factor` times as large around `x0`; the box of valid inputs stays."""

    @abc.abstractmethod
    def radius(self, x: jax.Array) -> jax.Array:
        """[B] length of the longest useful step, in the unit of `steepest`: eps for balls, 1 for `Box`."""

    @abc.abstractmethod
    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point (Euclidean) of the set. Guarantee: `contains(x0, project(x0, x))` for finite x."""

    @abc.abstractmethod
    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """A uniform point of the ball, projected into the set; row i uses `keys[i]` only."""

    @abc.abstractmethod
    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """A random point that touches the ball's surface, projected into the set (AutoAttack's start)."""

    @abc.abstractmethod
    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """Direction of unit length in the set's norm that raises `<g, .>` fastest at `x`; zero where `g` is zero."""

    @abc.abstractmethod
    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        """The exact maximiser of `<g, x>` over the whole set."""

    @abc.abstractmethod
    def contains(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """[B] bool, with the tolerance the class documents; NaN is never inside."""

    @abc.abstractmethod
    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """[B] float32 distance from `x0` in the set's norm."""

    @abc.abstractmethod
    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(lower, upper) of the smallest box around the set."""

    def support(self, x0: jax.Array, w: jax.Array) -> jax.Array:
        """`max <w, x>` over the set: w [B, ...] -> [B], or several functionals w [B, S, ...] -> [B, S]."""

        def value(v: jax.Array) -> jax.Array:
            best = self.maximise(x0, v)
            return jax.numpy.sum((best * v).reshape(v.shape[0], -1), axis=1)

        if w.ndim == x0.ndim:
            return value(w)
        return jax.vmap(value, in_axes=1, out_axes=1)(w)

    def describe(self) -> dict[str, Any]:
        """Plain values for reports."""
        import numpy as np

        def plain(v: Any) -> Any:
            a = np.asarray(v)
            return a.item() if a.ndim == 0 else {"shape": list(a.shape), "min": float(a.min()), "max": float(a.max())}

        return {"norm": self.norm, **{k: plain(v) for k, v in vars(self).items()}}
