"""What every method is given: the graph of one row, its region, and the forms on the output whose least values are asked."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._backward import Form, backward, dense, dotted
from ._forward_pass import intervals
from ._graph import Graph
from ._lines import curved, lines_of
from ._nodes import Lines, Range
from ._region import Region
from ._rounding import Charges, charges, largest

# Forms walked back at once over all rows: enough to fill the machine, few enough that what a dynamic count leaves unused is small.
_FORMS = 4096
# Arrays of a form's size that one step of the walk holds.
_HELD = 6


@dataclasses.dataclass(frozen=True)
class Problem:
    """Least values of `spec . output + at` over a region.

    `out` is the output's node; `spec` [S, *its shape]; `at` [S]. `rows` such problems run side by side under `vmap`, and `budget` is the
    memory in bytes that their forms may take together.
    """

    graph: Graph
    out: int
    region: Region
    spec: jax.Array
    at: jax.Array
    sound: bool
    rows: int
    budget: int

    @property
    def inputs(self) -> Sequence[Range]:
        return self.region.box

    def least(self, forms: Any, at: jax.Array) -> jax.Array:
        return self.region.least(forms, at, self.sound)

    def intervals(self, known: Any = None, upto: int | None = None, so_far: Sequence[Range] = ()) -> list[Range]:
        return intervals(self.graph, self.inputs, known, self.out if upto is None else upto, sound=self.sound, so_far=so_far)

    def lines(self, upto: int, ranges: Sequence[Range], done: Any = ()) -> dict[int, Lines]:
        return lines_of(self.graph, upto, ranges, sound=self.sound, done=done)

    def lines_before(self, target: int) -> list[int]:
        return curved(self.graph, target)

    def charges(self, upto: int, ranges: Sequence[Range], lines: Any) -> Charges | None:
        return charges(self.graph, upto, ranges, lines) if self.sound else None

    def walked(self, ranges: Sequence[Range], **how: Any) -> tuple[dict[int, Form], jax.Array]:
        """The forms on the inputs, and their constants [S], by one walk back from the output."""
        lines = self.lines(self.out, ranges)
        charged = self.charges(self.out, ranges, lines)
        return backward(self.graph, self.out, self.spec, self.at, ranges, lines, charged=charged, **how)

    def lower(self, ranges: Sequence[Range], **how: Any) -> jax.Array:
        """[S] by one walk back from the output."""
        return self.least(*self.walked(ranges, **how))

    def magnitude(self, forms: Mapping[int, Form]) -> jax.Array:
        """[S] how large the numbers are that a bound was summed from: its rounding is a small share of them."""
        total = jnp.abs(self.at)
        for position, form in forms.items():
            total = total + dotted(jnp.abs(dense(form)), largest(self.inputs[position]))
        return total

    def chunk(self, target: int) -> int:
        """How many elements of a node are walked back at once, in every row."""
        largest = max(math.prod(self.graph.nodes[i].shape) for i in self.graph.ancestors(target))
        fits = self.budget // (4 * _HELD * 2 * largest * max(1, self.rows))
        return max(1, min(fits, _FORMS // (2 * max(1, self.rows))))


Known = tuple[Range, ...]  # of the carried nodes, in order: what a subproblem knows of the layers


def identity(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A form for each element."""
    n = math.prod(shape)
    return jnp.eye(n, dtype=dtype).reshape(n, *shape)
