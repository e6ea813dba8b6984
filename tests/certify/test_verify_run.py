"""How `verify` shares out its time between the tree on the output and the refinement of ranges; the clock is the test's own."""

import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from jaxsec.certify import _verify_run as run_module
from jaxsec.certify._pool import Pool
from jaxsec.certify._verify_run import Done, Run


class Tree:
    """A split of one open subproblem whose bound after r rounds is `bound(r)`; a round takes a second."""

    def __init__(self, clock: list[float], bound: Callable[[int], float], closes: int | None = None, stuck: int = 0):
        self.clock, self.after, self.closes, self.stuck_then = clock, bound, closes, stuck
        self.done = self.stuck = 0
        self.most = math.inf
        self._show()

    def _show(self) -> None:
        open = self.closes is None or self.done < self.closes
        self.pool = Pool()
        self.pool.put(np.zeros(1), np.array([self.after(self.done)])[: int(open)])
        self.stuck = 0 if open else self.stuck_then

    @property
    def full(self) -> bool:
        return self.done > self.most

    def round(self) -> None:
        self.clock[0] += 1
        self.done += 1
        self._show()


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


def run_of(clock: list[float], deadline: float) -> Run:
    return Run(None, deadline, jax.random.key(0), None, False, 0, lambda: clock[0])  # pyright: ignore[reportArgumentType]


def grown(tree: Tree, deadline: float) -> tuple[bool, Run]:
    run = run_of(tree.clock, deadline)
    run.margin = tree.after(0)
    return run._grown(tree), run  # pyright: ignore[reportArgumentType]


def test_a_tree_whose_bound_rises_grows_to_the_end(clock: list[float]) -> None:
    proved, run = grown(Tree(clock, lambda r: -(0.9**r)), 1000)
    assert not proved and 1000 < clock[0] <= 1002 and run.branches == clock[0] and run.margin == pytest.approx(0, abs=1e-6)
    clock[0] = 0
    proved, run = grown(Tree(clock, lambda r: -(0.9**r), closes=300), 1000)
    assert proved and clock[0] == 300


def test_a_tree_that_stalls_ends_early(clock: list[float]) -> None:
    """Two rounds for the compiler, and two spells, of which the second wins nothing."""
    proved, _ = grown(Tree(clock, lambda r: -1.0 if r < 3 else -0.5), 1000)
    assert not proved and clock[0] <= 2 + 4 * (run_module._FIRST_SECONDS + 1)
    clock[0] = 0
    assert not grown(Tree(clock, lambda r: float("nan")), 1000)[0] and clock[0] < 20


def test_a_tree_that_takes_all_the_memory_ends(clock: list[float]) -> None:
    tree = Tree(clock, lambda r: -(0.9**r))
    tree.most = 40
    proved, run = grown(tree, 1000)
    assert not proved and clock[0] == 41
    with pytest.raises(Done) as ended:
        run._until_closed(tree, "beta-crown")  # pyright: ignore[reportArgumentType]
    assert ended.value.verdict == "unknown" and "take all the memory" in ended.value.note and clock[0] == 41


def test_a_tree_with_leaves_that_nothing_decides_is_not_proved(clock: list[float]) -> None:
    proved, _ = grown(Tree(clock, lambda r: -(0.9**r), closes=50, stuck=1), 1000)
    assert not proved and clock[0] == 50


class Ranges:
    """A split whose refinement takes a second a step, in layers of `size` steps; the root's bound after n steps is `bound(n)`."""

    def __init__(self, clock: list[float], bound: Callable[[int], float], size: int = 5, layers: int = 40):
        self.clock, self.after, self.size, self.layers = clock, bound, size, layers
        self.steps, self.stuck, self.least, self.pool = 0, 0, bound(0), "the tree"
        self.roots: list[int] = []
        self.resumed = ("", 0)

    def refinements(self) -> Iterator[bool]:
        for _ in range(self.layers):
            for i in range(self.size):
                self.clock[0] += 1
                self.steps += 1
                yield i == self.size - 1

    def root(self, steps: int) -> np.ndarray:
        self.roots.append(self.steps)
        self.least, self.pool = self.after(self.steps), "the root's"
        return np.array([self.least > 0])

    def resume(self, pool: str, stuck: int) -> None:
        self.resumed = (pool, stuck)


def refined(split: Ranges, deadline: float) -> bool:
    return run_of(split.clock, deadline)._refined(split)  # pyright: ignore[reportArgumentType]


def test_ranges_are_refined_for_as_long_as_the_root_rises(clock: list[float]) -> None:
    """Looked at after every layer and every tenth of the time; never more than half."""
    split = Ranges(clock, lambda n: -1.0)
    assert not refined(split, 200) and clock[0] == 20 and split.roots == [5, 10, 15, 20] and split.resumed == ("the tree", 0)
    clock[0] = 0
    split = Ranges(clock, lambda n: -(0.98**n))
    assert not refined(split, 200) and clock[0] == 101 and split.roots[-1] == 101
    clock[0] = 0
    split = Ranges(clock, lambda n: 1.0 if n >= 33 else -(0.98**n))
    assert refined(split, 200) and clock[0] == 35
    clock[0] = 0
    split = Ranges(clock, lambda n: float("nan"), size=1000)
    assert not refined(split, 200) and split.roots == [20]


def test_where_there_is_nothing_to_refine_the_tree_goes_on(clock: list[float]) -> None:
    split = Ranges(clock, lambda n: -1.0, layers=0)
    assert not refined(split, 200) and clock[0] == 0 and not split.roots and split.resumed == ("the tree", 0)
