"""`Threat`: what every set of reachable inputs can do; the one place where each operation is documented."""

import abc
from typing import Any, ClassVar, Self

import jax

from ..core._struct import Struct


class Threat(Struct, abc.ABC):
    """A set of inputs that the adversary may reach from the clean rows `x0`.

    Attack, bound and certificate use the same set through these operations. All are pure, work under `jit` and `vmap`, take
    rows of any rank `[B, ...]`, and treat each row by itself: row i of a result depends on row i of the arguments only.

    Guarantee: whatever an operation returns as a point of the set (`project`, `sample`, `sample_boundary`, `maximise`) is
      accepted by `contains`, in x's dtype. Displacements are rounded towards `x0`.
    Assumption: `x0` lies in the box; `check` refuses rows that do not. From a row slightly outside, points are still inside the box
      but may be further from `x0` than eps by as much as `x0` is outside.
    Precision: computed in float32, or in x's dtype if that is wider; half-precision rows are never summed in half precision. Box bounds are
      rounded to x's dtype.
    Edge cases: eps = 0 gives `x0` back; NaN in a row of `x` stays in that row, and `contains` says False.
    """

    norm: ClassVar[str]

    @abc.abstractmethod
    def canonical(self, x: jax.Array) -> Self:
        """The same set with strongly typed leaves, eps as [B]: float and array budgets then share one compiled program.

        Args: x: [B, ...] rows whose batch size and dtype count.
        Raises: ValueError: a leaf's shape fits neither a scalar nor the rows. TypeError: x is not floating point.
        """

    @abc.abstractmethod
    def check(self, x0: jax.Array) -> None:
        """Raises `ValueError` if the set is ill-formed or does not contain `x0`; what is still traced is not looked at."""

    @abc.abstractmethod
    def project(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point of the set in Euclidean distance, row by row, for ball and box together (not one after the other)."""

    @abc.abstractmethod
    def sample(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """A uniform point of the ball, then into the box.

        Args: keys: [B] typed keys, one per row, or one key from which row i gets `fold_in(key, i)`. Consumed.
        """

    @abc.abstractmethod
    def sample_boundary(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
        """A point on the ball's surface as AutoAttack starts from it, then into the box. keys: as in `sample`."""

    @abc.abstractmethod
    def maximise(self, x0: jax.Array, g: jax.Array) -> jax.Array:
        """The point of the set with the largest `<g, x>`, exactly, ball and box together; elements with g = 0 stay at `x0`."""

    @abc.abstractmethod
    def support(self, x0: jax.Array, w: jax.Array) -> jax.Array:
        """The largest `<w, x>` over the set, exactly: CROWN's concretisation.

        Args: x0: [B, ...]. w: [B, ...], or [B, K, ...] for K linear forms per row.
        Returns: [B] or [B, K], rounded to nearest: who needs a proof adds its own outward rounding. The gradient with respect
          to `w` is the maximiser; `x0` and eps are differentiable as well.
        """

    @abc.abstractmethod
    def steepest(self, x: jax.Array, g: jax.Array) -> jax.Array:
        """The direction of norm at most 1, in this threat's norm, that raises `<g, x>` fastest from `x`; 0 where g is 0."""

    @abc.abstractmethod
    def contains(self, x0: jax.Array, x: jax.Array, *, tolerance: float = 1e-6) -> jax.Array:
        """[B] bool: the row is in the set. NaN is not.

        The distance is that of the given numbers, so a foreign `x0 + eps` that was rounded away from `x0` may be outside; points
        of this package are rounded towards it.
        Args: tolerance: relative to eps. The box is checked without tolerance, in x's dtype.
        """

    @abc.abstractmethod
    def distance(self, x0: jax.Array, x: jax.Array) -> jax.Array:
        """[B] distance in the threat's norm, in input units (`Box`: the largest change of an element)."""

    @abc.abstractmethod
    def dual_norm(self, g: jax.Array) -> jax.Array:
        """[B] `<g, d>` of the steepest direction d without a box: how much a step of length 1 gains to first order."""

    @abc.abstractmethod
    def radius(self, x: jax.Array) -> jax.Array:
        """[B] eps; 1 for `Box`, whose norm counts half-widths. Step sizes are multiples of it."""

    @abc.abstractmethod
    def scaled(self, factor: Any) -> Self:
        """The set with eps times `factor` (scalar or [B]); a `Box` shrinks about its centre."""

    @abc.abstractmethod
    def interval(self, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(lower, upper) of the smallest box around the set, rounded outward: each [B, ...] in x0's dtype."""
