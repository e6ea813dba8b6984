"""Deterministic gates: what a step costs in arithmetic, what a program carries along, what travels between devices. No clocks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxsec
from jaxsec import APGD, FAB, PGD, Square, Status
from jaxsec.attack._problem import Problem
from jaxsec.attack._run import finish, start

from .conftest import CLASSES

WIDTH, ROWS = 256, 32
SHAPE = (1, 16, 16)
# forward evaluations, and those with a gradient, of one step; the rest of the step is elementwise and a few sums over the row
STEPS = {
    "pgd": (PGD(steps=3), 1),
    "apgd-ce": (APGD(steps=3), 1),
    "apgd-t": (APGD(steps=3, targets=2), 1),
    "fab-t": (FAB(steps=3, targets=2, minimise=False), 1),
    "square": (Square(steps=3), 0),
}


def wide(params, x):
    """So wide that the matrix products are nearly all of the arithmetic."""
    h = jax.nn.relu(x.reshape(x.shape[0], -1) @ params[0])
    return jax.nn.relu(h @ params[1]) @ params[2]


@pytest.fixture(scope="module")
def problem() -> Problem:
    r = np.random.default_rng(0)
    d = int(np.prod(SHAPE))
    shapes = [(d, WIDTH), (WIDTH, WIDTH), (WIDTH, CLASSES)]
    model = jaxsec.bind(wide, [jnp.asarray(r.normal(size=s) / s[0] ** 0.5, jnp.float32) for s in shapes])
    x = jnp.asarray(r.uniform(0.2, 0.8, size=(ROWS, *SHAPE)), jnp.float32)
    y = jnp.asarray(r.integers(0, CLASSES, ROWS), jnp.int32)
    threat = jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0).canonical(x)
    return Problem(model=model, x0=x, y=y, threat=threat, keys=jax.random.split(jax.random.key(0), ROWS), n_classes=CLASSES)


def products(jaxpr) -> int:
    """Multiplications of all `dot_general`s of a program, loop bodies once."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += int(np.prod(eqn.outvars[0].aval.shape)) * int(np.prod([shape[i] for i in contract]))
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                total += products(getattr(inner, "jaxpr", inner))
    return total


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_one_evaluation_with_gradient_to_the_input_only(name, problem):
    method, gradients = STEPS[name]
    state = jax.eval_shape(start, method, problem, jnp.int32(0))
    step = jax.make_jaxpr(lambda p, s, i: method.step(p, s, i))(problem, state, jnp.int32(1))
    forward = jax.make_jaxpr(problem.model)(problem.x0)
    ratio = products(step.jaxpr) / products(forward.jaxpr)
    # a third multiple would be a gradient of the weights, or a second forward
    assert 1 + gradients <= ratio + 1e-6, ratio
    assert ratio <= 1 + gradients + (0.02 if name != "fab-t" else 0.05), ratio


@pytest.mark.parametrize("name", STEPS)
def test_compiled_arithmetic_is_near_the_products(name, problem):
    """XLA's own count: projections and bookkeeping are small beside the network."""
    method, gradients = STEPS[name]
    state = jax.eval_shape(start, method, problem, jnp.int32(0))

    def flops(f, *a) -> float:
        return jax.jit(f).lower(*a).compile().cost_analysis()["flops"]

    ratio = flops(lambda p, s, i: method.step(p, s, i), problem, state, jnp.int32(1)) / flops(lambda m, x: m(x), problem.model, problem.x0)
    assert 1 + gradients - 0.05 <= ratio <= (1 + gradients) * 1.15, ratio


@pytest.mark.parametrize("name", STEPS)
def test_programs_capture_no_arrays(name, problem):
    """Weights, rows, eps and keys are arguments; a captured array would be compiled in, and again for every other value."""
    method, _ = STEPS[name]
    state = jax.eval_shape(start, method, problem, jnp.int32(0))
    for program in (
        jax.make_jaxpr(lambda p, r: method.init(p, r))(problem, jnp.int32(0)),
        jax.make_jaxpr(lambda p, s, i: method.step(p, s, i))(problem, state, jnp.int32(1)),
        jax.make_jaxpr(lambda p, s: finish(method, p, s))(problem, state),
    ):
        assert sum(np.asarray(c).nbytes for c in program.consts) <= 1024


def test_queries_are_the_published_counts(problem):
    """Rows that survive pay for every step, and nothing twice."""
    model, x = problem.model, problem.x0
    y = jax.jit(model)(x).argmax(axis=1).astype(jnp.int32)
    threat = jaxsec.LInf(eps=1e-6, lo=0.0, hi=1.0)
    spent = {}
    for name, method in {"pgd": PGD(steps=3, restarts=2), "apgd": APGD(steps=3), "square": Square(steps=3)}.items():
        r = jaxsec.attack(model, x, y, threat=threat, method=method, key=jax.random.key(0), progress=False)
        stood = np.asarray(r.status) == Status.ROBUST
        assert stood.all()
        spent[name] = (set(np.asarray(r.queries).tolist()), set(np.asarray(r.gradients).tolist()))
    # the front door's clean forward and one check per round; between them start + steps, or for Square as many as it was given
    assert spent == {"pgd": ({1 + 2 * (4 + 1)}, {2 * 4}), "apgd": ({1 + 4 + 1}, {4}), "square": ({1 + 3 + 1}, {0})}, spent


def test_no_row_travels_between_devices(problem, devices):
    """Sharded over 8 devices a step talks only about when to stop: no collective carries rows."""
    mesh = jax.make_mesh((8,), ("rows",))
    rows, all_ = NamedSharding(mesh, PartitionSpec("rows")), NamedSharding(mesh, PartitionSpec())
    model = jax.device_put(problem.model, all_)
    x, y = jax.device_put(problem.x0, rows), jax.device_put(problem.y, rows)

    @jax.jit
    def program(model, x, y, key):
        return jaxsec.attack(model, x, y, threat=jaxsec.L2(eps=0.5, lo=0.0, hi=1.0), method=PGD(steps=3), key=key).x

    text = program.lower(model, x, y, jax.random.key(0)).compile().as_text()
    found = re.findall(r"= (\S+) (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)(?:-start)?\(", text)
    moved = [(shape, kind) for shape, kind in found if kind != "all-reduce" or not re.match(r"^(pred|s32|u32|f32)\[\]", shape)]
    assert not moved, moved
