"""What the tests of rules have in common: a function's intervals and linear bounds over a box, and points that try to leave them.

Nearly everything runs in float64, so that a violation of 1e-9 is a mistake and not rounding; nets of libraries run in float32.
"""

import dataclasses
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsec.bound._backward import backward
from jaxsec.bound._crown import tightened
from jaxsec.bound._forward_linear import concretised, propagated
from jaxsec.bound._graph import Ref, trace
from jaxsec.bound._problem import Problem, identity
from jaxsec.bound._region import Region

FULL = bool(os.environ.get("JAXSEC_FULL"))
TOLERANCE = {np.float64: 1e-9, np.float32: 2e-5}
# Tiny programs by the hundred: compiling is what costs, running does not.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
if version("jaxlib").startswith("0.10."):  # as in tests/conftest.py: half the time
    QUICK |= {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


@dataclasses.dataclass(frozen=True)
class Bounded:
    """Flat arrays of one output: `lo, hi` by intervals, `crown` and (where asked for) `forward` the ranges by linear bounds.

    CROWN's own bounds are `low [S, D] x + low_at <= y`, and `high` above.
    """

    lo: np.ndarray
    hi: np.ndarray
    crown: tuple[np.ndarray, np.ndarray]
    forward: tuple[np.ndarray, np.ndarray]
    low: np.ndarray
    low_at: np.ndarray
    high: np.ndarray
    high_at: np.ndarray


Function = Callable[..., Any]


def compiled(fns: Function | dict[str, Function]) -> Function:
    """What `bounds` takes as `run`: the bounds as one program, for all boxes of the same shapes."""
    return jax.jit(lambda box: _all_bounds(fns, box), compiler_options=QUICK)


def bounds(
    fns: Function | dict[str, Function], *boxes: tuple[Any, Any], run: Any = None, dtype: Any = np.float64, forward: bool = False
) -> list[Bounded]:
    """Bounds of every output of `fn(*arrays)` where array i is in `boxes[i] = (lo, hi)`.

    Not compiled unless `run` is given: programs of many curves on one shape share their operations, and run faster one by one.
    """
    with jax.enable_x64(dtype == np.float64), jax.numpy_rank_promotion("allow"):
        box = [(jnp.asarray(lo, dtype), jnp.asarray(hi, dtype)) for lo, hi in boxes]
        found = run(box) if run else _all_bounds(fns, box, forward)
        return [Bounded(*jax.tree.map(np.asarray, tuple(f))) for f in found]


def _all_bounds(fns: Function | dict[str, Function], box: Any, forward: bool = False) -> list[Any]:
    return [b for fn in (fns.values() if isinstance(fns, dict) else [fns]) for b in _bounds(fn, box, forward)]


def joined(fns: Function | dict[str, Function]) -> Function:
    return (lambda *xs: [fn(*xs) for fn in fns.values()]) if isinstance(fns, dict) else fns


def _bounds(fn: Callable[..., Any], box: list[Any], forward: bool) -> list[Any]:
    graph = trace(fn, *[jax.ShapeDtypeStruct(lo.shape, lo.dtype) for lo, _ in box])
    found = []
    for value in graph.outputs:
        if not isinstance(value, Ref):
            flat = jnp.ravel(jnp.asarray(value)).astype(box[0][0].dtype)
            zero = jnp.zeros((flat.size, sum(lo.size for lo, _ in box)))
            found.append((flat, flat, (flat, flat), (flat, flat), zero, flat, zero, flat))
            continue
        node = graph.nodes[value.index]
        problem = Problem(graph, value.index, Region(box), jnp.zeros(0), jnp.zeros(0), False, 1, 1 << 30)
        ends = problem.intervals()[value.index]
        ranges = tightened(problem)
        lines = problem.lines(value.index, ranges)
        eye = identity(node.shape, box[0][0].dtype)
        forms, at = backward(graph, value.index, jnp.concatenate([eye, -eye]), jnp.zeros(2 * len(eye), eye.dtype), ranges, lines)
        least = problem.least(forms, at)
        n = len(eye)
        rows = [
            forms[i].dense() if hasattr(forms.get(i), "dense") else forms.get(i, jnp.zeros((2 * n, *b[0].shape))) for i, b in enumerate(box)
        ]
        a = jnp.concatenate([jnp.reshape(r, (2 * n, lo.size)) for r, (lo, _) in zip(rows, box, strict=True)], 1)
        flat = [jnp.ravel(v).astype(eye.dtype) for v in ends]
        # half as much again to compile: of every rule with JAXSEC_FULL=1, of random programs always
        pair = propagated(problem).pairs[value.index] if forward or FULL else None
        carried = flat if pair is None else [jnp.ravel(v) for v in concretised(problem, pair)]
        found.append((*flat, (least[:n], -least[n:]), tuple(carried), a[:n], at[:n], -a[n:], -at[n:]))
    return found


def points(boxes: list[tuple[Any, Any]], n: int, seed: int) -> list[np.ndarray]:
    """[n, *shape] per input: uniform ones, corners, and edges (some coordinates at an end)."""
    rng = np.random.default_rng(seed)
    found = []
    for lo, hi in boxes:
        lo, hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
        share = rng.random((n, *lo.shape))
        third = n // 3
        share[:third] = np.round(share[:third])
        share[third : 2 * third] = np.clip(3 * share[third : 2 * third] - 1, 0, 1)
        share[0], share[1], share[2] = 0, 1, 0.5
        found.append(np.clip(lo + share * (hi - lo), lo, hi))
    return found


def bred(boxes: list[tuple[Any, Any]], xs: list[np.ndarray], ys: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """As many points again, near those where some output is largest or smallest: some of their coordinates moved to an end or anywhere."""
    rng = np.random.default_rng(seed)
    best = np.concatenate([np.concatenate([np.argmax(y, 0), np.argmin(y, 0)]) for y in ys if y.size])
    parents = rng.choice(best, len(xs[0]))
    found = []
    for x, (lo, hi) in zip(xs, boxes, strict=True):
        new = points([(lo, hi)], len(x), seed)[0]
        found.append(np.where(rng.random(x.shape) < 0.25, new, x[parents]))
    return found


@jax.enable_x64(True)
@jax.numpy_rank_promotion("allow")
def climbed(fn: Callable[..., Any], boxes: list[tuple[Any, Any]], starts: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Signed gradient ascent and descent on random outputs, from the first points."""
    rng = np.random.default_rng(seed)
    ends = [(jnp.asarray(lo, jnp.float64), jnp.asarray(hi, jnp.float64)) for lo, hi in boxes]
    outs = [o for o in jax.tree.leaves(jax.eval_shape(fn, *(lo for lo, _ in ends)))]
    weights = [jnp.asarray(rng.normal(size=o.shape) * (rng.random(o.shape) < 0.5)) for o in outs]

    def height(*xs: jax.Array) -> jax.Array:
        return sum(jnp.sum(w * jnp.nan_to_num(o.astype(jnp.float64))) for w, o in zip(weights, jax.tree.leaves(fn(*xs)), strict=True))

    slope = jax.jit(jax.vmap(jax.grad(height, argnums=tuple(range(len(ends))))), compiler_options=QUICK)
    xs = [jnp.asarray(s[:64]) for s in starts]
    sign = jnp.where(jnp.arange(len(xs[0])) % 2 == 0, 1.0, -1.0)
    for step in (0.5, 0.2, 0.1, 0.05):
        gs = slope(*xs)
        xs = [
            jnp.clip(x + step * (hi - lo) * jnp.sign(jnp.nan_to_num(g)) * sign.reshape(-1, *(1,) * lo.ndim), lo, hi)
            for x, g, (lo, hi) in zip(xs, gs, ends, strict=True)
        ]
    return [np.asarray(x) for x in xs]


def values(fn: Function, xs: list[np.ndarray], dtype: Any = np.float64, run: Any = None, jit: bool = True) -> tuple[Any, list[np.ndarray]]:
    """(the compiled function, to be handed in again; [n, size] every output at every point)."""
    with jax.enable_x64(dtype == np.float64), jax.numpy_rank_promotion("allow"):
        run = run or (jax.jit(jax.vmap(fn), compiler_options=QUICK) if jit else jax.vmap(fn))
        outs = run(*(jnp.asarray(x, dtype) for x in xs))
        return run, [np.asarray(o).reshape(len(xs[0]), -1).astype(np.float64) for o in jax.tree.leaves(outs)]


def check(
    fns: Function | dict[str, Function], *boxes: tuple[Any, Any], n: int = 510, seed: int = 0, ascent: bool = False, run: Any = None,
    dtype: Any = np.float64,
) -> list[Bounded]:  # fmt: skip
    """Asserts that no point leaves the intervals or the linear bounds of any output. Returns the bounds.

    Points: random ones, two generations that are bred from those where outputs are extreme, and with `ascent` steps along gradients.
    """
    found, fn = bounds(fns, *boxes, run=run, dtype=dtype), joined(fns)
    names = list(fns) if isinstance(fns, dict) else [f"output {i}" for i in range(len(found))]
    xs = points(list(boxes), n, seed)
    if ascent:
        xs = [np.concatenate([x[: n - len(c)], c]) for x, c in zip(xs, climbed(fn, list(boxes), xs, seed), strict=True)]
    evaluate = None
    for generation in range(3):
        evaluate, ys = values(fn, xs, dtype, evaluate)
        flat = np.concatenate([x.reshape(len(x), -1) for x in xs], 1)
        for name, b, y in zip(names, found, ys, strict=True):
            contains(b, flat, y, name, TOLERANCE[dtype])
        xs = bred(list(boxes), xs, ys, seed + generation)
    return found


def contains(b: Bounded, x: np.ndarray, y: np.ndarray, name: str, tolerance: float = 1e-9) -> None:
    """x [n, D] points, y [n, size] values there."""
    for label, v in (("interval", b.lo), ("interval", b.hi), *(("crown", v) for v in b.crown), *(("forward", v) for v in b.forward)):
        assert not np.isnan(v).any(), f"{name}: {label} is nan: {v}"
    fits = np.isfinite(y)
    low, high = _line(b.low, b.low_at, x, -np.inf), _line(b.high, b.high_at, x, np.inf)
    size = np.maximum(1, np.abs(y, where=fits, out=np.ones_like(y)))
    for label, lower, upper in (("interval", b.lo, b.hi), ("crown", *b.crown), ("forward", *b.forward), ("lines", low, high)):
        with np.errstate(invalid="ignore"):
            beyond = np.where(fits, np.maximum(lower - y, y - upper) / size, 0)
        worst = np.unravel_index(np.argmax(beyond), beyond.shape)
        ends = [np.broadcast_to(v, y.shape)[worst] for v in (lower, upper)]
        assert beyond[worst] <= tolerance, f"{name}: {label} {ends} does not contain {y[worst]} at {x[worst[0]]} (element {worst[1]})"


def _line(a: np.ndarray, at: np.ndarray, x: np.ndarray, nothing: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        v = x @ a.T + at
    return np.where(np.isnan(v) | ~np.isfinite(at), nothing, v)
